"""The report is gathered from whatever is there: nothing of it changes, nobody is named, and what is damaged is told in it."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import contents, png, refused
from fake_pipeline import CANARY, FakePipeline, fakes

from flows.audit.notes import note_membership, note_rebuild
from flows.report.gather import check_time, gather
from flows.requests.repeats import Repeats, receive_again
from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError
from lmeraser.data.tensors import read_note, write_tensors
from lmeraser.erase.erased import load_key
from lmeraser.erase.ledger_proposals import WITHDRAWN, Proposal
from lmeraser.pipeline.locks import Comparison
from lmeraser.report.facts import REPEATED, ReportFacts
from lmeraser.report.page import render, tally, verdicts

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"
SECRET = "CANARY typed by the operator"


@pytest.fixture(scope="module")
def erased_template(fake_template: FakePipeline, tmp_path_factory: pytest.TempPathFactory) -> FakePipeline:
    """Two people were erased, one by one. Never change it, take `erased`."""
    folder = tmp_path_factory.mktemp("erased")
    with fakes(folder):
        made = fake_template.copy(folder / "fake")
        for person in (PERSON, OTHER):
            made.forget(person)
    return made


@pytest.fixture
def erased(erased_template: FakePipeline, temporary: Path) -> FakePipeline:
    """A copy in which nobody asks any more: the fakes would draw the same ids again."""
    return erased_template.copy(temporary / "fake")


def facts_of(pipeline: FakePipeline, as_of: str | None = None) -> ReportFacts:
    """What is gathered, after a look at the page: it names nobody."""
    with pipeline.process() as project:
        facts = gather(project, as_of)
    page = render(facts).decode()
    key = load_key(pipeline.layout.private_state / "subject.key")
    for name in (CANARY, "CANARY", str(pipeline.root), *map(key.pseudonym, (PERSON, OTHER))):
        assert name not in page
    return facts


def kept(pipeline: FakePipeline) -> tuple[dict[str, bytes], list[Any]]:
    """Every file, and the ledger as it reads: SQLite tidies its own files when they are closed."""
    files = {name: data for name, data in contents(pipeline.root).items() if "ledger.db" not in name}
    with pipeline.process() as project:
        return files, [*project.ledger.all(), *project.ledger.events()]


def write_metrics(pipeline: FakePipeline, few: int = 0) -> None:
    """Metrics as `evaluate` writes them, and a frame in each tuned file. Args: few: place of the cluster of few people."""
    slots = [path.stem for path in sorted(pipeline.layout.tuned("x").parent.glob("*.safetensors"))]
    pipeline.layout.metrics.mkdir(exist_ok=True)
    (pipeline.layout.metrics / "metrics.json").write_text(json.dumps({"accuracy": {"served": 0.9, "linear_head": 0.8}}))
    (pipeline.layout.metrics / "classes.csv").write_text("label,test_records,accuracy\nCANARY-rare,,\n")
    sizes = [(slot, "," if place == few else "40,10") for place, slot in enumerate(slots)]
    rows = [f"{slot},{size},20,0.9" for slot, size in sizes]
    (pipeline.layout.metrics / "clusters.csv").write_text("\n".join(["slot,records,subjects,test_records,accuracy", *rows, ""]))
    for slot in slots:
        note = read_note(pipeline.layout.tuned(slot)) | {"state": "tuned"}
        write_tensors(pipeline.layout.tuned(slot), {"frame": np.ones((1, 8, 8), np.float32)}, note)


def test_gathering_names_nobody_and_changes_nothing(pipeline: FakePipeline) -> None:
    pipeline.forget(PERSON)
    pipeline.submit(OTHER)
    pipeline.refused(2, "submit", "--subject", f"{CANARY}-nobody")
    before = kept(pipeline)
    facts = facts_of(pipeline)
    assert kept(pipeline) == before
    assert [request.state for request in facts.requests] == ["certified", "quarantined", "rejected"]
    assert [certificate.problem for certificate in facts.certificates] == [None]
    assert (facts.chain.problem, facts.chain.anchored, facts.ledger.problem) == (None, True, None)
    assert len(facts.work) == 1
    assert facts.work[0].people == 1
    with pipeline.process() as project:
        assert facts.as_of == project.ledger.events()[-1].at


def test_the_same_project_gives_the_same_page_whatever_the_clock_says(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.forget(PERSON)
    first = render(facts_of(pipeline))
    monkeypatch.setattr("time.time", lambda: 9e9)
    copy = pipeline.copy(pipeline.root.parent.parent / "copy")
    assert render(facts_of(copy)) == first


def test_request_is_late_as_of_the_time_that_is_asked_for(pipeline: FakePipeline) -> None:
    request = pipeline.submit(PERSON)
    assert tally(facts_of(pipeline))["late"] == 0
    assert tally(facts_of(pipeline, "2999-01-01T00:00:00+00:00"))["late"] == 1
    assert [found.request_id for found in facts_of(pipeline, request.due_at).requests if found.late] == []


def test_each_request_has_its_type_and_says_why_it_is_there_though_nobody_sent_it(pipeline: FakePipeline) -> None:
    pipeline.forget(PERSON)
    pipeline.submit(images=[sha256(png(30))])
    pipeline.submit(f"{CANARY}-4", images=[sha256(png(31))])
    pipeline.json("correct", "--sha256", sha256(png(50)), "--label", "two")
    with pipeline.process() as project:
        at = project.ledger.get(pipeline.requests()[0].request_id).due_at
        name = load_key(pipeline.layout.private_state / "subject.key").pseudonym(f"{CANARY}-1")
        project.ledger.propose([Proposal("00000000-0000-4000-8000-000000000009", (name,), WITHDRAWN, at, None)])
        receive_again(project, [name], Repeats(("00000000-0000-4000-8000-000000000008",), 0, 1, 0))
    facts = facts_of(pipeline)
    assert [(request.about, request.origin) for request in facts.requests] == [
        ("person", None),
        ("image", None),
        ("person and image", None),
        ("correction", None),
        ("person", WITHDRAWN),
        ("person", REPEATED),
    ]
    count = tally(facts)
    assert list(count["types"].items()) == [("person", 3), ("person and image", 1), ("image", 1), ("correction", 1)]
    assert count["origins"] == {REPEATED: 1, WITHDRAWN: 1}
    assert pipeline.json("report", "--output", str(pipeline.root / "x.html"))["types"] == count["types"]


def test_what_people_typed_is_not_told(pipeline: FakePipeline) -> None:
    params = pipeline.root / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("approval: false", "approval: true"), encoding="utf-8")
    request = pipeline.submit(PERSON)
    with pipeline.process() as project:
        project.ledger.approve(request.request_id, SECRET)
        assert project.ledger.words(request.request_id) == [("approved by", SECRET)]
    assert [found.state for found in facts_of(pipeline).requests] == ["approved"]


def test_path_in_a_problem_of_the_ledger_is_taken_out_again(pipeline: FakePipeline) -> None:
    request = pipeline.submit(PERSON)
    with closing(sqlite3.connect(pipeline.layout.ledger)) as ledger:
        ledger.execute("UPDATE requests SET problem = ?", (f"it failed: /data/{CANARY}/x.png is missing; retry",))
        ledger.commit()
    (found,) = facts_of(pipeline).requests
    assert (found.request_id, found.words) == (request.request_id, "it failed: […]; retry")


# what is missing or damaged


def test_without_a_ledger_the_page_is_made_and_no_ledger(pipeline: FakePipeline) -> None:
    for file in pipeline.layout.private_state.glob("ledger.db*"):
        file.unlink()
    facts = facts_of(pipeline)
    assert (facts.ledger.there, facts.requests, facts.as_of) == (False, (), None)
    assert not pipeline.layout.ledger.exists()


def test_without_a_ledger_the_certificates_tell_what_was_done_and_when(erased: FakePipeline) -> None:
    there = facts_of(erased)
    for file in erased.layout.private_state.glob("ledger.db*"):
        file.unlink()
    facts = facts_of(erased)
    assert facts.as_of == max(certificate.completed_at or "" for certificate in there.certificates)
    assert [(work.retrained, work.total, work.seconds) for work in facts.work] == [
        (work.retrained, work.total, None) for work in there.work
    ]
    assert not facts.chain.anchored
    assert [kind for kind, _ in verdicts(facts)] == ["good", "note"]


def damaged(data: bytes) -> bytes:
    return data.replace(b'"sig": "', b'"sig": "AAAA', 1)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda folder: folder.write_bytes(b"{CANARY"), "not JSON"),
        (lambda file: file.write_bytes(damaged(file.read_bytes())), "does not fit|not standard base64"),
        (lambda file: file.rename(file.with_name("CANARY-anna.json")), "give the file that name again"),
    ],
)
def test_certificate_that_is_damaged_is_told_and_the_page_is_made(
    erased: FakePipeline, act: Callable[[Path], Any], said: str
) -> None:
    act(sorted(erased.layout.certificates.glob("*.json"))[0])
    facts = facts_of(erased)
    problems = [certificate.problem for certificate in facts.certificates if certificate.problem]
    assert len(problems) == 1
    assert any(part in problems[0] for part in said.split("|")), problems
    assert "1 of 2 certificates do not verify" in str(facts.chain.problem)
    assert tally(facts)["certificates_valid"] == 1


def test_chain_that_was_cut_is_told(erased: FakePipeline) -> None:
    first, last = sorted(erased.layout.certificates.glob("*.json"))
    kept = last.read_bytes()
    last.unlink()
    assert "HEAD names certificate 2" in str(facts_of(erased).chain.problem)
    head = erased.layout.certificates / "HEAD"
    head.unlink()
    assert "certificate 2, which the ledger knows" in str(facts_of(erased).chain.problem), "cut with its HEAD"
    last.write_bytes(kept)
    first.unlink()
    assert "those before it are missing" in str(facts_of(erased).chain.problem)
    last.unlink()
    assert "certificates/ is empty" in str(facts_of(erased).chain.problem)


def test_without_public_keys_nothing_verifies_and_it_says_why(pipeline: FakePipeline) -> None:
    pipeline.forget(PERSON)
    pipeline.layout.public_keys.unlink()
    (certificate,) = facts_of(pipeline).certificates
    assert "public keys" in str(certificate.problem)


def test_events_that_somebody_rewrote_are_told(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    with closing(sqlite3.connect(pipeline.layout.ledger)) as ledger:
        ledger.executescript("DROP TRIGGER events_no_update; UPDATE events SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 2")
    assert "event 2" in str(facts_of(pipeline).ledger.problem)


def test_metrics_and_artifacts_that_are_missing_or_damaged_are_a_line_of_the_page(pipeline: FakePipeline) -> None:
    assert any("metrics.json" in problem for problem in facts_of(pipeline).problems), "the fake's are not numbers"
    write_metrics(pipeline)
    assert facts_of(pipeline).problems == ()
    pipeline.layout.sizes.unlink()
    assert any("clusters.json" in problem for problem in facts_of(pipeline).problems)
    shutil.rmtree(pipeline.layout.artifacts)
    facts = facts_of(pipeline)
    assert (facts.prompts, facts.tree, facts.environment) == ((), (), {})
    assert facts.environment_problem


# the model


def test_no_prompt_of_few_people_or_of_people_who_asked_is_shown(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    write_metrics(pipeline)
    slots = [cluster.slot for cluster in facts_of(pipeline).clusters]
    write_metrics(pipeline, next(place for place, cluster in enumerate(facts_of(pipeline).clusters) if not cluster.left_out))
    facts = facts_of(pipeline)
    out = {cluster.slot for cluster in facts.clusters if cluster.left_out}
    small = {cluster.slot for cluster in facts.clusters if cluster.records is None}
    shown = {prompt.slot for prompt in facts.prompts}
    assert out
    assert small - out
    assert out - small
    assert shown == set(slots) - out - small
    assert facts.prompts_withheld == len(out | small)


def test_tree_leads_from_the_root_to_every_cluster(pipeline: FakePipeline) -> None:
    write_metrics(pipeline)
    facts = facts_of(pipeline)
    assert [branch.parent for branch in facts.tree][:1] == [-1]
    assert all(branch.parent < place for place, branch in enumerate(facts.tree))
    assert {branch.slot for branch in facts.tree} - {None} <= {cluster.slot for cluster in facts.clusters}


# audits


def test_audits_are_noted_once_somebody_was_erased_and_small_drills_without_numbers(pipeline: FakePipeline) -> None:
    few = {"verdict": "pass", "people": 1, "retrainings": 39, "control_detected": 1, "after_flagged": 0}
    few |= {"power": 1.0, "power_interval": [0.025, 1.0]}
    with pipeline.process() as project:
        note_rebuild(project, Comparison(3, []), 2.0)
    assert facts_of(pipeline).audits == ()
    pipeline.forget(PERSON)
    with pipeline.process() as project:
        note_rebuild(project, Comparison(3, ["artifacts/x"]), 2.0)
        note_membership(project, few)
        note_membership(project, few | {"people": 20, "verdict": "no power", "control_detected": 2})
    rebuilt, alone, many = facts_of(pipeline).audits
    assert (rebuilt.passed, rebuilt.seconds, rebuilt.words) == (False, 2.0, "3 artifacts compared, 1 differ")
    assert (alone.passed, "power" in alone.words) == (True, False)
    assert (many.passed, "power 1.00 (95 % interval 0.03 to 1.00)" in many.words) == (None, True)


# the command


def test_report_writes_a_page_and_tells_what_it_holds(pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.forget(PERSON)
    answer = pipeline.json("report", "--output", str(tmp_path / "page.html"), "--as-of", "2030-01-01")
    assert (tmp_path / "page.html").read_bytes().startswith(b"<!DOCTYPE html>")
    assert (answer["requests"], answer["certified"], answer["certificates_valid"], answer["chain"]) == (1, 1, 1, True)
    assert answer["as_of"] == "2030-01-01T00:00:00+00:00"
    assert CANARY not in json.dumps({name: value for name, value in answer.items() if name != "output"})


def test_place_and_time_that_are_none_are_one_line(pipeline: FakePipeline, tmp_path: Path) -> None:
    assert "the folder does not exist" in pipeline.refused(2, "report", "--output", str(tmp_path / "none" / "page.html"))
    assert "names a folder" in pipeline.refused(2, "report", "--output", str(tmp_path))
    for text in ("yesterday", "CANARY", "2026-13-01", "9999-12-31T23:59:59-23:59"):
        assert "--as-of is no time" in refused(BadInputError, partial(check_time, text))
    assert check_time("2026-11-28T12:00:00+02:00") == "2026-11-28T10:00:00+00:00"
