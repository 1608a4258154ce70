"""Benches as commands: each tells its options, the list names all of them, and a report holds the command that people give."""

import importlib
import re
import runpy
import sys

import pytest
from builders import ROOT

from bench.lab.commands import benches
from bench.lab.report import command_line

NAMES = [bench.name for bench in benches()]


@pytest.mark.parametrize("name", NAMES)
def test_every_bench_tells_its_options_and_what_its_docstring_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(f"bench.{name}.__main__")
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m bench.{name} ")
    assert (command.__doc__ or "?").strip() in printed


def test_the_list_names_every_bench_with_one_sentence_and_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("bench", run_name="__main__")
    printed = capsys.readouterr().out
    assert set(NAMES) >= {"choose", "compare", "exactness", "people", "scale", "speed"}
    for bench in benches():
        assert f"python -m bench.{bench.name}\n    {bench.purpose}\n    takes: {bench.takes.rstrip('.')}\n" in printed
        assert bench.purpose.endswith(".")
        assert bench.takes


def test_every_bench_that_the_documents_name_is_there() -> None:
    texts = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bench" / "results").glob("*.md"))]
    named = {name for path in texts for name in re.findall(r"python -m bench\.(\w+)", path.read_text(encoding="utf-8"))}
    assert len(named) >= 6
    assert named <= set(NAMES)


def test_a_report_names_the_command_and_not_the_rooms_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("bench.speed.__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", "--batch", "128"])
    assert command_line() == "python -m bench.speed --batch 128"
