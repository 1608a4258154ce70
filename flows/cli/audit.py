"""`lmeraser audit`: prove it. Each proof that is asked for gives its part of the result."""

import argparse
import re
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result
from flows.cli.subjects import read_lines, subjects_of
from lmeraser.core.errors import BadInputError, VerificationError

if TYPE_CHECKING:
    from flows.project import Project
    from lmeraser.prove.selection import Selection

HELP = "prove that what is served never saw the erased people, and that nothing of them is left"
EXIT_CODES = {
    0: "every check that was asked for passed",
    1: "an artifact differs, something of erased people is left or back, a chosen erasure was not rebuilt, a drill failed or had "
    "no power, or a step failed",
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
    add("--due", action="store_true", help="the same, if the audit key chose an erasure that was not rebuilt yet")
    add("--give-way", action="store_true", help="with --due: end, and do it another time, as soon as a request is open")
    add("--selection", action="store_true", help="which erasures the audit key chose, and whether each was rebuilt")
    add(
        "--key", type=Path, action="append", metavar="FILE", help="with --selection: a copy of the audit key (several: each once)"
    )
    add("--stores", action="store_true", help="scan every store for what should be gone")
    add("--subset", metavar="1/N", help="with --stores: read one file of N, drawn anew each day by a key")
    add("--canaries-from", metavar="FILE", help="with --stores: look for these lines too; - reads stdin")
    add("--membership", action="store_true", help="drill: does tuning leave a trace that deletion removes?")
    add("--people", type=int, default=5, metavar="N", help="with --membership: how many to draw")
    add("--retrainings", type=int, default=39, metavar="K", help="with --membership: references a person")
    add("--subject", nargs="+", action="extend", metavar="S", help="with --membership: these people")
    add("--subjects-from", metavar="FILE", help="with --membership: one subject a line; - reads standard input")


def act(options: argparse.Namespace) -> Result:
    proofs = {"--rebuild": _rebuild, "--due": _due, "--selection": _selection, "--stores": _stores, "--membership": _drill}
    asked = [name for name in proofs if getattr(options, name[2:])]
    if not asked:
        *most, last = proofs
        raise BadInputError(f"`lmeraser audit` needs at least one of {', '.join(most)} and {last}; add one and retry")
    if options.rebuild and options.due:
        asked.remove("--due")  # a rebuild settles what is due
    if options.subset and not options.stores:
        raise BadInputError("--subset is a part of --stores; add --stores and retry")
    if options.give_way and not options.due:
        raise BadInputError("--give-way is a part of --due; add --due and retry")
    if options.key and not options.selection:
        raise BadInputError("--key is a part of --selection; add --selection and retry")
    _share(options.subset)  # before anything is done
    from flows.project import Project, workspace

    project = Project.find()
    if asked == ["--selection"]:
        return _selection(project, options)  # it reads the ledger alone, and waits for nobody
    result: dict[str, Any] = {}
    lines: list[str] = []
    with workspace(project):
        for proof in (_lists, _people, *map(proofs.__getitem__, asked)):
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


def _people(project: "Project", _: argparse.Namespace) -> Result:
    """Whether the people in the records are those that the last certificate's root stands for."""
    from flows.audit.people import check_people

    try:
        check = check_people(project)
    except VerificationError as error:
        return {"people": {"problem": str(error)}}, [f"NOT CHECKED against the certificates: {error}"]
    if check is None:
        return {}, []
    same = f"the people in the records are those of whom certificate {check.certificate} shows that the erased are not among them"
    other = (
        f"the people in the records are not those of certificate {check.certificate}: somebody came, or left without a request, "
        "since; the next certificate shows the absence of its people from those of then"
    )
    return {"people": asdict(check)}, [same if check.same else other]


def _due(project: "Project", options: argparse.Namespace) -> Result:
    from flows.audit.due import due
    from flows.audit.giving_way import giving_way

    if not due(project):
        return {"rebuilt": []}, ["no rebuild is due"]
    with giving_way(project) if options.give_way else nullcontext():
        return _rebuild(project, options)


def _rebuild(project: "Project", _: argparse.Namespace) -> Result:
    from flows.audit.due import rebuild_and_note

    comparison, rebuilt = rebuild_and_note(project)
    verdict = "equal: a build from the retained records gives the same bytes" if comparison.equal else "NOT EQUAL"
    compared = f"{comparison.artifacts} artifacts compared, {len(comparison.differing)} differ"
    noted = [f"noted in the ledger: the erasure of request {request_id} was rebuilt" for request_id in rebuilt]
    result = {"equal": comparison.equal, **asdict(comparison)} | ({"rebuilt": list(rebuilt)} if rebuilt else {})
    return result, [compared, *comparison.differing, verdict, *noted]


def _selection(project: "Project", options: argparse.Namespace) -> Result:
    from lmeraser.core.errors import ProjectError
    from lmeraser.erase.ledger_events import check_events
    from lmeraser.prove.selection import AuditKey, selection_of

    events = project.ledger.events()
    check_events(events)
    own = project.layout.audit_key
    if not options.key and not own.exists():
        raise ProjectError("the audit key .lmeraser/audit.key is missing; name a copy of it with --key")
    keys = [AuditKey.read(path) for path in options.key] if options.key else [AuditKey.load_or_create(own)]
    selection = selection_of(events, keys)
    return {"selection": selection.to_json()}, selection_lines(selection)


def selection_lines(selection: "Selection") -> list[str]:
    """What a repeated choice tells, for people."""
    shares = ", ".join(
        f"{count} with {f'one of {share}' if share else 'none chosen'}" for share, count in selection.shares.items()
    )
    lines = [f"{selection.certified} requests were certified with a choice of rebuilds{f': {shares}' if shares else ''}"]
    if selection.without:
        lines.append(f"{selection.without} were certified by a version that chose none")
    if len(selection.keys) > 1:
        lines.append(f"the audit key was replaced: {', then '.join(key[:16] for key in selection.keys)}")
    lines += [
        f"NOT JUDGED: {count} were certified under the audit key {key[:16]}, which was not given; name a copy of it with --key"
        for key, count in selection.unjudged.items()
    ]
    lines += [f"NOT REBUILT: request {request_id}; run `lmeraser audit --due`" for request_id in selection.missing]
    lines += [f"NOT EQUAL: the rebuild of request {request_id} gave other artifacts" for request_id in selection.unequal]
    done = len(selection.chosen) - len(selection.missing) - len(selection.unequal)
    verdict = "complete" if selection.complete else "NOT COMPLETE"
    return [*lines, f"{verdict}: {len(selection.chosen)} chosen, {done} of them rebuilt with equal artifacts"]


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
