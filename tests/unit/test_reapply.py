"""After a restore nobody who was erased is back once `lmeraser reapply` is done, whatever was restored; and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from builders import contents
from fake_pipeline import CANARY, FakePipeline
from histories import search_terms_of
from restoring import EVERYTHING, STORES, Backup, keep_certificates

from lmeraser.data.records import read_records
from lmeraser.erase.erased import ErasedList
from lmeraser.prove.certificate import read_chain
from lmeraser.prove.keys import load_public

PERSON, OTHER, THIRD = (f"{CANARY}-{number}" for number in (2, 3, 5))


def subjects(pipeline: FakePipeline) -> set[str]:
    """Everybody in the records of the model."""
    return {record.subject for path in sorted(pipeline.layout.private.glob("*.parquet")) for record in read_records(path)}


def traces(pipeline: FakePipeline, *people: str) -> list[str]:
    """Files outside the source that hold something of people."""
    terms = search_terms_of(frozenset(people))
    files = contents(pipeline.root.parent).items()
    return [name for name, data in files if not name.startswith("project/people/") and any(term in data for term in terms)]


def statements(pipeline: FakePipeline) -> list[dict[str, object]]:
    """What each certificate says, oldest first."""
    import base64

    paths = sorted(pipeline.layout.certificates.glob("*.json"))
    return [json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))["predicate"] for path in paths]


def require_nobody_back(pipeline: FakePipeline, *people: str) -> None:
    """No record, no trace in any store, a current pipeline, a whole chain that the ledger knows, and the list names them."""
    assert subjects(pipeline).isdisjoint(people)
    assert traces(pipeline, *people) == []
    assert pipeline.status() == {}
    layout = pipeline.layout
    with pipeline.process() as project:
        key = project.subject_key()
        project.ledger.verify_chain()
        certified = {request.request_id for request in project.ledger.all() if request.state == "certified"}
    chain = read_chain(layout.certificates, load_public(layout.public_keys))
    assert {certificate.request_id for certificate in chain} == certified
    assert ErasedList.read(layout.erased).pseudonyms == {key.pseudonym(person) for person in people}
    assert pipeline.json("status").keys() == {"requests", "late"}
    assert pipeline.json("audit", "--stores")["clean"]


@pytest.mark.parametrize(
    "stores", [*[(store,) for store in STORES], EVERYTHING], ids=lambda stores: stores[0] if len(stores) == 1 else "all"
)
def test_a_restored_backup_of_one_store_or_all_brings_nobody_back(
    stores: tuple[str, ...], pipeline: FakePipeline, tmp_path: Path
) -> None:
    """Named after a public bug: github.com/attevon-llc/OpenTranscribe/issues/442, "backup restore resurrects subjects"."""
    pipeline.forget(OTHER)
    backup = Backup.of(pipeline, tmp_path / "backup")
    request = pipeline.forget(PERSON)
    kept = keep_certificates(pipeline, tmp_path / "kept")
    backup.restore(pipeline, stores)
    outcome = pipeline.json("reapply", "--certificates", str(kept))
    require_nobody_back(pipeline, PERSON, OTHER)
    back = PERSON in {"working tree": PERSON, "all": PERSON, "artifacts": PERSON}.get(
        stores[0] if len(stores) == 1 else "all", ""
    )
    assert (outcome["back_in_records"] == 1) == back
    assert outcome["repeats"] == ([request.request_id] if back else [])
    again = pipeline.json("reapply", "--certificates", str(kept))
    assert not again["restored"], again
    assert len(statements(pipeline)) == 2 + back
    if back:
        checks = {(check["check"], check["result"]) for check in statements(pipeline)[-1]["checks"]}  # type: ignore[attr-defined]
        assert ("repeats the erasures of requests", request.request_id) in checks
