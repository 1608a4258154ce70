"""A whole erasure in process: only what the plan named changes, one request id has one effect, and it is in effect at once."""

import base64
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import Row, contents, write_source
from fake_pipeline import CANARY, FakePipeline, dvc_of, everybody

from flows.dvc import command as dvc
from flows.requests import intake
from flows.run import build, warm_client
from lmeraser.clusters.files import load_members, load_sizes
from lmeraser.clusters.global_head import load_head
from lmeraser.core.layout import Layout
from lmeraser.data.records import read_records
from lmeraser.pipeline.locks import outs_by_stage, read_outs
from lmeraser.serve.quarantine import read_quarantine

PERSON, OTHER, THIRD = (f"{CANARY}-{number}" for number in (2, 3, 5))
STOCK = "stock-0"  # who has public records


def slots_of(pipeline: FakePipeline, person: str) -> list[str]:
    layout, params = pipeline.layout, dvc_of(pipeline.layout).params
    own = {record.id for part in params.parts for record in read_records(layout.part(part)) if record.subject == person}
    slots = [size.slot for size in load_sizes(layout.clusters)]
    return [slot for slot in slots if any(member.id in own for member in load_members(layout.members(slot)))]


def without(pipeline: FakePipeline, *people: str, **changes: Any) -> FakePipeline:
    """A project that never had these people."""
    rows = [row.named(index) for index, row in enumerate(everybody())]
    return FakePipeline.build(pipeline.root.parent / "without", [row for row in rows if row.subject not in people], **changes)


def test_erasing_changes_what_the_plan_named_and_equals_a_build_without_the_person(pipeline: FakePipeline) -> None:
    before = outs_by_stage(pipeline.layout.lock)
    planned = pipeline.json("plan", "--subject", PERSON)
    assert outs_by_stage(pipeline.layout.lock) == before, "a plan changes nothing"
    summary = pipeline.json("forget", "--subject", PERSON)
    assert summary["state"] == "certified"
    assert summary["clusters_retrained"] == planned["clusters_retrained"] == len(planned["slots_retrained"])
    assert summary["records_removed"] == sum(row.subject == PERSON for row in everybody())
    after = outs_by_stage(pipeline.layout.lock)
    changed = {stage for stage in after if after[stage] != before[stage]}
    tuned = {f"tune@{slot}" for slot in planned["slots_retrained"] + planned["slots_emptied"]}
    assert {stage for stage in changed if stage.startswith("tune@")} == tuned
    assert {stage for stage in changed if stage.startswith("embed@")} == {f"embed@{part}" for part in planned["parts"]}
    assert changed.isdisjoint({"pretrain", "skeleton", "recipe"})
    assert read_outs(pipeline.layout.lock) == read_outs(without(pipeline, PERSON).layout.lock)
    assert pipeline.status() == {}
    assert "already erased" in pipeline.refused(2, "forget", "--subject", PERSON)


UNTUNED = {
    "the global head alone": {"tune": {"kind": "none"}, "serve": {"mix": 0.0}},
    "the discriminant alone": {"tune": {"kind": "none"}, "serve": {"mix": 0.0}, "head": {"kind": "discriminant"}},
    "clusters in closed form": {"tune": {"kind": "closed"}, "head": {"kind": "discriminant"}},
}


