"""The bench of an erasure's whole cost counts every process once, and measures what it says that it measures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import ROOT

from bench.erasure import __main__ as command
from bench.erasure import ground as grounds
from bench.erasure import project, report
from bench.erasure.course import AUDIT, BUILD, ERASURE, GROWTH, PLAN, PRETRAIN, Course, Run
from bench.erasure.ground import CIFAR_CUTS, METHODS, TREE, WAYS, Ground, params_of, synthetic
from bench.erasure.meter import Appearance, Spent, measure
from bench.erasure.project import Place, untouched
from lmeraser.core.params import Source
from lmeraser.data.images import open_checked
from lmeraser.sources import COLUMNS, open_source

CHILD_THAT_WORKS = """
import subprocess, sys, time
subprocess.run([sys.executable, "-S", "-c", '''
import time
kept = bytearray(60_000_000)
with open("written", "wb", buffering=0) as file:
    file.write(kept[:3_000_000])
with open("written", "rb", buffering=0) as file:
    file.read()
while time.process_time() < 0.3:
    pass
'''], check=True)
"""
WARM = """
import subprocess, sys
while True:
    with open("ask") as asked:
        asked.read()
    subprocess.run([sys.executable, "-S", "-c", "import time\\nwhile time.process_time() < 0.3: pass"], check=True)
    with open("answered", "w") as answered:
        answered.write("done")
"""
ASK = """
with open("ask", "w") as ask:
    ask.write("go")
with open("answered") as answered:
    answered.read()
