"""A purge that is killed between any two deletes and carried out again leaves what lies outside of its journal, and nothing else;
and whatever a store loses of a purge, the scan finds it.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from builders import CANARY_SUBJECT, make_record, png
from faulty_store import Fault, FaultyStore, How
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from flows.purge import step as purge
from flows.purge.step import PurgeJournal
from lmeraser.core.errors import StepFailedError
from lmeraser.data.records import write_records
from lmeraser.prove.scan import scan
from unit.tiny_projects import (
    Stage,
    Tiny,
    entry_of,
    manifest_of,
    md5_of,
    object_key,
    only_these_stores,
    run_key,
    run_text,
)

HER, BOB, CEM = CANARY_SUBJECT, "bobby-tables", "cem"
BATCH = "00000000-0000-4000-8000-000000000001"
Files = dict[str, bytes]
NUMBER = itertools.count()


def is_her(subject: str) -> bool:
    return subject == HER


# Any journal


CONTENTS = {md5_of(content): content for content in (f"content {number}".encode() for number in range(6))}
LOOSE: Files = {
    "files/md5/aa/.Zk3.tmp": b"half of an object",
    "runs/44/.Qx.tmp": b"half of a run",
    "files/md5/aa/readme": b"another program's",
    "notes.txt": b"somebody's",
}


@dataclass(frozen=True)
class Case:
    """Attributes: live: what dvc.lock names, with members; current: its stages."""

    cache: Files
    remote: Files
    current: tuple[Stage, ...]
    live: frozenset[str]
    journal: PurgeJournal

    def project(self, root: Path, on_disk: bool = False) -> Tiny:
        project = Tiny.of(root, self.current, on_disk=on_disk)
        project.fill(self.cache, self.remote)
        return project


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any stores, any current lock and any journal, whether or not a plan would ever make it."""

    def some(names: Iterable[str], most: int = 9) -> list[str]:
        ordered = sorted(names)
        return sorted(draw(st.sets(st.sampled_from(ordered), max_size=most))) if ordered else []

    drawn = ({md5: md5 for md5 in some(CONTENTS, 3)} for _ in range(2))
    folders = {md5_of(manifest_of(members)) + ".dir": members for members in drawn}
    objects = CONTENTS | {md5: manifest_of(members) for md5, members in folders.items()}
    runs = {entry_of(md5): run_text(({dep: dep for dep in some(CONTENTS, 1)}, {"out": md5})) for md5 in some(objects, 2)}
    # What only a folder connects with the journal: nothing else tells of it once the folder is gone.
    runs |= {entry_of(f"only {folder}"): run_text(({}, {"out": folder})) for folder in folders}
    runs |= {entry_of("damaged"): b"damaged: ["}
    outs = some(objects, 2)
    live = frozenset({"1" * 32, *outs, *(md5 for out in outs for md5 in folders.get(out, {}).values())})
    everything = {object_key(md5): content for md5, content in objects.items()} | LOOSE
    everything |= {run_key(entry): text for entry, text in runs.items()}
    everything |= {f"{md5[:2]}/{md5[2:]}": content for md5, content in objects.items()}  # the layout of DVC 2
    stores = [{key: everything[key] for key in sorted(everything.keys() - set(some(everything)))} for _ in range(2)]
    stores[0] |= {object_key(md5): objects[md5] for md5 in outs if md5 in folders}  # what the lock names can be told
    journal = PurgeJournal(
        tuple(some(objects, 3)), tuple(some([*runs, entry_of("long gone")], 2)), own_cache=tuple(some(objects, 3))
    )
    stage: Stage = ({}, {"model": "1" * 32} | {f"out{number}": md5 for number, md5 in enumerate(outs)})
    return Case(stores[0], stores[1], (stage,), live, journal)


def killed_everywhere(case: Case, on_disk: bool) -> None:
    """Kill it before each of its deletes, carry it out again, and look what is left."""
    with TemporaryDirectory() as folder:
        project = case.project(Path(folder) / "project", on_disk)
        with only_these_stores(project, Path(folder)):
            before, expected = project.contents(), project.outside(case.journal, case.live)
            total = sum(map(len, before.values())) - sum(map(len, expected.values()))
            for deletes in range(total + 1):
                project.fill(case.cache, case.remote)
                killed = project.killed(deletes, lambda: purge.carry_out(project.layout, case.journal))
                assert killed == (deletes < total)
                assert sum(map(len, project.contents().values())) == sum(map(len, before.values())) - deletes
                purge.carry_out(project.layout, case.journal)
                assert project.contents() == expected, f"killed before delete {deletes} of {total}"
            assert not any(purge.carry_out(project.layout, case.journal).values()), "nothing is left to do"


