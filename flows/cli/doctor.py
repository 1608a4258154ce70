"""`lmeraser doctor`: what is wrong with this machine and project, and how to mend it."""

import argparse
import textwrap
from typing import TYPE_CHECKING

from flows.cli.command import WIDTH, Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flows.doctor.checkup import Finding
    from lmeraser.core.layout import Layout

HELP = "check this machine and project, and say how to mend what is wrong; changes nothing"
EXIT_CODES = {
    0: "nothing is wrong; warnings may be",
    1: "something is wrong: the lines that begin with it say what to do",
    2: "bad input",
}
EXAMPLES = ["lmeraser doctor", "lmeraser doctor --json"]
TITLE, VERDICT = 14, 7  # columns


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def act(_: argparse.Namespace) -> Result:
    from pathlib import Path

    from flows.doctor.checkup import examine, is_sound, to_json
    from flows.doctor.machine import machine_checks
    from flows.doctor.project import project_checks

    layout = _layout()
    root = layout.root if layout else Path.cwd()
    pins = root / "constraints.txt" if layout else None
    findings = examine(machine_checks(pins, _device(layout), root, _built(layout)))
    if layout:
        findings += examine(project_checks(layout))
    result = {"sound": is_sound(findings), "project": layout is not None, "checks": to_json(findings)}
    return result, [*_lines(findings), *([] if layout else ["no project here: what belongs to one was not looked at"])]


def _layout() -> "Layout | None":
    import os
    from pathlib import Path

    from lmeraser.core.errors import ProjectError
    from lmeraser.core.layout import Layout
    from lmeraser.core.own_code import PROJECT_VARIABLE

    try:
        return Layout.find(Path(os.environ.get(PROJECT_VARIABLE) or Path.cwd()))
    except ProjectError:
        return None


def _device(layout: "Layout | None") -> str:
    from lmeraser.core.errors import LmeraserError
    from lmeraser.core.params import load_params

    try:
        return load_params(layout.params).device if layout else "cpu"
    except LmeraserError:  # the check of params tells it
        return "cpu"


def _built(layout: "Layout | None") -> int:
    """Bytes of what is built."""
    if layout is None or not layout.artifacts.is_dir():
        return 0
    return sum(_size(path) for path in layout.artifacts.rglob("*"))


def _size(path: "Path") -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone since it was listed
        return 0


def _lines(findings: "Sequence[Finding]") -> list[str]:
    """A line a finding, within 78 columns; what to do stands below it."""
    indent = " " * (TITLE + VERDICT)
    lines = []
    for finding in findings:
        head = f"{finding.check:<{TITLE}}{finding.verdict:<{VERDICT}}"
        lines += textwrap.wrap(finding.text, WIDTH, initial_indent=head, subsequent_indent=indent)
        if finding.advice:
            lines += textwrap.wrap(finding.advice, WIDTH, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   ")
    return lines
