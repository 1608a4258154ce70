"""A corrected record is the one that a project with the right value has from the first day, and its old value is nowhere."""

import base64
import csv
import functools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import Row, contents, png
from fake_pipeline import CANARY, FakePipeline, fakes
from histories import id_of
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import killing
from mixes import KINDS, PRIVATE, ROWS, SHARED, applied, ask, digest_of, left, with_value
from restoring import EVERYTHING, Backup, keep_certificates

from flows.requests import batch
from lmeraser.core.digest import sha256
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.states import BLOCKED, CERTIFIED, REJECTED
from lmeraser.pipeline.locks import outs_by_stage, read_outs
from lmeraser.prove.certificate import read_chain
from lmeraser.prove.keys import load_public
from lmeraser.serve.quarantine import read_quarantine

pytestmark = pytest.mark.usefixtures("temporary")


def row_of(seed: int) -> Row:
    return next(row for row in PRIVATE if row.seed == seed)


@pytest.fixture
def pipeline(template: FakePipeline, tmp_path: Path) -> FakePipeline:
    return template.copy(tmp_path / "copy")


@functools.cache
def outs_of(template: FakePipeline, rows: tuple[Row, ...]) -> dict[str, str]:
    """Of a project that had these rows from the first day."""
    folder = template.root.parents[1] / sha256(repr(rows).encode())[:12]
    return dict(read_outs(FakePipeline.build(folder, rows).layout.lock))


def test_corrected_label_gives_the_project_that_had_it_from_the_first_day(template: FakePipeline, pipeline: FakePipeline) -> None:
    row = row_of(20)
    assert left(pipeline, [row]), "the test looks for what is there"
    told = pipeline.json("correct", "--sha256", digest_of(20), "--label", "two")
    assert (told["type"], told["state"], told["records_removed"]) == ("rectified", CERTIFIED, 1)
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, label="two"))
    assert left(pipeline, [row]) == []


def test_corrected_subject_gives_the_project_that_had_it_from_the_first_day(
    template: FakePipeline, pipeline: FakePipeline
) -> None:
    row = row_of(20)
    pipeline.json("correct", "--path", row.path, "--subject", f"{CANARY}-5")
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, subject=f"{CANARY}-5"))
    assert left(pipeline, [row]) == []


SEEDS = (20, 21, 30, 31, 40, 50)
KIND_OF_PROJECT = pytest.mark.parametrize(
    "changes", [{}, {"shards": 3}, {"cluster": {"unit": "record"}}], ids=["parts", "shards", "records"]
)


