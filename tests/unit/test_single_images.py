"""Single images are erased whoever's they are, naming nobody: what is left is what a project without these records has."""

import csv
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import Row, contents, png
from fake_pipeline import CANARY, FakePipeline, fakes
from histories import id_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kills import killing
from mixes import PRIVATE, ROWS, SHARED, digest_of

from flows.purge import step as purging
from flows.purge.known import Known
from flows.purge.lineage import IsErased
from flows.purge.marks import OldValues
from flows.purge.plan import PurgePlan
from flows.requests import batch
from lmeraser.core.digest import sha256
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedImages, ErasedList
from lmeraser.erase.states import BLOCKED, CERTIFIED, REJECTED
from lmeraser.erase.taint import Condemned
from lmeraser.pipeline.locks import outs_by_stage, read_outs
from lmeraser.prove.certificate import read_chain
from lmeraser.prove.keys import load_public
from lmeraser.serve.quarantine import read_quarantine

pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def pipeline(template: FakePipeline, tmp_path: Path) -> FakePipeline:
    return template.copy(tmp_path / "copy")


def staying(seeds: frozenset[int], people: frozenset[str] = frozenset()) -> list[Row]:
    return [row for row in ROWS if row.seed not in seeds and row.subject not in people]


def left_terms(pipeline: FakePipeline, gone: Sequence[Row]) -> list[str]:
    """Files outside the source that hold an id of a record that left, or a digest or the bytes that no record has any more."""
    kept = {row.seed for row in ROWS if row not in gone}
    terms = {id_of(row).encode() for row in gone}
    terms |= {term for row in gone if row.seed not in kept for term in (png(row.seed), digest_of(row.seed).encode())}
    files = contents(pipeline.root.parent).items()
    return [name for name, held in files if not name.startswith("project/people/") and any(term in held for term in terms)]


@functools.cache
def outs_without(template: FakePipeline, seeds: frozenset[int], people: frozenset[str]) -> dict[str, str]:
    folder = template.root.parents[1] / sha256(repr((sorted(seeds), sorted(people))).encode())[:12]
    return dict(read_outs(FakePipeline.build(folder, staying(seeds, people)).layout.lock))


@pytest.mark.slow
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from([row.seed for row in PRIVATE if row.label != "rare"]), max_size=3),
            st.sets(st.sampled_from([f"{CANARY}-{number}" for number in (1, 2, 4)]), max_size=1),
        ).filter(any),
        min_size=1,
        max_size=2,
    )
)
def test_after_any_mix_of_images_and_people_what_is_left_is_what_a_project_without_these_records_has(
    template: FakePipeline, tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[set[int], set[str]]]
) -> None:
    pipeline = template.copy(tmp_path_factory.mktemp("mix") / "copy")
    seeds, people = frozenset[int](), frozenset[str]()
    for images, names in asked:
        there = staying(seeds, people)
        images &= {row.seed for row in there}
        names &= {row.subject for row in there}
        if not images and not names:
            continue
        request = pipeline.submit(*sorted(names), images=[digest_of(seed) for seed in sorted(images)], solved=False)
        if request.state == CERTIFIED or request.state in (REJECTED, BLOCKED):
            assert "left" in (request.reason or "")  # nothing, or one class, would be left to learn from
            continue
        pipeline.sweep()
        assert pipeline.request(request.request_id).state == CERTIFIED
        seeds, people = seeds | images, people | names
    assert read_outs(pipeline.layout.lock) == outs_without(template, seeds, people)
    assert left_terms(pipeline, [row for row in ROWS if row not in staying(seeds, people)]) == []
    with pipeline.process() as project:
        key = project.subject_key()
    listed = {*map(key.pseudonym, people), *(key.image_pseudonym(digest_of(seed)) for seed in seeds)}
    assert ErasedList.read(pipeline.layout.erased).pseudonyms == listed


@pytest.mark.slow
def test_plan_names_exactly_what_changes_also_where_somebody_comes_to_stand_elsewhere(pipeline: FakePipeline) -> None:
    moved = 0
    for row in (row for row in PRIVATE if row.split == "train" and row.subject[-1] in "235"):
        before = outs_by_stage(pipeline.layout.lock)
        planned = pipeline.json("plan", "--sha256", digest_of(row.seed))
        assert outs_by_stage(pipeline.layout.lock) == before, "a plan changes nothing"
        assert pipeline.json("forget", "--sha256", digest_of(row.seed))["slots_retrained"] == planned["slots_retrained"]
        after = outs_by_stage(pipeline.layout.lock)
        tuned = {stage for stage in after if stage.startswith("tune@") and after[stage] != before[stage]}
        assert tuned == {f"tune@{slot}" for slot in (*planned["slots_retrained"], *planned["slots_emptied"])}
        moved += planned["owners_moved"]
    assert moved, "the test is about people who move"


