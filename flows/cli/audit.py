"""`lmeraser audit`: prove it. Each proof that is asked for gives its part of the result."""

import argparse
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result
from flows.cli.subjects import read_lines, subjects_of
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from flows.project import Project

HELP = "prove that what is served never saw the erased people, and that nothing of them is left"
EXIT_CODES = {
    0: "every check that was asked for passed",
    1: "an artifact differs, something of erased people is left or back, a drill failed or had no power, or a step failed",
    2: BAD_INPUT,
}
EXAMPLES = [
    "lmeraser audit --rebuild --stores",
    "lmeraser audit --membership --people 20 --retrainings 39",
    "lmeraser audit --stores --subset 1/30 --json",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rebuild", action="store_true", help="build from the retained records in a clean copy, compare")
    add("--stores", action="store_true", help="scan every store for what should be gone")
    add("--subset", metavar="1/N", help="with --stores: read one file of N, drawn anew each day by a key")
    add("--canaries-from", metavar="FILE", help="with --stores: look for these lines too; - reads stdin")
    add("--membership", action="store_true", help="drill: does tuning leave a trace that deletion removes?")
    add("--people", type=int, default=5, metavar="N", help="with --membership: how many to draw")
    add("--retrainings", type=int, default=39, metavar="K", help="with --membership: references a person")
    add("--subject", nargs="+", action="extend", metavar="S", help="with --membership: these people")
    add("--subjects-from", metavar="FILE", help="with --membership: one subject a line; - reads standard input")


def act(options: argparse.Namespace) -> Result:
    if not (options.rebuild or options.stores or options.membership):
        raise BadInputError("`lmeraser audit` needs at least one of --rebuild, --stores and --membership; add one and retry")
    if options.subset and not options.stores:
        raise BadInputError("--subset is a part of --stores; add --stores and retry")
    _share(options.subset)  # before anything is done
    from flows.project import Project, workspace

    project = Project.find()
    result: dict[str, Any] = {}
    lines: list[str] = []
    with workspace(project):
        proofs = ((True, _lists), (options.rebuild, _rebuild), (options.stores, _stores), (options.membership, _drill))
        for asked, proof in proofs:
            if asked:
                part, part_lines = proof(project, options)
                result |= part
                lines += part_lines
    return result, lines


def _lists(project: "Project", _: argparse.Namespace) -> Result:
    """Whether the list of this branch lacks somebody, or a build brought somebody back."""
    from flows.audit.rebuild import people_back
    from flows.cli.summary import missing_from_list

    result, lines = missing_from_list(project)
    back = people_back(project)
    if back:
        result["people_back"] = back
        lines.append(f"NOT CLEAN: {back} erased people are in the records again; run `lmeraser build`, then audit again")
    return result, lines


def _rebuild(project: "Project", _: argparse.Namespace) -> Result:
    from flows.audit.notes import note_rebuild
    from flows.audit.rebuild import rebuild

    begun = time.monotonic()
    comparison = rebuild(project)
    note_rebuild(project, comparison, time.monotonic() - begun)
    verdict = "equal: a build from the retained records gives the same bytes" if comparison.equal else "NOT EQUAL"
    compared = f"{comparison.artifacts} artifacts compared, {len(comparison.differing)} differ"
    return {"equal": comparison.equal, **asdict(comparison)}, [compared, *comparison.differing, verdict]


def _stores(project: "Project", options: argparse.Namespace) -> Result:
    from flows.audit.stores import audit_and_note
    from flows.purge.report import which_scan

    events = project.ledger.verify_chain()
    canaries = read_lines(options.canaries_from, "--canaries-from") if options.canaries_from else []
    report = audit_and_note(project, canaries, _share(options.subset))
    lines = [*store_lines(report.to_json()), which_scan(report)]
    return report.to_json() | {"ledger_events": events}, [*lines, f"{events} events of the ledger are as they were written"]


def _share(subset: str | None) -> int:
    """N of 1/N; 1 where everything is to be read."""
    match = re.fullmatch(r"1/([1-9][0-9]{0,3})", subset or "1/1")
    if match is None:
        raise BadInputError("--subset is not a share such as 1/30 (from 1/1 to 1/9999); correct it and retry")
    return int(match[1])


def store_lines(report: dict[str, Any]) -> list[str]:
    """What a scan of all stores found, for people."""
    lines = []
    for store in report["stores"]:
        left = ", ".join(f"{residue['count']} {residue['kind']}" for residue in store["residue"]) or "nothing left"
        left += f", in {', '.join(store['where'])}" if store["where"] else ""
        left += f"; {store['unknown']} objects that no known version names" if store.get("unknown") else ""
        left += f"; {store['waiting']} more files wait for their turn" if store.get("waiting") else ""
        lines.append(f"{store['store']:<22}{store['objects']:>8} files {store['bytes']:>14,} bytes  {left}")
    lines += [f"exempt: {text}" for text in report["exempt"]]
    return [*lines, "clean: nothing of the erased people was found" if report["clean"] else "NOT CLEAN"]


def _drill(project: "Project", options: argparse.Namespace) -> Result:
    from flows.audit.membership import membership, membership_lines
    from flows.audit.notes import note_membership

    drill = membership(project.layout, project.params, subjects_of(options), options.people, options.retrainings)
    note_membership(project, drill)
    return drill, membership_lines(drill)