@pytest.mark.slow
@settings(max_examples=60)
@given(cases())
def test_any_journal_that_was_killed_at_any_delete_is_finished_and_leaves_what_is_outside_of_it(case: Case) -> None:
    killed_everywhere(case, on_disk=False)


@settings(max_examples=4)
@given(cases())
def test_so_it_is_where_the_cache_is_a_folder(case: Case) -> None:
    killed_everywhere(case, on_disk=True)


@pytest.mark.slow
@settings(max_examples=100)
@given(cases(), st.dictionaries(st.integers(0, 12), st.sampled_from(["fail", "unheard", "repeat"]), max_size=4))
def test_deletes_that_fail_are_told_after_all_others_were_done(case: Case, faults: Mapping[int, How]) -> None:
    with TemporaryDirectory() as folder:
        project = case.project(Path(folder) / "project")
        with only_these_stores(project, Path(folder)):
            expected = project.outside(case.journal, case.live)
            faulty = [Fault("delete", nth, how) for nth, how in faults.items()]
            try:
                project.with_faults(faulty, lambda: purge.carry_out(project.layout, case.journal))
                message = ""
            except StepFailedError as error:
                message = str(error)
            assert ("files cannot be deleted" in message) == bool(project.failed)
            left = {(name, key) for name, files in project.contents().items() for key in files.keys() - expected[name].keys()}
            assert all(key.endswith(".dir") for _, key in left - project.failed), "folders tell what else must go: they are last"
            purge.carry_out(project.layout, case.journal)
            assert project.contents() == expected


# Journals of plans


