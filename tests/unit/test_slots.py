"""Slots and pipeline files: a list that only grows, files that are what the command writes, locks that move with their slots."""

from pathlib import Path

import pytest
import yaml
from builders import ROOT, refused

from flows.dvc.pipeline_files import grow, next_names, with_names
from lmeraser.core.errors import BadInputError, ParamsError, ProjectError, SlotError
from lmeraser.core.layout import Layout
from lmeraser.core.params import IN_ROOT, expand_slots, load_params
from lmeraser.pipeline.files import (
    SLOTS_A_FILE,
    StageName,
    check_files,
    file_of,
    files,
    is_lock,
    locks,
    plain_name,
    slots_by_file,
)
from lmeraser.pipeline.locks import outs_by_stage, read_outs


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """The project as it is delivered."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return Layout(tmp_path)


def entry(name: str) -> str:
    """A stage as DVC records it; md5s that YAML could take for numbers are quoted, as DVC does."""
    return f"  {name}:\n    cmd: python -m stages.x\n    outs:\n    - path: artifacts/{name}\n      md5: '123e45'\n"


def write_lock(path: Path, names: list[str]) -> None:
    path.write_text("schema: '2.0'\nstages:\n" + "".join(map(entry, names)))


def test_up_to_the_limit_dvc_yaml_stays_as_it_is_delivered(layout: Layout) -> None:
    grow(layout, IN_ROOT)
    assert (layout.root / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert len(files(layout.root)) == 1
    check_files(layout.root, load_params(layout.params).slots)


def test_old_names_keep_their_place_and_every_other_byte_of_the_params_stays(layout: Layout) -> None:
    before = layout.params.read_text()
    old = load_params(layout.params)
    report = grow(layout, 512)
    new = load_params(layout.params)
    assert new.slots[: len(old.slots)] == old.slots
    assert (new.slots[99], new.slots[100], new.slots[511]) == ("c99", "c100", "c511")
    assert new.model_copy(update={"slots": old.slots}) == old
    assert report["added"] == list(new.slots[len(old.slots) :])
    names = next(line for line in before.splitlines() if line.startswith("slots: "))
    assert layout.params.read_text() == before.replace(names, "slots: c00..c511")


LISTS = ("seed: 0\nslots:\n- a\n- b  # last\nimage: 1\n", "slots: [a, b]  # c\n", "slots: [a,\n  b,\n]\n")
NUMBERED = ("a: 1\nslots:\n  - c00\n  - c01  # last\nb: 2\n", "slots: [c00, c01]  # last\nb: 2\n", "slots: c00..c01 # last\n")


@pytest.mark.parametrize("text", LISTS)
def test_names_are_appended_to_a_list_in_any_style(text: str) -> None:
    made = with_names(text, ["a", "b"], ["c02", "c03"])
    assert yaml.safe_load(made)["slots"] == ["a", "b", "c02", "c03"]
    assert made.replace("c02", "").replace("c03", "").split("#")[1:] == text.split("#")[1:]


@pytest.mark.parametrize("text", NUMBERED)
def test_range_takes_the_place_of_a_list_in_any_style(text: str) -> None:
    names = [f"c{number:02d}" for number in range(2, 100)]
    made = with_names(text, ["c00", "c01"], names)
    assert yaml.safe_load(made) == yaml.safe_load(text) | {"slots": "c00..c99"}
    assert "# last" in made


def test_range_is_the_list_of_its_names_and_nothing_else_is_one() -> None:
    assert expand_slots("c00..c101") == [f"c{number:02d}" for number in range(102)]
    assert all(expand_slots(value) == value for value in ("c01..c99", "c00..", "x00..x99", ["c00"]))


def test_range_of_few_slots_is_refused_since_dvc_reads_the_list(layout: Layout) -> None:
    text = layout.params.read_text()
    names = next(line for line in text.splitlines() if line.startswith("slots: "))
    layout.params.write_text(text.replace(names, "slots: c00..c15"))
    assert "list the 16 names" in refused(ParamsError, lambda: load_params(layout.params))


def test_name_that_is_taken_is_skipped() -> None:
    assert next_names(["a", "c03", "c02"], 6) == ["c04", "c05", "c06"]
    assert next_names(["a"], 1) == []


@pytest.mark.parametrize("count", [-1, 0, 15, 10_001])
def test_slots_are_never_taken_away(layout: Layout, count: int) -> None:
    before = layout.params.read_bytes()
    assert "only grows" in refused(BadInputError, lambda: grow(layout, count))
    assert layout.params.read_bytes() == before


def test_list_that_cannot_be_edited_is_refused_and_nothing_changes(layout: Layout) -> None:
    lines = layout.params.read_text().splitlines()
    names = next(line for line in lines if line.startswith("slots: ")).removeprefix("slots: ")
    others = [line for line in lines if not line.startswith(("slots: ", "parts: "))]
    layout.params.write_text(
        "\n".join([*others, f"parts: &names {names}", "slots: *names"])
    )  # what is appended to one is to both
    before = layout.params.read_bytes()
    refused(ParamsError, lambda: grow(layout, 20))
    assert layout.params.read_bytes() == before


def test_leaves_may_be_raised_before_the_slots_are_appended(layout: Layout) -> None:
    layout.params.write_text(layout.params.read_text().replace("leaves: 16 ", "leaves: 100 "))
    assert "`lmeraser slots 100`" in refused(SlotError, lambda: load_params(layout.params))
    grow(layout, 100)
    assert len(load_params(layout.params).slots) == 100


def test_slot_lies_in_the_file_of_its_place_and_growing_moves_none(layout: Layout) -> None:
    grow(layout, IN_ROOT + 1)
    first = load_params(layout.params).slots
    homes = {slot: file_of(f"tune@{slot}", first) for slot in first}
    grow(layout, 200)
    second = load_params(layout.params).slots
    assert {slot: file_of(f"tune@{slot}", second) for slot in first} == homes
    assert [len(items) for items in slots_by_file(second)] == [SLOTS_A_FILE] * 6 + [8]
    assert file_of("head", second) == file_of("embed@p00", second) == "dvc.yaml"
    assert len(files(layout.root)) == 8


def test_what_the_locks_record_moves_with_its_slot(layout: Layout) -> None:
    grow(layout, IN_ROOT)
    slots = load_params(layout.params).slots
    write_lock(layout.lock, ["split", *(f"tune@{slot}" for slot in slots), "head"])
    before = outs_by_stage(layout.lock)
    report = grow(layout, IN_ROOT + 40)
    assert report["entries_moved"] == IN_ROOT
    assert set(yaml.safe_load(layout.lock.read_text())["stages"]) == {"split", "head"}
    assert "'123e45'" in (layout.root / "tune" / "01" / "dvc.lock").read_text()
    # Slots that were never built have no lock yet: the state is not whole, and says so.
    assert "tune/02/dvc.lock is missing" in refused(ProjectError, lambda: read_outs(layout.lock))
    for number, items in ((2, slots[64:]), (3, [])):
        write_lock(layout.root / f"tune/{number:02d}" / "dvc.lock", [f"tune@x{number}", *(f"tune@{slot}" for slot in items)])
    after = outs_by_stage(layout.lock)
    assert {name: outs for name, outs in after.items() if "@x" not in name} == before
    assert len(locks(layout.root)) == 5


def test_growing_that_was_killed_between_two_files_is_finished_by_the_same_command(layout: Layout) -> None:
    grow(layout, IN_ROOT)
    write_lock(layout.lock, ["split", "tune@c00", "tune@c40"])
    whole = Layout(layout.root.parent / "whole")
    whole.root.mkdir()
    for path in (layout.params, layout.lock, layout.root / "dvc.yaml"):
        (whole.root / path.name).write_bytes(path.read_bytes())
    grow(whole, 80)
    layout.params.write_bytes(whole.params.read_bytes())  # killed after the params
    assert "lmeraser slots 80" in refused(ProjectError, lambda: check_files(layout.root, load_params(layout.params).slots))
    (layout.root / "tune" / "00").mkdir(parents=True)
    (layout.root / "tune" / "00" / "dvc.lock").write_text((whole.root / "tune/00/dvc.lock").read_text())  # and after one lock
    grow(layout, 80)
    made, wanted = (
        {p.relative_to(project.root): p.read_bytes() for p in project.root.rglob("*.lock")} for project in (layout, whole)
    )
    assert {name: text for name, text in made.items() if "dvc.lock" in str(name)} == {
        name: text for name, text in wanted.items() if "dvc.lock" in str(name)
    }
    check_files(layout.root, load_params(layout.params).slots)


@pytest.mark.parametrize("name", ["dvc.yaml", "tune/01/dvc.yaml", "tune/09/dvc.yaml"])
def test_stale_generated_file_is_refused_and_the_line_says_what_to_run(layout: Layout, name: str) -> None:
    grow(layout, 80)
    slots = load_params(layout.params).slots
    check_files(layout.root, slots)
    path = layout.root / name
    path.parent.mkdir(exist_ok=True)
    text = path.read_text() if path.exists() else (layout.root / "tune/00/dvc.yaml").read_text()
    path.write_text(text.replace("[]  #", "${slots}  #") if name == "dvc.yaml" else text.replace("c3", "d3"))
    line = refused(ProjectError, lambda: check_files(layout.root, slots))
    assert line.startswith(name)
    assert "`lmeraser slots 80`" in line
    grow(layout, 80)
    check_files(layout.root, slots)


def test_change_of_the_definition_makes_every_file_of_slots_stale(layout: Layout) -> None:
    grow(layout, 80)
    path = layout.root / "dvc.yaml"
    path.write_text(
        path.read_text().replace("artifacts/validate/passed.json\n      outs:", "artifacts/validate/other.json\n      outs:")
    )
    refused(ProjectError, lambda: check_files(layout.root, load_params(layout.params).slots))
    assert len(grow(layout, 80)["files"]) == 3


def test_lock_that_dvc_did_not_write_is_not_divided(layout: Layout) -> None:
    layout.lock.write_text("stages: {split: {cmd: x}}\n")
    assert "dvc.lock" in refused(ProjectError, lambda: grow(layout, 80))


def test_locks_are_known_by_their_place() -> None:
    assert all(map(is_lock, ("dvc.lock", "tune/03/dvc.lock")))
    assert not any(map(is_lock, ("dvc.yaml", "other/03/dvc.lock", "tune/03/deep/dvc.lock", "data/dvc.lock")))
    assert plain_name("tune/03/dvc.yaml:tune@c99") == "tune@c99"
    assert plain_name("head") == "head"


@pytest.mark.parametrize("name", ["head", "tune@c07", "embed@p00", "interim_head@0a1b2c3d"])
def test_stage_name_is_spelt_as_it_was_read_and_only_dvcs_stages_are_recorded(name: str) -> None:
    parsed = StageName.parse(name)
    assert str(parsed) == name
    assert (parsed.kind, parsed.item) == (*name.split("@"), "")[:2]
    assert parsed.recorded == (not name.startswith("interim_head"))
