"""`lmeraser parts`: what there is, what is advised, and a number that is changed without another byte of params.yaml."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import ROOT, make_params, make_record
from fake_pipeline import CANARY, FakePipeline

from flows.dvc.params_file import set_shards
from lmeraser.core.digest import shard_of
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.data.records import shard_file, write_records
from lmeraser.pipeline import parts as rule
from lmeraser.pipeline.locks import outs_by_stage
from lmeraser.pipeline.parts import PartSize, advised, part_sizes, rewritten

PERSON = f"{CANARY}-2"


def write(layout: Layout, people: int, shards: int, size: int = 1000) -> None:
    """One part of people with two records each, of so many bytes."""
    records = [
        (make_record(f"person-{person}", image=image), image)
        for person in range(people)
        for image in (b"%06d" % person * (size // 6), b"%06d" % -person * (size // 6))
    ]
    part = layout.part("p00")
    if shards == 1:
        write_records(part, records)
        return
    for number in range(shards):
        inside = [pair for pair in records if shard_of(pair[0].subject, shards) == number]
        write_records(shard_file(part, number), inside, number, shards)


PARAMS = make_params({"parts": ["p00"]})


@pytest.mark.parametrize("shards", [1, 4])
def test_sizes_say_what_is_there_and_what_another_number_would_give(shards: int, tmp_path: Path) -> None:
    layout, other = Layout(tmp_path / "this"), Layout(tmp_path / "other")
    write(layout, 200, shards)
    write(other, 200, 8)
    (size,), (eight,) = part_sizes(layout, PARAMS), part_sizes(other, PARAMS)
    assert (size.records, int(size.people.sum()), len(size.files)) == (400, 200, shards)
    assert size.largest_of(8) == pytest.approx(int(eight.files.max()), rel=0.1)
    largest, mean = rewritten([eight])
    assert largest == eight.files.max()
    assert eight.files.min() < mean < largest


@pytest.mark.parametrize(("large", "expected"), [(10**9, 1), (280_000, 2), (85_000, 8)])
def test_advice_is_the_least_power_of_two_with_which_no_file_is_too_large(
    large: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    write(layout, 200, 1)
    monkeypatch.setattr(rule, "SMALL", large)
    sizes = part_sizes(layout, PARAMS)
    assert advised(sizes) == expected
    assert sizes[0].largest_of(expected) <= large
    assert expected == 1 or sizes[0].largest_of(expected // 2) > large


def test_where_small_files_would_be_too_many_they_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Layout(tmp_path), 200, 1)
    sizes = part_sizes(Layout(tmp_path), PARAMS)
    monkeypatch.setattr(rule, "SMALL", 85_000)
    for many, expected in ((8, 8), (7, 4), (3, 2), (1, 2)):  # 85,000 takes eight files, 280,000 two
        monkeypatch.setattr(rule, "MANY", many)
        monkeypatch.setattr(rule, "LARGE", 280_000)
        assert advised(sizes) == expected, many


def test_person_who_alone_is_too_large_asks_for_no_more_shards_than_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    write(layout, 1, 1)
    monkeypatch.setattr(rule, "SMALL", 100)
    monkeypatch.setattr(rule, "LARGE", 100)
    assert advised(part_sizes(layout, PARAMS)) == 1


def test_part_without_a_record_has_a_size(tmp_path: Path) -> None:
    write(Layout(tmp_path), 0, 1)
    size = PartSize.of(Layout(tmp_path), "p00")
    assert (size.records, advised([size]), rewritten([size])[1]) == (0, 1, 0)


def test_number_is_changed_and_no_other_byte_of_the_params(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    layout = Layout(tmp_path)
    set_shards(layout, 16)
    line = next(line for line in before.splitlines() if line.startswith("shards: "))
    assert layout.params.read_text(encoding="utf-8") == before.replace(line, line.replace("1", "16", 1))
    assert load_params(layout.params).shards == 16


def test_command_tells_what_there_is_and_changes_nothing(pipeline: FakePipeline) -> None:
    before = pipeline.layout.params.read_bytes()
    told = pipeline.json("parts")
    private = [file for file in pipeline.layout.private.rglob("*") if file.is_file()]
    assert told["files"] == len(private) == len(load_params(pipeline.layout.params).parts)
    assert told["bytes"] == sum(file.stat().st_size for file in private)
    assert told["largest"] == max(file.stat().st_size for file in private)
    assert (told["shards"], told["advised"], told["records"]) == (1, 1, 14)
    assert pipeline.layout.params.read_bytes() == before
    _, output, complaint = pipeline.command("parts")
    assert "rewrites one file a person" in output + complaint
    assert CANARY not in output + complaint


def test_command_sets_the_number_and_the_next_build_trains_no_cluster(pipeline: FakePipeline) -> None:
    before = outs_by_stage(pipeline.layout.lock)
    told = pipeline.json("parts", "3")
    assert (told["shards"], told["was"]) == (3, 1)
    assert told["bytes"] > 0
    assert set(pipeline.status()) == {"split"}
    pipeline.repro()
    after = outs_by_stage(pipeline.layout.lock)
    assert {stage for stage in after if after[stage] != before[stage]} == {"split"}
    again = pipeline.json("parts", "3")
    assert (again["shards"], again["was"], again["runs_again"]) == (3, 3, [])
    assert pipeline.json("parts")["files"] == 3 * len(load_params(pipeline.layout.params).parts)


def test_number_can_be_set_before_anything_is_built(pipeline: FakePipeline) -> None:
    shutil.rmtree(pipeline.layout.artifacts)
    told = pipeline.json("parts", "8")
    assert (told["shards"], told["bytes"], told["runs_again"]) == (8, 0, [])
    assert "is missing" in pipeline.refused(2, "parts")


@pytest.mark.parametrize("count", ["0", "-1", "4097"])
def test_number_out_of_range_is_refused(count: str, pipeline: FakePipeline) -> None:
    assert "expected 1 to 4096" in pipeline.refused(2, "parts", count)


def test_number_stays_while_a_request_is_open(pipeline: FakePipeline) -> None:
    pipeline.submit(PERSON)
    before = pipeline.layout.params.read_bytes()
    assert "1 requests are open" in pipeline.refused(2, "parts", "4")
    assert pipeline.layout.params.read_bytes() == before
    pipeline.resume()
    pipeline.json("parts", "4")


def test_erasure_from_shards_ends_where_a_project_that_never_had_the_person_begins(pipeline: FakePipeline) -> None:
    pipeline.json("parts", "3")
    pipeline.repro()
    pipeline.push()
    was = links(pipeline.layout)
    done = pipeline.json("forget", "--subject", PERSON)
    assert done["state"] == "certified"
    assert len(was.items() - links(pipeline.layout).items()) == 1, "one file a person is written anew"
    assert pipeline.status() == {}
    everything: list[Any] = [file for file in pipeline.root.parent.rglob("*") if file.is_file()]
    others = [file for file in everything if "people" not in file.parts]
    assert not [file for file in others if PERSON.encode() in file.read_bytes()]


def links(layout: Layout) -> dict[str, int]:
    files = (file for file in layout.private.rglob("*") if file.is_file())
    return {file.relative_to(layout.private).as_posix(): file.stat().st_ino for file in files}