@cache
def part(*people: str) -> bytes:
    """A part with one record of each."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        images = {HER: png(1), BOB: png(2), CEM: png(3)}
        write_records(path, [(make_record(person, image=images[person]), images[person]) for person in people])
        return path.read_bytes()


PARTS = ((HER, BOB), (HER,), (BOB, CEM), (BOB,))
UNNAMED = (b"of nobody knows what", json.dumps({"who": HER}).encode(), (HER, CEM), (CEM,))


def version(people: tuple[str, ...], shape: int) -> tuple[tuple[Stage, ...], Files]:
    """One state of the pipeline: its stages, and the objects that it made. Args: shape: which code made it."""
    content = part(*people)
    private = manifest_of({"p00.parquet": md5_of(content)})
    model, passed = f"a model of {md5_of(content)}, {shape}".encode(), b"passed"
    stages: tuple[Stage, ...] = (
        ({"people": md5_of(repr(people).encode())}, {"artifacts/split/private": md5_of(private) + ".dir"}),
        ({"artifacts/split/private/p00.parquet": md5_of(content)}, {"artifacts/tune/c00": md5_of(model)}),
        ({"artifacts/tune": md5_of(model)[::-1] + ".dir"}, {"metrics/passed.json": md5_of(passed)}),
    )
    plain = {object_key(md5_of(content)): content for content in (content, model, passed)}
    return stages, plain | {object_key(md5_of(private) + ".dir"): private}


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[Stage, ...], list[tuple[Stage, ...]], Files, Files]:
    """The current lock, which is without her, earlier ones, and what each store holds of all."""
    current, live = version(draw(st.sampled_from([people for people in PARTS if HER not in people])), 0)
    known, files, runs = [], dict(live), Files()
    for number in range(draw(st.integers(0, 3))):
        stages, made = version(draw(st.sampled_from(PARTS)), draw(st.integers(0, 1)))
        files |= made
        if draw(st.booleans()):
            known.append(stages)
        else:
            runs |= {run_key(entry_of(f"{number}-{place}")): run_text(stage) for place, stage in enumerate(stages)}
    loose = (content if isinstance(content, bytes) else part(*content) for content in UNNAMED)
    files |= runs | {object_key(md5_of(content)): content for content in loose} | LOOSE
    stores = [{key: files[key] for key in draw(st.sets(st.sampled_from(sorted(files))))} for _ in range(2)]
    return current, known, live | stores[0], stores[1]


History = tuple[tuple[Stage, ...], list[tuple[Stage, ...]], Files, Files]


def of_history(history: History, folder: str) -> Tiny:
    current, earlier, cached, remote = history
    project = Tiny.of(Path(folder) / "project", current, earlier)
    project.fill(cached, remote)
    return project


def holding_her(project: Tiny) -> set[str]:
    parts = {part(*people) for people in (*PARTS, (HER, CEM)) if HER in people}
    return {key for files in project.contents().values() for key, content in files.items() if content in parts}


@pytest.mark.slow
@settings(max_examples=100)
@given(histories(), st.integers(0, 12))
def test_a_planned_purge_that_was_killed_is_finished_and_a_second_plan_is_empty(history: History, deletes: int) -> None:
    with TemporaryDirectory() as folder:
        project = of_history(history, folder)
        with only_these_stores(project, Path(folder)):
            planned, live = purge.plan(project.layout, is_her), purge.live(project.layout)[0]
            purge.write_journal(project.layout, BATCH, planned.journal)
            expected = project.outside(planned.journal, live)
            project.killed(deletes, lambda: purge.carry_out(project.layout, planned.journal))
            journal = purge.read_journal(project.layout, BATCH)
            assert journal == planned.journal
            assert journal is not None
            purge.carry_out(project.layout, journal)
            assert project.contents() == expected
            assert holding_her(project) == set()
            again = purge.plan(project.layout, is_her)
            assert not any(purge.carry_out(project.layout, again.journal).values())
            assert project.contents() == expected
            assert again.unknown == planned.unknown, "what nobody can tell is told again"


@settings(max_examples=40)
@given(histories(), st.data())
def test_scan_that_finds_no_planted_fault_is_broken(history: History, data: st.DataObject) -> None:
    """A store says that it deleted, and did not: of whatever was condemned, the scan must see it."""
    with TemporaryDirectory() as folder:
        project = of_history(history, folder)
        with only_these_stores(project, Path(folder)):
            planned = purge.plan(project.layout, is_her)
            condemned = {object_key(md5) for md5 in planned.journal.objects} | {
                run_key(entry) for entry in planned.journal.run_entries
            }
            before = project.contents()
            keys = project.with_faults([], lambda: purge.carry_out(project.layout, planned.journal))
            lost = [nth for nth, key in enumerate(keys) if key in condemned]
            assume(lost)
            clean = scan([project.cache, project.remote], planned.search_terms, is_her)
            assert [report.residue for report in clean] == [(), ()]
            nth = data.draw(st.sampled_from(lost))
            project.fill(before["cache"], before["remote disk"])
            project.with_faults([Fault("delete", nth, "lose")], lambda: purge.carry_out(project.layout, planned.journal))
            reports = scan([project.cache, project.remote], planned.search_terms, is_her)
            kinds = {residue.kind for report in reports for residue in report.residue}
            assert kinds & {"condemned object", "condemned run entry"}


# The instrument


@pytest.mark.parametrize(
    ("how", "answer", "left"),
    [("fail", StepFailedError, {"a"}), ("unheard", StepFailedError, set()), ("lose", 3, {"a"}), ("repeat", 2, set())],
)
def test_a_fault_is_what_it_says(how: How, answer: object, left: set[str]) -> None:
    inner = MemoryStore({"a": b"1", "b": b"2", "c": b"3"})
    store = FaultyStore(inner, [Fault("delete", 1, how)])
    try:
        assert store.delete(["b", "a", "c"]) == answer
    except StepFailedError:
        assert answer is StepFailedError
    assert inner.files.keys() == left
    assert store.calls["delete"] == 3


def test_every_call_can_fail_and_the_others_go_through() -> None:
    store = FaultyStore(MemoryStore({"a": b"1"}), [Fault(call, 1, "fail") for call in ("list", "open", "read", "write")])
    acts = (lambda: list(store.list()), lambda: store.open("a").read(), lambda: store.read(["a"]), lambda: store.write("b", b"2"))
    for act in acts:
        act()
        with pytest.raises(StepFailedError, match="a fault of the test"):
            act()
        act()
