"""The benches as commands: one parser for all, and what `python -m bench` tells of each."""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.lab import ROOT

TAKES = "Takes: "  # begins the paragraph of a bench's docstring that tells its duration


@dataclass(frozen=True)
class Bench:
    """Attributes: name: of the room, `python -m bench.NAME` runs it; purpose: one sentence; takes: how long, or nothing."""

    name: str
    purpose: str
    takes: str

    @classmethod
    def read(cls, path: Path) -> "Bench":
        """From the docstring of a room's __main__.py, which is read and not run."""
        paragraphs = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")
        durations = [" ".join(text.removeprefix(TAKES).split()) for text in paragraphs if text.startswith(TAKES)]
        return cls(path.parent.name, " ".join(paragraphs[0].split()), durations[0] if durations else "")


def benches(folder: Path = ROOT / "bench") -> Iterator[Bench]:
    """Every room that is a command, by its name."""
    for path in sorted(folder.glob("*/__main__.py")):
        yield Bench.read(path)


def bench_parser(room: str, description: str | None) -> argparse.ArgumentParser:
    """Args: description: the docstring of the room's __main__.py, shown as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m bench.{room}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
