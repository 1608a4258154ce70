"""`lmeraser review`: what changed between two states, and whether that is within the tolerances of params.yaml.

It needs git and the metrics alone: no artifact, no ledger, no torch. So it runs in a bare checkout of a CI job.
"""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result
from lmeraser.core.errors import BadInputError

HELP = "compare metrics, changed clusters and cost of two states, with tolerances"
EXIT_CODES = {0: "within the tolerances of `review` in params.yaml", 1: "a tolerance is broken, or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser review", "lmeraser review main HEAD --markdown review.md", "lmeraser review HEAD~1 --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "revisions of git, the old one first; left out: HEAD and the workspace"
    parser.add_argument("revision", nargs="*", metavar="REV", help=text)
    parser.add_argument("--markdown", metavar="FILE", help="write it for a pull request; - is standard output")


def act(options: argparse.Namespace) -> Result:
    revisions: list[str] = options.revision
    if len(revisions) > 2:
        raise BadInputError(f"{len(revisions)} revisions were given, expected at most 2: the old one and the new one")
    if options.json and options.markdown == "-":
        raise BadInputError("--json and --markdown - both write to standard output; name a file with --markdown")
    from flows.report.revisions import History, state_of
    from flows.report.seconds import seconds_of
    from lmeraser.core.own_code import own_layout
    from lmeraser.core.params import read_params
    from lmeraser.report.review import compare
    from lmeraser.report.review_text import markdown, text

    layout = own_layout()
    params = read_params(layout.params)
    history, least = History(layout), params.evaluate.min_group
    wanted: list[str | None] = [*(revisions or ["HEAD"])]
    wanted += [None] if len(wanted) < 2 else []
    old, new = (
        state_of(history, revision, f"revision {place} of {len(wanted)}", least) for place, revision in enumerate(wanted, start=1)
    )
    fresh = [new.certificates[number] for number in new.certificates.keys() - old.certificates.keys()]
    comparison = compare(old, new, params.review, seconds_of(layout, fresh))
    lines = text(comparison, params.review)
    if options.markdown is not None:
        written = markdown(comparison, params.review)
        if options.markdown == "-":
            lines = written.splitlines()
        else:
            write(Path(options.markdown), written.encode(), "--markdown")
    return comparison.to_json(), lines


def write(path: Path, data: bytes, option: str) -> None:
    """Write what a person asked for, whole or not at all. Raises: BadInputError."""
    from lmeraser.core.files import write_atomically

    if not path.absolute().parent.is_dir():
        raise BadInputError(f"{option}: the folder does not exist; make it, or name a file in a folder that is there")
    if path.is_dir():
        raise BadInputError(f"{option} names a folder, expected a file")
    try:
        write_atomically(path, data)
    except PermissionError as error:
        raise BadInputError(f"{option}: the file cannot be written here ({error.strerror}); name another one") from error
