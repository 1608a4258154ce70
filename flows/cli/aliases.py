"""`lmeraser aliases`: who may be one person under several ids: counts here, names on a private page. A human decides."""

import argparse
from pathlib import Path
from typing import Any

from flows.cli.command import BAD_INPUT, Result
from flows.cli.near import share_of
from flows.cli.subjects import read_lines
from lmeraser.core.errors import BadInputError

HELP = "who may be one person under several ids: the same images, names alike, near copies; changes nothing"
EXIT_CODES = {0: "told, whether or not there is anybody", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = [
    "lmeraser aliases --page ~/private/ids.html",
    "lmeraser aliases --csv requests.csv --near --page ~/private/ids.html",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--subject", nargs="+", action="extend", metavar="S", help="about these people alone, in any spelling; else everybody")
    add("--subjects-from", metavar="FILE", help="one subject a line; - reads standard input")
    add("--csv", metavar="FILE", help="the people of a table for `submit --csv`; - reads standard input")
    add("--page", type=Path, metavar="FILE", help="write a private page that names them: a new file, outside project and git")
    add("--near", action="store_true", default=None, help="also others' images that look like those of the named people")
    add("--near-share", type=float, metavar="SHARE", help="as of `plan --near-share` (0.05)")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.requests.aliases import find_aliases

    subjects, share = _subjects(options), share_of(options)
    if options.near and subjects is None:
        raise BadInputError("--near compares named people with all others; name them with --subject, --subjects-from or --csv")
    told = find_aliases(Project.find(), subjects, share if options.near else None, options.page)
    return told, _lines(told, options.page is not None)


def _subjects(options: argparse.Namespace) -> list[str] | None:
    """None where nobody is named. Raises: BadInputError."""
    subjects = list(options.subject or [])
    if options.subjects_from:
        subjects += read_lines(options.subjects_from, "--subjects-from")
    if options.csv:
        from flows.cli.bulk import subjects_in

        subjects += subjects_in(options.csv)
    return subjects if options.subject or options.subjects_from or options.csv else None


def _lines(told: dict[str, Any], written: bool) -> list[str]:
    lines = [
        f"groups              {told['groups']}: {told['same_images']} with the same images, {told['same_name']} with names "
        f"alike, {told['near_copies']} with near copies",
        f"people              {told['subjects']} in them",
    ]
    if "asked" in told:
        lines.insert(
            0, f"asked for           {told['asked']} people, {told['without_records']} of them without a record as spelt"
        )
    if told["groups"]:
        page = "look at the page, decide, delete it" if written else "add --page FILE to see who"
        lines.append(
            f"next                {page}; ids that are one person's are named together (`lmeraser forget --subjects-from`)"
        )
    return lines
