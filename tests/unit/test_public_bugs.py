"""Ten bugs that others had in public, each with its address, and that we must not have."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from builders import Row, contents, refused, write_source
from clocks import Clock
from doorway import FIRST, SECOND, Doorway, a_request
from fake_pipeline import CANARY, FakePipeline, everybody, fakes
from histories import search_terms_of
from restoring import Backup, keep_certificates

from flows import git
from flows.purge import step as purge
from flows.purge.git_history import SHALLOW, Repository
from flows.service.sweep import waits
from lmeraser.core.errors import ProjectError
from lmeraser.data.records import Part, read_records
from lmeraser.erase.states import CERTIFIED
from lmeraser.pipeline.locks import read_outs
from unit.test_reapply import repeated, require_nobody_back, statements, traces
from unit.yard import Yard, two_states

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"


def images_of(person: str) -> set[bytes]:
    return {term for term in search_terms_of(frozenset({person})) if term.startswith(b"\x89PNG")}


def test_a_second_copy_that_nobody_enumerated(pipeline: FakePipeline) -> None:
    """Resized avatars lay on under an earlier user name, and nothing pointed at them:
    https://github.com/jazzband/django-avatar/issues/181. Here nothing is signed while any place that we control has a copy.
    """
    image = min(images_of(PERSON))
    in_a_store = pipeline.remote / "files" / "md5" / "ab" / ("c" * 30)
    of_an_old_stage = pipeline.layout.artifacts / "thumbnails" / "c77.safetensors"
    by_hand = pipeline.root / "notes" / "thumbnail.bin"
    for copy in (in_a_store, of_an_old_stage, by_hand):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"header" + image)
    assert "remote disk: 1" in pipeline.refused(3, "forget", "--subject", PERSON), "nobody knows what it was made of"
    assert "(workspace: 1)" in pipeline.refused(1, "resume", "--accept-unknown")
    assert (in_a_store.exists(), of_an_old_stage.exists(), by_hand.exists()) == (False, False, True)
    assert not pipeline.layout.certificates.exists()
    by_hand.unlink()
    assert [request.state for request in pipeline.resume()] == [CERTIFIED]
    assert traces(pipeline, PERSON) == []


@pytest.mark.parametrize("erase", [True, False])
def test_embedding_deleted_and_photo_kept(erase: bool, temporary: Path) -> None:
    """Removing a document took its vectors and left the text in the library:
    https://github.com/Mintplex-Labs/anythingllm-docs/pull/259. Here photos go with what was made of them; a source that is not
    ours to clear is told in the certificate.
    """
    pipeline = FakePipeline.build(temporary / "built", source={"kind": "manifest", "path": "people", "erase": erase})
    pipeline.forget(PERSON)
    assert traces(pipeline, PERSON) == []
    in_source = [name for name, data in contents(pipeline.root / "people").items() if data in images_of(PERSON)]
    told = [check["result"] for check in statements(pipeline)[-1]["checks"]]
    assert bool(in_source) == (not erase)
    assert ("the source: source.erase is false" in told) == (not erase)


def test_a_hold_released_and_the_erasure_forgotten(pipeline: FakePipeline, clock: Clock) -> None:
    """A hold was released and nothing called back into the erasure:
    https://github.com/attevon-llc/OpenTranscribe/issues/442. Here its release is enough.
    """
    identity = pipeline.submit(PERSON).request_id
    pipeline.json("hold", identity, "--until", clock.day(30), "--reason", "file 42")
    assert pipeline.sweep() == []
    [answer] = pipeline.json("release", identity)["requests"]
    assert (answer["state"], answer["reason"], answer["held_until"]) == ("quarantined", None, None)
    assert waits(pipeline.request(identity), clock.now), "the next sweep starts it"
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_a_failed_mail_that_put_the_request_in_error(pipeline: FakePipeline) -> None:
    """A mail that could not be sent kept accounts from being deleted: https://github.com/privacybydesign/irmago/pull/199. Here
    who is to be told is told later, and the erasure goes on.
    """
    pipeline.json("hook", "add", "--command", "false", "--on", "received,in_effect,certified")
    request = pipeline.submit(PERSON)
    pipeline.json("hook", "send")
    pipeline.sweep()
    pipeline.json("hook", "send")
    done = pipeline.request(request.request_id)
    assert (done.state, done.reason) == (CERTIFIED, None)
    assert pipeline.json("status")["untold"]["waiting"] > 0


def test_an_idempotency_key_shared_by_two_clients_that_lost_the_second_erasure(way: Doorway) -> None:
    """The second client of a key was given what the first one had been told:
    https://github.com/RamaAditya49/titen/issues/37, https://github.com/nensii21/devlink/issues/773. Here it is told that the id
    is in use, whoever it asks for, and learns nothing of the first.
    """
    anna, berta = f"{CANARY}-1", PERSON
    assert way.send(a_request(anna)).status_code == 201
    for subject in (berta, anna):  # whoever it is about: the second client is never told that it was done
        assert "in use" in way.line(way.send(a_request(subject), client="other"), 409)
    assert way.send(a_request(berta, SECOND), client="other").status_code == 201
    assert way.states == {FIRST: "quarantined", SECOND: "quarantined"}
    assert way.ask("GET", f"/requests/{FIRST}", way.token("other", "read")).status_code == 404


def test_a_registry_that_kept_old_artifacts(pipeline: FakePipeline) -> None:
    """A deleted artifact was gone from the registry and stayed in its object store:
    https://github.com/VertaAI/modeldb/issues/1961 (and https://github.com/mlflow/mlflow/issues/1555: none could be deleted).
    Here every model that learnt from a person goes from every store, with the run entries that would bring it back.
    """
    before = read_outs(pipeline.layout.lock)
    pipeline.forget(PERSON)
    now = read_outs(pipeline.layout.lock)
    superseded = {md5 for path, md5 in before.items() if path.startswith("artifacts/")} - set(now.values())
    assert any("tune" in path for path, md5 in before.items() if md5 in superseded)
    for place in (pipeline.remote, pipeline.root / ".dvc" / "cache"):
        files = contents(place)
        assert superseded.isdisjoint(name.removeprefix("files/md5/").replace("/", "") for name in files)
        entries = [data.decode() for name, data in files.items() if name.startswith("runs/")]
        assert not [entry for entry in entries if any(md5 in entry for md5 in superseded)]


def test_a_shallow_clone(yard: Yard, tmp_path: Path) -> None:
    """Tools answered from the one commit that they saw, and advised `git fetch --unshallow`, which leaves other branches out:
    https://github.com/MongLong0214/commitlore/issues/66, https://github.com/kraulerson/solo-orchestrator/pull/397. Here nothing
    is purged by half a history, and what the line says makes it whole.
    """
    two_states(yard)
    yard.commit()
    yard.git("checkout", "--quiet", "-b", "other")
    yard.lock("other/dvc.lock", report=({}, {"report.txt": yard.store(b"of a branch")}))
    yard.commit()
    yard.git("checkout", "--quiet", "-")
    clone = Yard(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{yard.root}", str(clone.root)], check=True)
    yard.cache.rename(clone.cache)
    line = refused(ProjectError, clone.purge)
    assert SHALLOW in line
    [advice] = re.findall(r"run `(git remote [^`]*)`", line)
    subprocess.run(["sh", "-c", f"{advice} --quiet"], cwd=clone.root, check=True)
    assert Repository.of(clone.layout).problem == ""
    assert purge.unknown_in_remotes(clone.layout) == {}, "the other branch's lock is known"
    assert {name for name, _ in git.versions_of(clone.root, "other/dvc.lock")} == {"other/dvc.lock"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("changes", [{}, {"visibility": "public"}, {"split": "test"}, {"label": "two"}], ids=str)
def test_a_reimport_under_another_type(changes: dict[str, str], kind: str, numbered: FakePipeline) -> None:
    """A re-imported list brought deleted users back, and forgotten text under a new id:
    https://github.com/grokability/snipe-it/issues/9292, https://github.com/vshulcz/deja-vu/issues/968. Here whoever was erased
    stays out as a number or as text, of any file, under any label, as a public record or for tests.
    """
    rows = [Row(row.subject, row.label, row.visibility, row.split, row.seed, row.path) for row in numbered_rows()]
    again = [_changed(row, changes) if row.subject == ERASED else row for row in rows]
    _rewrite(numbered, again, kind)
    numbered.repro()
    files = [numbered.layout.public, *sorted(numbered.layout.private.glob("*.parquet"))]
    people = {record.subject for path in files for file in Part.of(path).files for record in read_records(file)}
    assert people == {row.subject for row in rows} - {ERASED}


ERASED = "7002"


def numbered_rows() -> list[Row]:
    """Everybody by a number."""
    people = sorted({row.subject for row in everybody()})
    rows = [row.named(index) for index, row in enumerate(everybody())]
    numbers = {person: str(7000 + place) for place, person in enumerate(people)}
    return [Row(numbers[row.subject], row.label, row.visibility, row.split, row.seed, row.path) for row in rows]


def _changed(row: Row, changes: dict[str, Any]) -> Row:
    fields = {"label": row.label, "visibility": row.visibility, "split": row.split} | changes
    return Row(row.subject, fields["label"], fields["visibility"], fields["split"], row.seed, row.path)


def _rewrite(pipeline: FakePipeline, rows: list[Row], kind: str) -> None:
    """A manifest of whole numbers: as text of a CSV, as int64 of a Parquet file."""
    import pandas as pd

    folder = pipeline.root / "people"
    (folder / "manifest.csv").unlink()
    write_source(folder, rows, kind)
    if kind == "parquet":
        path = folder / "manifest.parquet"
        frame = pd.read_parquet(path)
        frame.assign(subject=frame["subject"].astype("int64")).to_parquet(path, index=False)


@pytest.fixture(scope="module")
def numbered_template(tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """A project of people with numbers, of whom one was erased."""
    folder = tmp_path_factory.mktemp("numbered")
    with fakes(folder):
        made = FakePipeline.build(folder / "built", numbered_rows())
        assert made.forget(ERASED).state == CERTIFIED
        return made


@pytest.fixture
def numbered(numbered_template: FakePipeline, temporary: Path) -> FakePipeline:
    return numbered_template.copy(temporary / "fake")


def test_a_restored_backup(pipeline: FakePipeline, tmp_path: Path) -> None:
    """Restores brought erased people back, and nobody had a list of whom to erase again:
    https://github.com/attevon-llc/OpenTranscribe/issues/442, https://github.com/chattocorp/chatto/issues/219. Store by store:
    `test_reapply.py`.
    """
    pipeline.forget(OTHER)
    backup = Backup.of(pipeline, tmp_path / "backup")
    request = pipeline.forget(PERSON)
    kept = keep_certificates(pipeline, tmp_path / "kept")
    backup.restore(pipeline)
    assert traces(pipeline, PERSON)
    assert pipeline.json("reapply", "--certificates", str(kept))["back_in_records"] == 1
    require_nobody_back(pipeline, PERSON, OTHER)
    assert repeated(statements(pipeline)[-1]) == [request.request_id]


def test_a_mirror_that_pushed_back(pipeline: FakePipeline, tmp_path: Path) -> None:
    """A mirror wrote again what had been deleted, whoever deleted it: https://github.com/golang/go/issues/23099. Here an audit
    finds what came back, and `reapply` clears it; nobody was in the model, so nothing is signed.
    """
    backup = Backup.of(pipeline, tmp_path / "mirror")
    pipeline.forget(PERSON)
    signed = contents(pipeline.layout.certificates)
    backup.push(pipeline, "remote", "project/.dvc/cache")
    assert traces(pipeline, PERSON)
    status, _, _ = pipeline.command("audit", "--stores")
    assert status == 1
    outcome = pipeline.json("reapply")
    assert outcome["deleted"]["remote disk"] > 0
    assert outcome["deleted"]["cache"] > 0
    assert contents(pipeline.layout.certificates) == signed
    require_nobody_back(pipeline, PERSON)
