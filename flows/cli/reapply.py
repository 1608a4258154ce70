"""`lmeraser reapply`: after a backup was restored, do every erasure again that is newer than it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.command import BAD_INPUT, Result
from flows.cli.receiving import add_accept_unknown

if TYPE_CHECKING:
    from flows.restore.reapply import Reapplied

HELP = "after a restore from a backup: do newer erasures again, and certify that"
EXIT_CODES = {
    0: "nobody who was erased is back; what was done again is certified",
    1: "a check or a step failed, or certificates are forked: mend what the line says, then `lmeraser reapply` again",
    2: BAD_INPUT,
    3: "blocked: stores hold objects that nobody can tell what they were made of, and --accept-unknown was not given",
}
EXAMPLES = ["lmeraser reapply", "lmeraser reapply --certificates KEPT --head KEPT/HEAD"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--certificates", type=Path, metavar="FOLDER", help="where you keep copies of certificates/")
    parser.add_argument("--head", metavar="SEQ:SHA256|FILE", help="the last certificate as you know it")
    add_accept_unknown(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project, workspace
    from flows.restore.reapply import reapply
    from lmeraser.prove.verify import parse_head

    head = parse_head(options.head) if options.head is not None else None
    project = Project.find(options.accept_unknown)
    with workspace(project):
        outcome = reapply(project, options.certificates, head)
    return outcome.to_json(), _lines(outcome)


def _lines(outcome: "Reapplied") -> list[str]:
    witnesses = ", ".join(f"{name} {count}" for name, count in outcome.witnesses.items())
    lines = [
        f"known to be erased    {outcome.known} people ({witnesses})",
        f"back                  {outcome.records} in records of the model, {outcome.source} in the source",
        f"put on the list       {outcome.listed}",
        f"certificates restored {outcome.certificates}; requests that the ledger did not know: {len(outcome.requests)}",
        f"done again            {' '.join(outcome.repeats) or 'none'}",
        *(f"certificate           {name}" for name in outcome.certificates_now),
    ]
    if outcome.cleared:
        stores = ", ".join(f"{store}: {count}" for store, count in outcome.cleared.items())
        lines.append(f"deleted from stores   {stores}; nobody was in the model, so nothing was signed")
    lines += [f"not asked             {note}" for note in outcome.notes]
    if not outcome.anything:
        lines.append("nothing of an erasure was taken back, so nothing was done and nothing was signed")
    return lines