@pytest.mark.parametrize("changes", UNTUNED.values(), ids=list(UNTUNED))
def test_project_without_tuned_clusters_forgets_to_the_bytes_of_one_that_never_had_the_people(
    pipeline: FakePipeline, tmp_path: Path, changes: dict[str, Any]
) -> None:
    untuned = FakePipeline.build(tmp_path / "untuned", **changes)
    before = outs_by_stage(untuned.layout.lock)
    planned = untuned.json("plan", "--subject", PERSON)
    assert planned["records_retrained"] == 0
    assert untuned.json("submit", "--subject", PERSON)["state"] == "quarantined"
    quarantine = read_quarantine(untuned.layout)
    assert quarantine is not None
    interim = quarantine.head_file(untuned.layout)
    assert interim is not None
    solved = interim.read_bytes()
    (answer,) = untuned.json("resume")["finished"]
    assert answer["state"] == "certified"
    assert untuned.layout.head.read_bytes() == solved
    after = outs_by_stage(untuned.layout.lock)
    assert not [stage for stage in after if stage.startswith("tune@") and after[stage] != before[stage]]
    for person in (OTHER, f"{CANARY}-0"):  # the latter alone has a label
        untuned.forget(person)
    head = load_head(untuned.layout.head)
    assert "rare" not in head.labels
    assert (head.clusters is not None) == (changes["tune"]["kind"] == "closed")
    never = without(untuned, PERSON, OTHER, f"{CANARY}-0", **changes)
    assert read_outs(untuned.layout.lock) == read_outs(never.layout.lock)
    assert untuned.status() == {}
    assert "nothing to ask" in untuned.refused(2, "audit", "--membership")


@pytest.mark.parametrize(("unchanged", "told"), [(0, "stages"), (3, "stages, 3 of them unchanged since DVC found them so")])
def test_certificate_says_of_how_many_stages_dvc_was_not_asked(
    unchanged: int, told: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc, "status_and_unchanged", lambda *_, **__: ({}, unchanged))
    text = (pipeline.root / pipeline.json("forget", "--subject", PERSON)["certificate"]).read_text()
    statement = json.loads(base64.b64decode(json.loads(text)["payload"]))["predicate"]
    results = {check["check"]: check["result"] for check in statement["checks"]}
    assert results["the pipeline is up to date"].partition(" ")[2] == told


def test_name_stands_nowhere_but_in_the_source_after_an_erasure(pipeline: FakePipeline) -> None:
    pipeline.json("forget", "--subject", PERSON)
    holding = {name for name, content in contents(pipeline.root.parent).items() if PERSON.encode() in content}
    assert holding == {"project/people/manifest.csv"}


def test_same_request_id_twice_has_one_effect_and_another_subject_is_refused(pipeline: FakePipeline) -> None:
    identity = str(uuid.uuid4())
    assert pipeline.json("submit", "--subject", PERSON, OTHER, "--request-id", identity)["state"] == "quarantined"
    pipeline.json("plan", "--subject", THIRD)  # others can be planned meanwhile
    first = pipeline.json("forget", "--subject", OTHER, PERSON, "--request-id", identity.upper())
    before = contents(pipeline.root)
    assert pipeline.json("forget", "--request-id", identity, "--subject", PERSON, OTHER) == first
    assert "other subjects" in pipeline.refused(2, "forget", "--subject", THIRD, "--request-id", identity)
    assert pipeline.json("status", identity) == first
    assert [request["request_id"] for request in pipeline.json("status")["requests"]] == [identity]
    assert pipeline.json("resume") == {"finished": []}
    after = contents(pipeline.root)
    assert {name for name in after if after[name] != before.get(name)} <= {".lmeraser/ledger.db", ".lmeraser/ledger.db-shm"}


def test_one_by_one_equals_all_at_once_in_another_order(pipeline: FakePipeline) -> None:
    together = FakePipeline(Path(shutil.copytree(pipeline.root.parent, pipeline.root.parent.with_name("other"))) / "project")
    for person in (PERSON, OTHER, THIRD):
        pipeline.forget(person)
    together.forget(THIRD, OTHER, PERSON)
    assert contents(pipeline.layout.artifacts) == contents(together.layout.artifacts)


def test_public_records_block_until_a_rebuild_is_accepted(pipeline: FakePipeline) -> None:
    before = contents(pipeline.layout.artifacts)
    line = pipeline.refused(3, "forget", "--subject", STOCK)
    assert "--include-public" in line
    assert contents(pipeline.layout.artifacts) == before
    identity = line.split()[-1]  # a person who gave no id is told the one by which it can be taken up again
    identity = pipeline.json("submit", "--subject", STOCK, "--include-public", "--request-id", identity)["request_id"]
    quarantine = read_quarantine(pipeline.layout)
    assert quarantine is not None
    assert quarantine.model_withheld, "the backbone itself must forget"
    [request] = pipeline.resume()
    assert (request.request_id, request.state) == (identity, "certified")
    assert contents(pipeline.layout.artifacts) == contents(without(pipeline, STOCK).layout.artifacts)


