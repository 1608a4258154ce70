"""`lmeraser propose`: who may have to go without having asked here, by a feed or by what params name. Nothing takes effect."""

import argparse
from typing import TYPE_CHECKING

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from flows.requests.proposals import Outcome

HELP = (
    "propose requests: consent withdrawn, records past their time, people gone from the source; none is in effect until accepted"
)
EXIT_CODES = {0: "told; proposals wait in the ledger (`lmeraser status`)", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser propose --feed withdrawn.csv", "lmeraser propose", "lmeraser propose --feed - --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "withdrawn consent, CSV or Parquet: columns subject and perhaps date; - reads a CSV from standard input"
    instead = "without it: consent.column, retention.column, and who left the source or came back"
    parser.add_argument("--feed", metavar="FILE", help=f"{text}; {instead}")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.requests.proposals import propose

    project = Project.find()
    outcome = propose(project, options.feed)
    return outcome.to_json(), lines_of(outcome)


def lines_of(outcome: "Outcome") -> list[str]:
    """Counts alone: the ledger knows pseudonyms, and standard output nobody."""
    causes = ", ".join(f"{count} {why}" for why, count in outcome.by_cause.items())
    lines = [f"proposed            {len(outcome.proposed)}{f': {causes}' if causes else ''}"]
    rest = {
        "open already": outcome.waiting,
        "ended before": outcome.ended,
        "erased already": outcome.erased,
        "unknown here": outcome.unknown,
        "dated later": outcome.later,
        "shared images": outcome.shared,
    }
    lines += [f"{name:<20}{count}" for name, count in rest.items() if count]
    if outcome.ended:
        lines.append("                    (a withdrawal with another date is another cause; or `lmeraser forget`)")
    if outcome.left_to_person:
        lines.append("so many at once that none is accepted by itself (consent.most_share): look at the feed first")
    if outcome.proposed:
        lines.append(
            "none is in effect   `lmeraser approve --proposed --by NAME` accepts all, with UUIDs some; `lmeraser cancel` ends one"
        )
    return lines