def test_image_of_two_people_goes_from_both_and_the_plan_says_of_how_many(pipeline: FakePipeline) -> None:
    planned = pipeline.json("plan", "--sha256", digest_of(SHARED).upper())
    assert (planned["records_removed"], planned["images"], planned["owners"], planned["subjects"]) == (2, 1, 2, 0)
    summary = pipeline.json("forget", "--sha256", digest_of(SHARED))
    assert summary["records_removed"] == 2
    assert left_terms(pipeline, [row for row in ROWS if row.seed == SHARED]) == []


def test_certificate_names_images_by_keyed_hashes_and_nobody(pipeline: FakePipeline) -> None:
    pipeline.json("forget", "--sha256", digest_of(20), "--subject", f"{CANARY}-3")
    pipeline.json("forget", "--sha256", digest_of(SHARED))
    pipeline.json("forget", "--subject", f"{CANARY}-1")
    both, image, person = read_chain(pipeline.layout.certificates, load_public(pipeline.layout.public_keys))
    with pipeline.process() as project:
        key = project.subject_key()
    assert both.images == (key.image_pseudonym(digest_of(20)).removeprefix("image:"),)
    assert both.subjects == (key.pseudonym(f"{CANARY}-3"),)
    assert (len(image.images), image.subjects) == (1, ())
    assert (person.images, len(person.subjects)) == ((), 1)
    assert any("Images are keyed hashes" in limit for limit in image.limits)
    assert not any("Images are keyed hashes" in limit for limit in person.limits)


def test_name_of_who_stays_is_no_trace_and_whose_last_record_goes_leaves_whole(pipeline: FakePipeline) -> None:
    (last,) = (row for row in ROWS if row.subject == f"{CANARY}-test")
    planned = pipeline.json("plan", "--sha256", digest_of(last.seed))
    assert (planned["owners"], planned["owners_gone"]) == (1, 1)
    pipeline.forget(images=[digest_of(last.seed)])
    held = contents(pipeline.root.parent).items()
    assert [name for name, content in held if last.subject.encode() in content and "/people/" not in name] == []
    pipeline.forget(images=[digest_of(20)])
    parts = [file.read_bytes() for file in pipeline.layout.private.iterdir()]
    assert any(f"{CANARY}-2".encode() in part for part in parts), "who has other records stays"


def test_erased_image_does_not_come_back_under_another_name(pipeline: FakePipeline) -> None:
    pipeline.forget(images=[digest_of(20)])
    before = read_outs(pipeline.layout.lock)
    people = pipeline.root / "people"
    (people / "again.png").write_bytes(png(20))
    with (people / "manifest.csv").open("a", newline="") as manifest:
        csv.writer(manifest).writerow(["again.png", "two", "somebody-new", "private", "train"])
    pipeline.repro()
    assert read_outs(pipeline.layout.lock) == before
    assert "already erased" in pipeline.refused(2, "forget", "--path", "again.png")


def test_source_under_our_control_loses_these_rows_and_files_alone(tmp_path: Path) -> None:
    with fakes(tmp_path):
        pipeline = FakePipeline.build(tmp_path / "erasing", ROWS, source={"erase": True})
        pipeline.forget(images=[digest_of(SHARED)])
        gone = {row.path for row in ROWS if row.seed == SHARED}
        table = list(csv.DictReader((pipeline.root / "people" / "manifest.csv").open()))
        assert {row["path"] for row in table} == {row.path for row in ROWS} - gone
        assert {path.name for path in (pipeline.root / "people").iterdir()} == {row["path"] for row in table} | {"manifest.csv"}
        assert pipeline.status() == {}


def test_killed_between_image_and_row_the_next_try_deletes_the_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes(tmp_path):
        pipeline = FakePipeline.build(tmp_path / "erasing", ROWS, source={"erase": True})
        with monkeypatch.context() as patch:
            patch.setattr("lmeraser.sources.erasing.rewrite", _killed)
            with pytest.raises(StepFailedError):
                pipeline.forget(images=[digest_of(20)])
        (gone,) = {row.path for row in ROWS if row.seed == 20}
        assert not (pipeline.root / "people" / gone).exists()
        assert [request.state for request in pipeline.resume()] == [CERTIFIED]
        assert gone not in (pipeline.root / "people" / "manifest.csv").read_text()
        assert not list(pipeline.layout.private_state.glob("*.needles*"))


def _killed(*_: object) -> None:
    raise StepFailedError("source: killed")


def test_image_is_out_of_what_is_served_before_anything_is_retrained(pipeline: FakePipeline) -> None:
    row = next(row for row in PRIVATE if row.seed == 30)
    pipeline.submit(images=[digest_of(row.seed)])
    quarantine = read_quarantine(pipeline.layout)
    assert quarantine is not None
    without = json.loads((quarantine.layout(pipeline.layout).root / "without.json").read_bytes())
    assert without == [id_of(row)]
    planned = pipeline.json("status")["requests"][0]
    assert set(quarantine.slots) >= set(planned["slots_retrained"])


