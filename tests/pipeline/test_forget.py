"""Erasing: only what the plan named changes, the audit is equal, one request id has one effect, and nobody's name leaks."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from sandbox import CANARY, Sandbox, refused

from lmeraser.pipeline.locks import compare, outs_by_stage, read_outs

pytestmark = pytest.mark.slow

KEYS = {"request_id", "state", "certificate", "records_removed", "clusters_retrained", "records_retrained", "records_total"}


def test_erasing_changes_what_the_plan_named_and_equals_a_rebuild_without_the_person(project: Sandbox) -> None:
    """And without single images of others, who stay."""
    person = project.people()[3]
    others = project.manifest[project.manifest["subject"].isin(project.people()[4:9]) & (project.manifest["split"] == "train")]
    paths = others.groupby("subject").filter(lambda rows: len(rows) > 2).groupby("subject")["path"].first().tolist()
    named = ("--subject", person, "--path", *paths)
    before = outs_by_stage(project.root / "dvc.lock")
    planned = project.json("plan", *named)
    assert planned["owners"] == len(paths) > 1
    assert outs_by_stage(project.root / "dvc.lock") == before
    project.set_params(service={"rebuild_share": 1})  # every erasure is chosen to be rebuilt
    done = project.lmeraser("forget", *named, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert KEYS | {"seconds"} <= summary.keys()
    assert summary["clusters_retrained"] == planned["clusters_retrained"] == len(planned["slots_retrained"])
    assert summary["records_removed"] == (project.manifest["subject"] == person).sum() + len(paths)
    after = outs_by_stage(project.root / "dvc.lock")
    tuned = {stage for stage in after if stage.startswith("tune@") and after[stage] != before[stage]}
    assert tuned == {f"tune@{slot}" for slot in planned["slots_retrained"] + planned["slots_emptied"]}
    check_rebuild(project, summary)
    refused(project.lmeraser("forget", "--subject", person), 2)
    # The person's name stands in the source (outside the project's control) and nowhere else that people read.
    for name, content in project.contents().items():
        if not name.startswith(("people/", "artifacts/split/", "tests/")):
            assert CANARY.encode() not in content, name
    assert CANARY not in done.stdout + done.stderr


def check_rebuild(project: Sandbox, summary: dict[str, Any]) -> None:
    """The rebuild that is due gives the same bytes and settles it; the certificate is about the people of the records."""
    request_id = summary["request_id"]
    assert summary["rebuild_due"] is True
    audit = project.json("audit", "--due")
    artifacts = len(read_outs(project.root / "dvc.lock"))
    people = {"certificate": 1, "same": True}
    assert audit == {"equal": True, "artifacts": artifacts, "differing": [], "rebuilt": [request_id], "people": people}
    selection = project.json("audit", "--selection")["selection"]
    assert (selection["complete"], selection["chosen"]) == (True, [request_id])
    (certificate,) = project.json("verify", str(project.root / summary["certificate"]))["certificates"]
    assert certificate["format"] == 3
    assert certificate["audit_key_id"] == selection["keys"][0]


@pytest.mark.campaign("in process: unit/test_forgetting.py")
def test_same_request_id_twice_has_one_effect_and_another_subject_is_refused(project: Sandbox) -> None:
    identity = str(uuid.uuid4())
    people = project.people()
    accepted = project.json("submit", "--subject", people[0], people[1], "--request-id", identity)
    assert accepted["state"] == "quarantined"
    project.json("plan", "--subject", people[2])  # others can be planned meanwhile
    first = project.json("forget", "--subject", people[1], people[0], "--request-id", identity.upper())
    lock = (project.root / "dvc.lock").read_bytes()
    again = project.json("forget", "--request-id", identity, "--subject", people[0], people[1])
    assert again == first
    assert (project.root / "dvc.lock").read_bytes() == lock
    refused(project.lmeraser("forget", "--subject", people[5], "--request-id", identity), 2)
    assert project.json("status", identity) == first
    assert [request["request_id"] for request in project.json("status")["requests"]] == [identity]
    assert project.json("resume") == {"finished": []}


@pytest.mark.campaign("in process: unit/test_corrections.py; real bytes: compared with a rebuild, and with the right source")
def test_corrected_records_equal_a_rebuild_and_a_source_that_was_right(project: Sandbox) -> None:
    table = project.manifest
    theirs = table[(table["visibility"] == "private") & (table["split"] == "train")]
    first, second = theirs.iloc[0], theirs[theirs["subject"] != theirs.iloc[0]["subject"]].iloc[0]
    label = next(label for label in sorted(set(theirs["label"])) if label != first["label"])
    before = outs_by_stage(project.root / "dvc.lock")
    planned = project.json("correct", "--path", first["path"], "--label", label, "--plan")
    project.json("correct", "--path", first["path"], "--label", label)
    after = outs_by_stage(project.root / "dvc.lock")
    tuned = {stage for stage in after if stage.startswith("tune@") and after[stage] != before[stage]}
    assert tuned == {f"tune@{slot}" for slot in planned["slots_retrained"]} != set()
    project.json("correct", "--path", second["path"], "--subject", first["subject"])
    audit = project.json("audit", "--rebuild", "--stores")
    assert (audit["equal"], audit["clean"]) == (True, True)
    outs = read_outs(project.root / "dvc.lock")
    table.loc[table["path"] == first["path"], "label"] = label
    table.loc[table["path"] == second["path"], "subject"] = first["subject"]
    table.to_csv(project.root / "people" / "manifest.csv", index=False)
    project.dvc("repro")
    assert read_outs(project.root / "dvc.lock") == outs


@pytest.mark.campaign("in process: unit/test_forgetting.py; real bytes: each erasure here is compared with a rebuild")
def test_one_by_one_equals_all_at_once_in_another_order(project: Sandbox, built: Sandbox, tmp_path: Path) -> None:
    people = built.people()[5:8]
    for person in people:
        project.json("forget", "--subject", person)
    other = Sandbox(tmp_path / "other")
    shutil_copy(built.root, other.root)
    other.json("forget", "--subject", *reversed(people))
    comparison = compare(read_outs(project.root / "dvc.lock"), read_outs(other.root / "dvc.lock"))
    assert comparison.equal, comparison.differing


def shutil_copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target, symlinks=True)


@pytest.mark.campaign("in process: unit/test_forgetting.py; a build after public records changed: test_build.py")
def test_subject_with_public_records_is_blocked_until_a_rebuild_is_accepted(project: Sandbox) -> None:
    person = project.people("public")[0]
    before = project.contents(private=False)
    line = refused(project.lmeraser("forget", "--subject", person), 3)
    assert "--include-public" in line
    assert "backbone" in line
    assert project.contents(private=False) == before
    identity = line.split()[-1]  # a person who gave no id is told the one by which it can be taken up again
    done = project.json("forget", "--subject", person, "--include-public", "--request-id", identity)
    assert (done["request_id"], done["state"]) == (identity, "certified")
    assert project.json("audit", "--rebuild")["equal"] is True


@pytest.mark.campaign("in process: unit/test_forgetting.py")
def test_source_under_our_control_loses_the_persons_rows_and_files(project: Sandbox) -> None:
    project.set_params(source={"erase": True})
    project.dvc("repro")
    person = project.people()[2]
    rows = project.manifest[project.manifest["subject"] == person]
    others = project.manifest[project.manifest["subject"] != person]
    project.json("forget", "--subject", person)
    assert person not in set(project.manifest["subject"])
    assert not any((project.root / "people" / path).exists() for path in rows["path"])
    assert all((project.root / "people" / path).exists() for path in others["path"])
    assert project.json("audit", "--rebuild")["equal"] is True
    # Somebody imports the old manifest again: the erased list keeps the person out.
    rows.assign(path=others["path"].iloc[0]).pipe(lambda old: old.iloc[:1]).to_csv(
        project.root / "people" / "manifest.csv", mode="a", header=False, index=False
    )
    before = read_outs(project.root / "dvc.lock")
    manifest = project.root / "people" / "manifest.csv"
    table = project.manifest
    table.loc[table.index[-1], "path"] = "images/again.png"
    (project.root / "people" / "images" / "again.png").write_bytes(
        (project.root / "people" / others["path"].iloc[0]).read_bytes()
    )
    table.to_csv(manifest, index=False)
    project.dvc("repro")
    assert read_outs(project.root / "dvc.lock") == before