def test_source_under_our_control_loses_rows_and_files_and_a_second_import_brings_nobody_back(pipeline: FakePipeline) -> None:
    params = pipeline.layout.params
    params.write_text(params.read_text().replace("erase: false", "erase: true"))
    pipeline.repro()
    people = pipeline.root / "people"
    whole = contents(people)
    pipeline.forget(PERSON)
    paths = {row.named(index).path for index, row in enumerate(everybody()) if row.subject == PERSON}
    assert whole.keys() - contents(people).keys() == paths
    assert PERSON not in (people / "manifest.csv").read_text()
    outs = read_outs(pipeline.layout.lock)
    for name, content in whole.items():
        (people / name).write_bytes(content)
    pipeline.repro()
    assert read_outs(pipeline.layout.lock) == outs


def test_request_is_in_effect_before_anything_is_retrained_and_the_head_of_meanwhile_is_the_one_that_stays(
    pipeline: FakePipeline,
) -> None:
    outs = read_outs(pipeline.layout.lock)
    planned = pipeline.json("plan", "--subject", PERSON)
    assert pipeline.json("submit", "--subject", PERSON)["state"] == "quarantined"
    assert read_outs(pipeline.layout.lock) == outs
    quarantine = read_quarantine(pipeline.layout)
    assert quarantine is not None
    assert (quarantine.slots, quarantine.head) == (planned["slots_retrained"], "interim")
    interim = quarantine.head_file(pipeline.layout)
    assert interim is not None
    solved = interim.read_bytes()
    assert [request.state for request in pipeline.resume()] == ["certified"]
    assert pipeline.layout.head.read_bytes() == solved
    assert read_quarantine(pipeline.layout) is None
    assert not pipeline.layout.quarantine_copies.exists()