def test_killed_while_the_network_is_asked_an_erasure_leaves_no_id_that_keeps_it_open(pipeline: FakePipeline) -> None:
    """Found here: the draft of the question stayed, and every scan refused for it."""
    with killing(pipeline.root.parent, place=r"os\.\w+ .*/\.lmeraser/(\.writing-|moves-)[^/]*") as kill:
        pipeline.submit(images=[digest_of(31)], solved=False)
    assert kill.dead
    pipeline.resume()
    assert [request.state for request in pipeline.requests()] == [CERTIFIED]
    assert left_terms(pipeline, [row for row in PRIVATE if row.seed == 31]) == []


def test_objects_are_found_also_where_the_digests_in_clear_were_lost(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.forget(f"{CANARY}-3")  # its scan indexes every object
    pipeline.push()
    pipeline.forget(f"{CANARY}-5")
    monkeypatch.setattr(batch, "_note_terms", lambda _: None)
    pipeline.forget(images=[digest_of(SHARED)])
    assert left_terms(pipeline, [row for row in ROWS if row.seed == SHARED]) == []


def test_digests_in_clear_are_kept_while_the_request_is_open_alone(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    whole = purging.plan

    def look(
        layout: Layout, is_erased: IsErased, known: Known, images: ErasedImages, found: Condemned, old: OldValues
    ) -> PurgePlan:
        (kept,) = layout.private_state.glob("*.needles")
        seen.append((digest_of(SHARED) in kept.read_text(), kept.stat().st_mode & 0o777))
        return whole(layout, is_erased, known, images, found, old)

    monkeypatch.setattr(purging, "plan", look)
    pipeline.forget(images=[digest_of(SHARED)])
    assert seen == [(True, 0o600)]
    assert not list(pipeline.layout.private_state.glob("*.needles*"))


BAD = {
    "a digest that nobody has": (("--sha256", "0" * 64), "image 1 of 1 is unknown"),
    "no digest": (("--sha256", "abc"), "--sha256 1 of 1 is no SHA-256"),
    "no file": (("--image", f"{CANARY}.png"), "--image 1 of 1 cannot be read"),
    "a path that the table does not name": (("--path", f"{CANARY}/x.png"), "--path 1 of 1 is not in the source's table"),
    "nothing": ((), "no subject was named, and no image"),
}


@pytest.mark.parametrize(("arguments", "line"), BAD.values(), ids=list(BAD))
@pytest.mark.parametrize("command", ["plan", "forget", "submit"])
def test_bad_image_is_refused_in_one_line_without_a_path_or_a_digest(
    pipeline: FakePipeline, command: str, arguments: tuple[str, ...], line: str
) -> None:
    before = read_outs(pipeline.layout.lock)
    refusal = pipeline.refused(2, command, *arguments)
    assert line in refusal
    assert "0" * 64 not in refusal
    assert read_outs(pipeline.layout.lock) == before
    assert all(request.state == REJECTED for request in pipeline.requests())


def test_image_in_public_records_is_blocked_until_a_rebuild_is_accepted(pipeline: FakePipeline) -> None:
    public = digest_of(100)
    assert "1 public records" in pipeline.refused(3, "plan", "--sha256", public)
    assert "--include-public" in pipeline.refused(3, "forget", "--sha256", public)
    assert pipeline.json("plan", "--sha256", public, "--include-public")["rebuild"] is True


def test_images_are_named_by_file_path_digest_and_lines_alike(pipeline: FakePipeline, tmp_path: Path) -> None:
    row = next(row for row in PRIVATE if row.seed == 30)
    (tmp_path / "picture.png").write_bytes(png(30))
    (tmp_path / "lines").write_text(f"./{row.path}\n\n{digest_of(30).upper()}\n")
    ways = (
        ("--image", str(tmp_path / "picture.png")),
        ("--path", row.path),
        ("--sha256", digest_of(30)),
        ("--images-from", str(tmp_path / "lines")),
    )
    plans = [pipeline.json("plan", *way) for way in ways]
    assert all(plan == plans[0] for plan in plans)
    assert plans[0]["images"] == 1


def test_ledger_and_status_hold_no_path_and_no_digest(pipeline: FakePipeline) -> None:
    row = next(row for row in PRIVATE if row.seed == 30)
    status, output, complaint = pipeline.command("forget", "--path", row.path)
    assert status == 0, complaint
    shown = output + complaint + json.dumps(pipeline.json("status"))
    written = b"".join(file.read_bytes() for file in pipeline.layout.private_state.glob("ledger.db*"))
    for term in (row.path, digest_of(30)):
        assert term not in shown
        assert term.encode() not in written