"""


def test_a_command_is_counted_with_what_its_children_took(tmp_path: Path) -> None:
    spent, _ = measure([sys.executable, "-S", "-c", CHILD_THAT_WORKS], tmp_path, dict(os.environ))
    assert 0.3 <= spent.cpu < 10
    assert spent.wall > 0.2
    assert spent.written >= 3_000_000
    assert spent.read >= 3_000_000
    assert 60_000_000 <= spent.peak < 120_000_000  # of the child; this process, which has imported much, is larger


def test_a_command_that_does_little_is_not_charged_with_the_bench(tmp_path: Path) -> None:
    spent, printed = measure([sys.executable, "-S", "-c", "print('said')"], tmp_path, dict(os.environ))
    assert printed == "said\n"
    assert spent.peak < 40_000_000


@pytest.mark.slow
def test_what_a_warm_process_and_its_children_do_is_counted(tmp_path: Path) -> None:
    for name in ("ask", "answered"):
        os.mkfifo(tmp_path / name)
    with subprocess.Popen([sys.executable, "-S", "-c", WARM], cwd=tmp_path) as warm:
        try:
            asked = [sys.executable, "-S", "-c", ASK]
            alone, _ = measure(asked, tmp_path, dict(os.environ))
            counted, _ = measure(asked, tmp_path, dict(os.environ), [warm.pid])
        finally:
            warm.kill()
    assert counted.cpu - alone.cpu >= 0.2
    assert counted.written > alone.written


def test_a_command_that_fails_ends_the_bench_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"failed \(3\):\nno such thing"):
        measure(
            [sys.executable, "-S", "-c", "import sys; sys.stderr.write('no such thing'); sys.exit(3)"], tmp_path, dict(os.environ)
        )


def test_an_interrupted_bench_ends_the_command_that_it_measures(tmp_path: Path) -> None:
    told = "except KeyboardInterrupt: Path('told').touch()"
    inner = f"import time; from pathlib import Path\ntry: Path('begun').touch(); time.sleep(60)\n{told}"
    bench = "import os, signal, sys; from pathlib import Path; from bench.erasure.meter import measure\n"
    bench += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's job in the background has it ignored
    bench += f"measure([sys.executable, '-S', '-c', {inner!r}], Path.cwd(), dict(os.environ))"
    with subprocess.Popen([sys.executable, "-c", bench], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert (tmp_path / "told").exists()


def test_images_written_without_pillow_are_what_was_drawn() -> None:
    drawn = grounds.draw(np.arange(10), np.random.default_rng(1))
    for pixels, file in zip(drawn, grounds.stored_png(drawn), strict=True):
        np.testing.assert_array_equal(np.asarray(open_checked(file, max_pixels=64)), pixels)


@pytest.mark.parametrize("by_file", [False, True])
def test_synthetic_source_has_everybody_and_newcomers_join_it(
    by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounds, "PUBLIC", 6)
    monkeypatch.setattr(grounds, "TEST", 4)
    monkeypatch.setattr(grounds, "NEWCOMERS", 8)
    monkeypatch.setattr(grounds, "BY_FILE", 20 if by_file else 10**6)
    place = Place(synthetic(20, "heads"), tmp_path)
    path = grounds.write_source(place.ground, place.people)
    assert path.is_file() == by_file
    source = open_source(Source(kind="manifest", path=str(path), erase=False), tmp_path)
    assert len(source.table()) == 6 + 20 + 4
    people = grounds.people_of(source.table())
    assert len(people) == 10
    with place.newcomers() as folder:
        place.add_newcomers(folder)
    table = source.table()
    assert len(table) == 30 + 8
    assert grounds.people_of(table) == people  # those who came do not leave: the order stays
    images = [source.image(path) for path in table["path"]]
    assert len(set(images)) == 38
    assert all(open_checked(image, max_pixels=64).size == (8, 8) for image in images)
    assert not list(place.people.glob("added-*/manifest*"))


@pytest.mark.parametrize(
    "ground",
    [
        *(synthetic(records, way) for way in WAYS for records in (1_000, 10_000, 10**6)),
        *(synthetic(10_000, "prompts", method) for method in METHODS),
        *(Ground("cifar10", 50_000, clusters, way) for clusters in CIFAR_CUTS for way in WAYS),
        *(Ground("digits", 787, 16, way) for way in WAYS),
    ],
    ids=lambda ground: ground.name,
)
def test_every_project_has_params_that_hold_together(ground: Ground, tmp_path: Path) -> None:
    params = params_of(ground, tmp_path)
    assert (params.tune.kind, params.tune.frame_px > 0) == (("sgd", True) if ground.way == "prompts" else ("closed", True))
    assert params.cluster.method == ground.method
    if ground.data == "synthetic":
        assert max(4, ground.records / 16_384) <= len(params.parts) < max(5, ground.records / 16_384 + 1)


def test_files_that_a_measurement_writes_over_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "c00.safetensors"
    path.write_text("as it was")
    inode = path.stat().st_ino
    with untouched([path, tmp_path / "absent"]):
        path.unlink()
        path.write_text("written by the measurement")
    assert (path.read_text(), path.stat().st_ino) == ("as it was", inode)
    assert sorted(tmp_path.iterdir()) == [path]


SPENT = Spent(cpu=2.0, wall=3.0, read=10**6, written=10**6, peak=2**30)


class FakePlace(Place):
    """A project of 20 people whose commands only say what they would."""

    def __init__(self, folder: Path, state: str = "certified") -> None:
        super().__init__(synthetic(1_000, "heads"), folder)
        self.state = state
        self.asked: list[tuple[str, int]] = []
        self.root.mkdir()
        params = (ROOT / "params.yaml").read_text(encoding="utf-8")
        (self.root / "params.yaml").write_text(params.replace("kind: sgd", "kind: none").replace("mix: 0.25", "mix: 0"))

        (self.root / "artifacts" / "cluster").mkdir(parents=True)
        (self.root / "artifacts" / "cluster" / "clusters.json").write_text("[1, 2, 3]")

    def everybody(self) -> list[str]:
        return [f"person-{number:07d}" for number in range(20)]

    def prepare(self) -> None:
        pass

    def commit(self, message: str) -> None:
        pass

    def run(self, *arguments: str, warm: Any = ()) -> tuple[Spent, str]:
        return SPENT, ""

    def lmeraser(self, *arguments: str, warm: Any = ()) -> tuple[Spent, dict[str, Any]]:
        self.asked.append((arguments[0], len(arguments[2:]) if arguments[0] == "forget" else 0))
        amounts = {
            "clusters_total": 9,
            "clusters_retrained": 1,
            "records_retrained": 7,
            "slots_retrained": ["c01"],
            "timings": {"retrained": 1.5},
        }
        return SPENT, {"state": self.state, "certificate": "certificates/1", "problem": "it broke", "equal": True, **amounts}

    @contextmanager
    def warm(self) -> Iterator[list[int]]:
        yield [1]

    @contextmanager
    def newcomers(self) -> Iterator[Path]:
        folder = self.folder / f"came-{self.progress.additions}"
        self.progress.additions += 1
        folder.mkdir()
        grounds.write_manifest(folder / "manifest.csv", pd.DataFrame(columns=list(COLUMNS)))
        yield folder

    def add_newcomers(self, folder: Path) -> None:
        pass


def test_a_course_measures_cold_then_warm_and_audits_at_the_end(tmp_path: Path) -> None:
    place = FakePlace(tmp_path)
    runs = list(Course(place, people=[1, 10], modes=[False, True]).runs())
    forgets = [count for name, count in place.asked if name == "forget"]
    assert forgets == [1, 10, 1, 1]  # the warm-up; then 10 more would leave too few
    kinds = [(run["what"], run["people"], run["warm"]) for run in runs]
    assert kinds[:4] == [(BUILD, 0, False), (PRETRAIN, 0, False), (ERASURE, 1, False), (ERASURE, 10, False)]
    assert (ERASURE, 1, True) in kinds
    assert (ERASURE, 10, True) not in kinds
    assert [what for what, _, _ in kinds[-5:]] == [PLAN, GROWTH, PLAN, GROWTH, AUDIT]  # who comes, comes after who leaves
    assert runs[0]["total"] == 3
    assert runs[-1]["equal"] is True
    assert all(run["tuning"] == 0.0 for run in runs if run["what"] == ERASURE)


def test_a_file_that_appears_or_is_replaced_is_noticed_while_it_is_there(tmp_path: Path) -> None:
    path, other = tmp_path / "quarantine.json", tmp_path / "draft"
    with Appearance(path) as never:
        time.sleep(0.02)
    assert never.seconds is None
    for _ in range(2):
        with Appearance(path) as seen:
            time.sleep(0.05)
            other.write_text("{}")
            other.replace(path)
            time.sleep(0.05)
        assert seen.seconds is not None
        assert seen.seconds >= 0.05


def test_people_of_a_kept_project_do_not_leave_twice(tmp_path: Path) -> None:
    first = FakePlace(tmp_path)
    there = first.take(3)
    assert Place(first.ground, tmp_path / "elsewhere").progress.people == 0
    assert project.Progress(**json.loads((tmp_path / "progress.json").read_bytes())).people == 3
    assert not {*there} & {*first.take(3)}


def test_an_erasure_that_is_not_certified_fails_the_bench(tmp_path: Path) -> None:
    course = Course(FakePlace(tmp_path, state="failed"), people=[1], modes=[False])
    with pytest.raises(SystemExit, match="ended failed and not certified: it broke"):
        list(course.runs())


def run_of(what: Any, cpu: float, people: int = 0, records: int = 1_000, warm: bool = False) -> Run:
    return {
        "data": "synthetic",
        "records": records,
        "clusters": 10,
        "way": "prompts",
        "method": TREE,
        "what": what,
        "people": people,
        "warm": warm,
        "spent": {"cpu": cpu, "wall": 2.5, "read": 2e6, "written": 3e6, "peak": 2.0**30} if what != AUDIT else {},
        "effect": 0.4 if what == ERASURE else None,
        "tuning": 1.0 if what == ERASURE else None,
        "total": 9 if what == ERASURE else None,
        "retrained": 1 if what == ERASURE else None,
        "records_retrained": 100 if what == ERASURE else None,
        "steps": {"retrained": 2.0, "retrained: tune@c01": 0.5, "retrained: tune@c07": 0.25} if what == ERASURE else {},
        "equal": True if what == AUDIT else None,
        "load": 0.5,
        "command": "python -m bench.erasure",
        "revision": "abc",
        "processor": "one",
    }


def test_a_measurement_replaces_the_same_one_and_no_other(tmp_path: Path) -> None:
    for run in (run_of(ERASURE, 9.0, 1), run_of(ERASURE, 8.0, 10), run_of(ERASURE, 7.0, 1, warm=True), run_of(ERASURE, 6.0, 1)):
        report.keep(run, tmp_path)
    kept = {(run["people"], run["warm"]): run["spent"]["cpu"] for run in report.kept_runs("synthetic", tmp_path)}
    assert kept == {(1, False): 6.0, (10, False): 8.0, (1, True): 7.0}
    assert report.kept_runs("digits", tmp_path) == []


def test_tables_set_an_erasure_against_the_build_of_its_own_project() -> None:
    runs = [run_of(BUILD, 100.0), run_of(PRETRAIN, 40.0), run_of(ERASURE, 6.0, 1), run_of(ERASURE, 5.0, 1, records=10_000)]
    rows = report.erasure_table(runs).splitlines()[2:]
    assert "| 6.0 | 1.0 | 5.0 | 1/10.0 | 0.40 |" in rows[0]
    assert "| 5.0 | 1.0 | 4.0 | not measured |" in rows[1]
    assert "| 100.0 | 40.0 | 60.0 |" in report.build_table(runs)
    steps = report.steps_table(runs).splitlines()
    assert [line.split(" | ")[0] for line in steps[2:]] == [f"| {report.REST}", "| retrained", "| retrained: tune"]
    assert "| 0.50 |" in steps[2]
    assert "| retrained: tune | 0.75 |" in steps[4]
    lines = report.lines_of(runs)
    assert lines["one person, prompts, cold"] == [(1_000, 6.0), (10_000, 5.0)]
    assert lines["whole build without pretraining, prompts"] == [(1_000, 60.0)]


def test_other_clusterings_are_measured_at_one_size_with_prompts() -> None:
    chosen = command.grounds(command.parser().parse_args([]))
    others = [ground for ground in chosen if ground.method != TREE]
    assert [(ground.records, ground.way) for ground in others] == [(10_000, "prompts")] * 2
    assert len(chosen) == 4 * len(WAYS) + 2


@pytest.mark.parametrize(("given", "modes"), [([], [False, True]), (["--cold-only"], [False]), (["--warm-only"], [True])])
def test_modes_are_both_unless_one_is_asked_for(given: list[str], modes: list[bool]) -> None:
    assert command.modes_of(command.parser().parse_args(given)) == modes


def test_what_is_missing_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMERASER_SHARED_DATA", str(tmp_path))
    for arguments in (["--data", "cifar10"], ["--people", "0"], ["--records", "3"]):
        with pytest.raises(SystemExit) as end:
            command.main(arguments)
        assert "\n" not in str(end.value)
        assert str(end.value).startswith("bench")
    monkeypatch.setattr(project, "BYTES_A_RECORD", 10**15)
    with pytest.raises(SystemExit, match="GB of disk"):
        Place(synthetic(1_000, "heads"), tmp_path / "place").prepare()