def test_requests_that_wait_together_share_one_retraining(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    pipeline.submit(OTHER)
    touched = sorted({*slots_of(pipeline, PERSON), *slots_of(pipeline, OTHER)})
    quarantine = read_quarantine(pipeline.layout)
    assert quarantine is not None
    assert quarantine.slots == touched
    finished = pipeline.json("resume")["finished"]
    assert [request["state"] for request in finished] == ["certified", "certified"]
    assert finished[0]["slots_retrained"] == touched
    assert len({request.batch_id for request in pipeline.requests()}) == 1


def test_cancelled_request_changes_nothing_and_the_next_can_name_the_same_person(pipeline: FakePipeline) -> None:
    before = contents(pipeline.layout.artifacts)
    request = pipeline.submit(PERSON)
    pipeline.json("cancel", request.request_id)
    assert read_quarantine(pipeline.layout) is None
    assert pipeline.resume() == []
    assert contents(pipeline.layout.artifacts) == before
    assert pipeline.forget(PERSON).state == "certified"


def test_request_waits_for_approval_and_the_certificate_says_that_it_was_given(pipeline: FakePipeline) -> None:
    params = pipeline.layout.params
    params.write_text(params.read_text().replace("approval: false", "approval: true"))
    identity = pipeline.json("forget", "--subject", PERSON)["request_id"]
    assert pipeline.request(identity).state == "validated"
    assert read_quarantine(pipeline.layout) is None
    assert pipeline.json("approve", identity, "--by", "A. Nymous")["state"] == "quarantined"
    assert pipeline.json("resume")["finished"][0]["approved_by"] == "A. Nymous"
    [certificate] = pipeline.layout.certificates.glob("*.json")
    assert b"Nymous" not in certificate.read_bytes()
    with pytest.raises(Exception, match="only one that nothing was done for can be cancelled"):
        pipeline.cancel(identity)


def test_event_is_read_and_what_else_it_holds_is_dropped(pipeline: FakePipeline, tmp_path: Path) -> None:
    event, identity = tmp_path / "event.json", "7f6d3f5e-1111-4222-8333-444455556666"
    message = {"subject_request_id": identity, "subject_request_type": "erasure", "extensions": {"mail": "secret@example.org"}}
    event.write_text(json.dumps(message | {"subject_identities": [{"identity_value": PERSON, "identity_format": "raw"}]}))
    summary = pipeline.json("forget", "--event", str(event))
    assert (summary["request_id"], summary["state"], summary["request_status"]) == (identity, "certified", "completed")
    for name, content in contents(pipeline.layout.private_state).items():
        assert b"secret@" not in content, name
        assert PERSON.encode() not in content, name


def test_unknown_people_stale_artifacts_and_misspelt_params_change_nothing(pipeline: FakePipeline) -> None:
    everyone = sorted({row.subject for row in everybody() if row.visibility == "private"})
    before = contents(pipeline.layout.artifacts)
    assert "subject 2 of 2 is unknown" in pipeline.refused(2, "forget", "--subject", PERSON, "nobody")
    assert "no subject was named" in pipeline.refused(2, "plan")
    assert "UUID" in pipeline.refused(2, "forget", "--subject", PERSON, "--request-id", "seven")
    assert "unknown here" in pipeline.refused(2, "status", "00000000-0000-0000-0000-000000000000")
    assert "nothing would be left" in pipeline.refused(2, "forget", "--subject", *everyone)
    params = pipeline.layout.params.read_text()
    pipeline.layout.params.write_text(params.replace("epochs: 2", "epochs: 9"))
    assert "not up to date" in pipeline.refused(2, "forget", "--subject", PERSON)
    pipeline.layout.params.write_text(params.replace("epochs: 2", "epochs: 2\n  epoch: 3"))
    assert "did you mean epochs?" in pipeline.refused(2, "forget", "--subject", PERSON)
    pipeline.layout.params.write_text(params)
    assert contents(pipeline.layout.artifacts) == before
    with pipeline.process() as project:
        assert intake.draft_plan(project, [PERSON], False).records_removed > 0


def test_build_after_people_came_and_left_runs_what_they_touched_and_equals_one_that_had_them_from_the_start(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    chains = warm_client.run_chains

    def listed(layout: Layout, shares: Sequence[Sequence[str]], gpus: int = 0, before: Path | None = None) -> dict[str, float]:
        ran.extend(name for share in shares for name in share)
        assert before is not None or all(name.startswith("tune@") for share in shares for name in share)
        return chains(layout, shares, gpus, before)

    monkeypatch.setattr(build, "run_chains", listed)
    rows = [row for row in everybody() if row.subject != PERSON]
    rows += [Row(f"{CANARY}-new", "one", seed=201), Row(f"{CANARY}-new", "two", seed=202)]
    shutil.rmtree(pipeline.root / "people")
    write_source(pipeline.root / "people", rows)
    touched = {f"embed@{part}" for part in dvc_of(pipeline.layout).params.parts}
    build.build(pipeline.layout)
    assert {name for name in ran if not name.startswith("tune@")} <= {
        "split",
        "cluster",
        "validate",
        "head",
        "evaluate",
    } | touched
    assert 0 < sum(name.startswith("tune@") for name in ran) <= 3
    assert pipeline.status() == {}
    assert not list(pipeline.layout.private_state.glob("*.before"))
    assert read_outs(pipeline.layout.lock) == read_outs(FakePipeline.build(pipeline.root.parent / "fresh", rows).layout.lock)


def test_build_after_public_records_changed_makes_everything_anew(pipeline: FakePipeline) -> None:
    rows = [*everybody(), Row("stock-9", "one", "public", seed=300)]
    shutil.rmtree(pipeline.root / "people")
    write_source(pipeline.root / "people", rows)
    build.build(pipeline.layout)
    assert pipeline.status() == {}
    assert read_outs(pipeline.layout.lock) == read_outs(FakePipeline.build(pipeline.root.parent / "fresh", rows).layout.lock)