@pytest.mark.slow
@KIND_OF_PROJECT
@pytest.mark.parametrize("examples", [2, pytest.param(25, marks=pytest.mark.campaign("minutes"))])
def test_after_any_mix_of_corrections_and_erasures_what_is_left_is_what_was_so_from_the_first_day(
    examples: int, changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One by one, and several carried out together."""
    folder = tmp_path_factory.mktemp("mix")
    steps = st.tuples(st.sampled_from(KINDS), st.sampled_from(SEEDS), st.integers(1, 5), st.booleans())
    with fakes(folder):
        template = FakePipeline.build(folder / "template", ROWS, **changes)

        @settings(max_examples=examples, derandomize=examples < 3, deadline=None)
        @given(st.lists(steps, min_size=3, max_size=6))
        def mix(asked: list[tuple[str, int, int, bool]]) -> None:
            pipeline, rows = template.copy(tmp_path_factory.mktemp("copy") / "copy"), ROWS
            gone: set[Row] = set()
            for kind, seed, number, at_once in asked:
                after = applied(kind, seed, f"{CANARY}-{number}", rows)
                if after != rows and ask(pipeline, kind, seed, f"{CANARY}-{number}", rows):
                    gone, rows = gone | ({*rows} - {*after}), after
                if at_once:
                    pipeline.sweep()
            pipeline.sweep()
            assert {request.state for request in pipeline.requests()} <= {CERTIFIED, REJECTED, BLOCKED}
            fresh = FakePipeline.build(tmp_path_factory.mktemp("fresh") / "fresh", rows, **changes)
            assert read_outs(pipeline.layout.lock) == read_outs(fresh.layout.lock)
            assert left(pipeline, sorted(gone - {*rows}, key=repr)) == []

        mix()


@pytest.mark.slow
def test_plan_of_a_label_names_exactly_what_changes_and_changes_nothing(pipeline: FakePipeline) -> None:
    for seed in (20, 31, 40):
        label = "one" if row_of(seed).label == "two" else "two"
        before = outs_by_stage(pipeline.layout.lock)
        planned = pipeline.json("correct", "--sha256", digest_of(seed), "--label", label, "--plan")
        assert outs_by_stage(pipeline.layout.lock) == before
        assert (planned["exact"], planned["corrected"], planned["records_total"]) == (True, 1, len(training(PRIVATE)))
        assert "keeps the old values" in planned["source"]
        told = pipeline.json("correct", "--sha256", digest_of(seed), "--label", label)
        after = outs_by_stage(pipeline.layout.lock)
        tuned = {stage for stage in after if stage.startswith("tune@") and after[stage] != before[stage]}
        assert tuned == {f"tune@{slot}" for slot in planned["slots_retrained"]} != set()
        assert told["slots_retrained"] == planned["slots_retrained"]


def training(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.split == "train"]


def test_certificate_says_rectified_and_names_nobody_and_no_value(pipeline: FakePipeline) -> None:
    told = pipeline.json("correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-5")
    (certificate,) = read_chain(pipeline.layout.certificates, load_public(pipeline.layout.public_keys))
    (correction,) = certificate.rectified
    assert (certificate.request_id, certificate.subjects, certificate.images) == (told["request_id"], (), ())
    assert any("Corrections are keyed hashes" in limit for limit in certificate.limits)
    text = (pipeline.root / told["certificate"]).read_text()
    statement = json.loads(base64.b64decode(json.loads(text)["payload"]))["predicate"]
    assert statement["rectified"] == [correction]
    assert {"check": "corrected records are retained with the right values", "result": "1 of 1"} in statement["checks"]
    assert "keeps the old values" in statement["source"]
    status, _, complaint = pipeline.command("verify", str(pipeline.root / told["certificate"]))
    assert status == 0, complaint


def test_ledger_list_status_and_certificate_hold_no_value_in_clear(pipeline: FakePipeline) -> None:
    row = row_of(20)
    status, output, complaint = pipeline.command("correct", "--path", row.path, "--subject", f"{CANARY}-5")
    assert status == 0, complaint
    shown = output + complaint + json.dumps(pipeline.json("status"))
    private = pipeline.layout.private_state
    files = [
        *private.glob("ledger.db*"),
        private / "erased.json",
        pipeline.layout.erased,
        *pipeline.layout.certificates.iterdir(),
    ]
    written = b"".join(file.read_bytes() for file in files)
    for term in (row.path, digest_of(20), CANARY, id_of(row)):
        assert term not in shown
        assert term.encode() not in written
    assert not list(private.glob("*.needles*"))


def test_old_value_is_out_of_what_is_served_before_anything_is_retrained(pipeline: FakePipeline) -> None:
    row = row_of(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.requests.coordinator.run_open", lambda *_, **__: [])
        patch.setattr("flows.cli.carrying_out._lines", lambda *_: ([], False))
        pipeline.command("correct", "--sha256", digest_of(20), "--label", "two")
    quarantine = read_quarantine(pipeline.layout)
    assert quarantine is not None
    without = json.loads((quarantine.layout(pipeline.layout).root / "without.json").read_bytes())
    assert without == [id_of(row)]
    assert quarantine.slots, "its cluster answers no more"
    pipeline.sweep()
    assert read_quarantine(pipeline.layout) is None


def test_old_value_does_not_come_back_and_a_source_that_was_corrected_changes_nothing(pipeline: FakePipeline) -> None:
    row = row_of(20)
    pipeline.json("correct", "--sha256", digest_of(20), "--label", "two")
    before = read_outs(pipeline.layout.lock)
    people = pipeline.root / "people"
    (people / "again.png").write_bytes(png(20))
    with (people / "manifest.csv").open("a", newline="") as manifest:
        csv.writer(manifest).writerow(["again.png", row.label, row.subject, "private", "train"])
    pipeline.repro()
    assert read_outs(pipeline.layout.lock) == before
    text = (people / "manifest.csv").read_text().replace(f"{row.path},{row.label}", f"{row.path},two")
    (people / "manifest.csv").write_text(text)
    pipeline.repro()
    assert read_outs(pipeline.layout.lock) == before


@pytest.mark.slow
def test_corrected_value_may_be_corrected_again_and_never_back(template: FakePipeline, pipeline: FakePipeline) -> None:
    row = row_of(20)
    for person in (f"{CANARY}-5", f"{CANARY}-3"):
        pipeline.json("correct", "--sha256", digest_of(20), "--subject", person)
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, subject=f"{CANARY}-3"))
    assert left(pipeline, [row, replace(row, subject=f"{CANARY}-5")]) == []
    assert "contradict" in pipeline.refused(2, "correct", "--sha256", digest_of(20), "--subject", row.subject)


@pytest.mark.slow
def test_record_belongs_to_the_right_person_when_one_of_the_two_is_erased_later(
    template: FakePipeline, pipeline: FakePipeline, tmp_path: Path
) -> None:
    row = row_of(20)
    moved = with_value(ROWS, row, subject=f"{CANARY}-5")
    pipeline.json("correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-5")
    other = pipeline.copy(tmp_path / "other")
    pipeline.forget(row.subject)
    assert read_outs(pipeline.layout.lock) == outs_of(template, tuple(each for each in moved if each.subject != row.subject))
    other.forget(f"{CANARY}-5")
    kept = tuple(each for each in moved if each.subject != f"{CANARY}-5")
    assert read_outs(other.layout.lock) == outs_of(template, kept)
    table = (other.root / "people" / "manifest.csv").read_text().splitlines(keepends=True)
    (other.root / "people" / "manifest.csv").write_text("".join(line for line in table if f"{CANARY}-5" not in line))
    other.repro()
    assert read_outs(other.layout.lock) == outs_of(template, kept), "also once the source names the erased person no more"


def test_old_values_are_found_also_where_their_ids_in_clear_were_lost(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.forget(f"{CANARY}-3")  # its scan indexes every object
    pipeline.push()
    pipeline.forget(f"{CANARY}-5")
    monkeypatch.setattr(batch, "_note_terms", lambda _: None)
    pipeline.json("correct", "--sha256", digest_of(20), "--label", "two")
    assert left(pipeline, [row_of(20)]) == []


def test_last_record_of_somebody_leaves_their_name_nowhere_but_in_the_source(pipeline: FakePipeline) -> None:
    (last,) = (row for row in ROWS if row.subject == f"{CANARY}-test")
    pipeline.json("correct", "--path", last.path, "--subject", f"{CANARY}-1")
    held = contents(pipeline.root.parent).items()
    assert [name for name, content in held if last.subject.encode() in content and "/people/" not in name] == []


def test_same_id_twice_has_one_effect_and_about_something_else_is_refused(pipeline: FakePipeline) -> None:
    identity = "5eed0000-0000-4000-8000-000000000007"
    asked = ("correct", "--sha256", digest_of(20), "--label", "two", "--request-id", identity)
    first, second = (pipeline.json(*asked) for _ in range(2))
    assert (first["certificate"], len(pipeline.requests())) == (second["certificate"], 1)
    assert "something else" in pipeline.refused(2, *asked[:2], digest_of(30), *asked[3:])


BAD = {
    "an image that nobody has": (("--sha256", "0" * 64, "--label", "two"), "image 1 of 1 is unknown"),
    "no image": (("--label", "two"), "no image was named"),
    "no value": (("--sha256", digest_of(20)), "one of --label and --subject"),
    "both values": (("--sha256", digest_of(20), "--label", "two", "--subject", f"{CANARY}-1"), "one of --label and --subject"),
    "the same value": (("--sha256", digest_of(20), "--label", "one"), "have this value already"),
    "an unknown label": (("--sha256", digest_of(20), "--label", f"{CANARY}-cat"), "no private record has the label"),
    "an unknown person": (("--sha256", digest_of(20), "--subject", f"{CANARY}-9"), "--subject: subject 1 of 1 is unknown"),
    "an invisible letter": (("--sha256", digest_of(20), "--subject", f"{CANARY}\u200b"), "--subject has a control or invisible"),
    "an empty value": (("--sha256", digest_of(20), "--label", " "), "--label has 0 characters"),
    "a public record": (("--sha256", digest_of(100), "--label", "two"), "is in public records"),
    "two people": (("--sha256", digest_of(SHARED), "--label", "two"), "say whose is wrong with --of"),
    "a person who has it not": (
        ("--sha256", digest_of(20), "--of", f"{CANARY}-1", "--label", "two"),
        "in no record of the person",
    ),
}


@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["carried out", "planned"])
@pytest.mark.parametrize(("arguments", "line"), BAD.values(), ids=list(BAD))
def test_bad_correction_is_refused_in_one_line_and_leaves_no_trace(
    pipeline: FakePipeline, arguments: tuple[str, ...], line: str, plan: tuple[str, ...]
) -> None:
    before = read_outs(pipeline.layout.lock)
    assert line in pipeline.refused(2, "correct", *arguments, *plan)
    assert (read_outs(pipeline.layout.lock), pipeline.requests()) == (before, [])


def test_whose_record_is_meant_is_said_where_several_have_the_image(template: FakePipeline, pipeline: FakePipeline) -> None:
    row = next(row for row in ROWS if row.seed == SHARED and row.subject == f"{CANARY}-4")
    pipeline.json("correct", "--sha256", digest_of(SHARED), "--of", row.subject, "--label", "two")
    assert read_outs(pipeline.layout.lock) == outs_of(template, with_value(ROWS, row, label="two"))
    assert left(pipeline, [row]) == []


def test_record_that_the_right_person_has_already_is_there_once(template: FakePipeline, pipeline: FakePipeline) -> None:
    row = next(row for row in ROWS if row.seed == SHARED and row.subject == f"{CANARY}-4")
    pipeline.json("correct", "--sha256", digest_of(SHARED), "--of", row.subject, "--subject", f"{CANARY}-1")
    assert read_outs(pipeline.layout.lock) == outs_of(template, tuple(each for each in ROWS if each != row))


def test_erased_record_and_erased_person_are_no_matter_of_corrections(pipeline: FakePipeline) -> None:
    pipeline.forget(f"{CANARY}-5", images=[digest_of(30)])
    assert "already erased" in pipeline.refused(2, "correct", "--sha256", digest_of(30), "--label", "two")
    assert "already erased" in pipeline.refused(2, "correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-5")
    assert "unknown" in pipeline.refused(2, "correct", "--sha256", digest_of(50), "--label", "two")


def test_contradicting_corrections_are_refused_while_one_is_open(tmp_path: Path) -> None:
    with fakes(tmp_path):
        pipeline = FakePipeline.build(tmp_path / "approved", ROWS, service={"approval": True})
        first = pipeline.json("correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-3")
        assert "contradict" in pipeline.refused(2, "correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-5")
        assert "contradict" in pipeline.refused(2, "correct", "--sha256", digest_of(20), "--label", "two")
        assert [request.state for request in pipeline.requests()] == ["validated", REJECTED, REJECTED]
        pipeline.json("approve", first["request_id"], "--by", "somebody")
        pipeline.sweep()
        assert pipeline.request(first["request_id"]).state == CERTIFIED


def test_hold_on_a_person_is_on_the_correction_of_their_record(pipeline: FakePipeline) -> None:
    row = row_of(20)
    before = read_outs(pipeline.layout.lock)
    pipeline.json("hold", "--subject", row.subject, "--until", f"{date.today() + timedelta(days=30)}", "--reason", "a case")
    assert "on hold" in pipeline.refused(3, "correct", "--sha256", digest_of(20), "--label", "two")
    assert pipeline.sweep() == []
    assert read_outs(pipeline.layout.lock) == before
    pipeline.json("release", "--subject", row.subject)
    pipeline.sweep()
    assert [request.state for request in pipeline.requests()] == [CERTIFIED]
    assert left(pipeline, [row]) == []


@pytest.mark.parametrize("erase", [False, True], ids=["a source of others", "a source that is erased from"])
def test_value_that_the_source_had_first_leaves_the_stores_when_it_is_told(erase: bool, tmp_path: Path) -> None:
    row = row_of(20)
    with fakes(tmp_path):
        pipeline = FakePipeline.build(tmp_path / "built", ROWS, remote=False, source={"erase": erase})
        manifest = pipeline.root / "people" / "manifest.csv"
        manifest.write_text(manifest.read_text().replace(f"{row.path},{row.label}", f"{row.path},two"))
        asked = ("correct", "--sha256", digest_of(20), "--label", "two")
        pipeline.repro()
        outs, table = read_outs(pipeline.layout.lock), manifest.read_text()
        assert left(pipeline, [row]), "the cache has it"
        assert "no store holds" in pipeline.refused(2, *asked, "--was", "three")
        assert ("source.erase is true" if erase else "have this value already") in pipeline.refused(2, *asked)
        told = pipeline.json(*asked, "--was", row.label)
        assert (told["type"], told["state"], told["records_removed"]) == ("rectified", CERTIFIED, 0)
        assert (read_outs(pipeline.layout.lock), manifest.read_text(), left(pipeline, [row])) == (outs, table, [])
        statement = json.loads(base64.b64decode(json.loads((pipeline.root / told["certificate"]).read_text())["payload"]))
        assert statement["predicate"]["source"] == "the source has the right values already"
        assert "already corrected" in pipeline.refused(2, *asked, "--was", row.label)


def test_old_value_that_is_there_is_none_that_was(pipeline: FakePipeline) -> None:
    asked = ("correct", "--sha256", digest_of(20), "--label", "two", "--was", "one")
    assert "no record with the right value yet" in pipeline.refused(2, *asked)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.campaign("minutes"))])
@pytest.mark.parametrize("value", [("--label", "two"), ("--subject", f"{CANARY}-5")], ids=["label", "subject"])
def test_killed_anywhere_and_resumed_a_correction_ends_as_an_undisturbed_one(
    value: tuple[str, str], kills: int, template: FakePipeline, tmp_path: Path
) -> None:
    row, dice = row_of(20), random.Random(value[0])
    wanted = outs_of(template, with_value(ROWS, row, **{value[0].removeprefix("--"): value[1]}))
    identity = "5eed0000-0000-4000-8000-000000000009"
    asked = ("correct", "--sha256", digest_of(20), *value, "--request-id", identity)
    calm = template.copy(tmp_path / "calm")
    with killing(calm.root.parent) as seen:
        calm.json(*asked)
    for number in range(kills):
        pipeline = template.copy(tmp_path / f"killed-{number}")
        with killing(pipeline.root.parent, 1 + dice.randrange(seen.writes)) as kill:
            pipeline.json(*asked)
        if not any(request.request_id == identity for request in pipeline.requests()):
            pipeline.json(*asked)
        with killing(pipeline.root.parent, 1 + dice.randrange(60)):
            pipeline.resume()
        pipeline.resume()
        assert (pipeline.request(identity).state, read_outs(pipeline.layout.lock)) == (CERTIFIED, wanted), kill.where
        assert left(pipeline, [row]) == [], kill.where
        assert len(read_chain(pipeline.layout.certificates, load_public(pipeline.layout.public_keys))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stores", [("working tree",), EVERYTHING, ("cache", "remote")], ids=["working tree", "all", "stores"])
def test_backup_does_not_bring_the_old_value_back(stores: tuple[str, ...], template: FakePipeline, tmp_path: Path) -> None:
    pipeline = template.copy(tmp_path / "copy")
    pipeline.forget(f"{CANARY}-3")
    backup, row = Backup.of(pipeline, tmp_path / "backup"), row_of(20)
    pipeline.json("correct", "--sha256", digest_of(20), "--subject", f"{CANARY}-5")
    outs, kept = read_outs(pipeline.layout.lock), keep_certificates(pipeline, tmp_path / "kept")
    backup.restore(pipeline, stores)
    assert left(pipeline, [row]), "the backup has it"
    pipeline.json("reapply", "--certificates", str(kept))
    assert read_outs(pipeline.layout.lock) == outs
    assert left(pipeline, [row]) == []
    assert len([text for text in ErasedList.read(pipeline.layout.erased).pseudonyms if text.startswith("corrected:")]) == 1


@pytest.mark.slow
def test_file_that_a_record_came_into_is_found_though_its_folder_went_with_an_earlier_correction(tmp_path: Path) -> None:
    """Found here: its members were told by folders alone, and nothing tied to them what had been made of it."""
    with fakes(tmp_path):
        pipeline, rows, gone = FakePipeline.build(tmp_path / "shards", ROWS, shards=3), ROWS, list[Row]()
        for kind, seed, number in (("label", 31, 1), ("label", 50, 2), ("subject", 50, 2), ("subject", 21, 5), ("person", 0, 2)):
            after = applied(kind, seed, f"{CANARY}-{number}", rows)
            assert ask(pipeline, kind, seed, f"{CANARY}-{number}", rows)
            pipeline.sweep()
            gone, rows = [*gone, *(row for row in rows if row not in after)], after
        assert {request.state for request in pipeline.requests()} == {CERTIFIED}
        fresh = FakePipeline.build(tmp_path / "fresh", rows, shards=3)
        assert read_outs(pipeline.layout.lock) == read_outs(fresh.layout.lock)
        assert left(pipeline, gone) == []
