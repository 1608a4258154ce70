"""The command `lmeraser`. Exit status: 0 done; 1 a check or a step failed; 2 bad input; 3 blocked.

`--json` prints one object on standard output and nothing else there; everything for people goes to standard error.
"""

import argparse
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from lmeraser.core import determinism
from lmeraser.core.errors import BadInputError, LmeraserError

Result = tuple[dict[str, Any], list[str]]  # for --json, and lines for people


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One clear line, without the values that argparse repeats: one of them may be a person."""
        if message.startswith("unrecognized arguments"):
            message = "some arguments were not understood (a person is named with --subject)"
        message = " ".join(re.sub(r"invalid choice: .* \(choose", "invalid choice (choose", message, flags=re.DOTALL).split())
        raise BadInputError(f"{message}; see `{self.prog} --help`")


def build(_: argparse.Namespace) -> Result:
    from flows.project import Project, workspace
    from flows.requests.ground import keep_list
    from flows.run.build import build as build_all

    project = Project.find()
    with workspace(project):
        keep_list(project)
        build_all(project.layout)
    metrics = json.loads((project.layout.metrics / "metrics.json").read_bytes())
    return metrics, [f"served accuracy     {metrics['accuracy']['served']}"]


def slots(options: argparse.Namespace) -> Result:
    from flows.dvc.pipeline_files import slots as append_slots

    return append_slots(options)


def audit(options: argparse.Namespace) -> Result:
    if not (options.rebuild or options.stores or options.membership):
        raise BadInputError("nothing to audit was named; add --rebuild, --stores or --membership")
    from flows.project import Project, workspace
    from flows.requests.ground import missing_from_branch

    project = Project.find()
    told: dict[str, Any] = {}
    lines: list[str] = []
    with workspace(project):
        missing = missing_from_branch(project)
        if missing:
            from flows.cli.request_commands import list_line

            told, lines = {"missing_from_list": missing}, [list_line(missing)]
        from flows.audit.rebuild import people_back

        back = people_back(project)
        if back:
            told["people_back"] = back
            lines.append(f"NOT CLEAN: {back} erased people are in the records again; run `lmeraser build`, then audit again")
        if options.rebuild:
            from flows.audit.rebuild import rebuild

            found = rebuild(project)
            told |= {"equal": found.equal, **asdict(found)}
            lines += [f"{found.artifacts} artifacts compared, {len(found.differing)} differ", *found.differing]
            lines.append("equal: a build from the retained records gives the same bytes" if found.equal else "NOT EQUAL")
        if options.stores:
            events = project.ledger.verify_chain()
            from flows.cli.request_commands import read_lines
            from flows.purge.step import audit_stores

            canaries = read_lines(options.canaries_from, "--canaries-from") if options.canaries_from else []
            stores = audit_stores(project.layout, canaries).to_json()
            told |= stores | {"ledger_events": events}
            lines += [*store_lines(stores), f"{events} events of the ledger are as they were written"]
        if options.membership:
            from flows.audit.membership import membership, membership_lines
            from flows.cli.request_commands import subjects_of

            drill = membership(project.layout, project.params, subjects_of(options), options.people, options.retrainings)
            told |= drill
            lines += membership_lines(drill)
    return told, lines


def store_lines(found: dict[str, Any]) -> list[str]:
    """What a scan of all stores found, for people."""
    lines = []
    for one in found["stores"]:
        left = ", ".join(f"{kind['count']} {kind['kind']}" for kind in one["residue"]) or "nothing left"
        left += f", in {', '.join(one['where'])}" if one["where"] else ""
        left += f"; {one['unknown']} objects that no known version names" if one.get("unknown") else ""
        lines.append(f"{one['store']:<22}{one['objects']:>8} files {one['bytes']:>14,} bytes  {left}")
    lines += [f"exempt: {text}" for text in found["exempt"]]
    return [*lines, "clean: nothing of the erased people was found" if found["clean"] else "NOT CLEAN"]


def predict(options: argparse.Namespace) -> Result:
    from flows.project import Project

    project = Project.find()
    from lmeraser.serve.predicting import predict_files

    answers = predict_files(project.layout, project.params, [Path(image) for image in options.image], options.images)
    lines = [
        f"{one['image']}: {one['label']} ({one['probability']:.3f}; clusters {one['clusters']['label']} "
        f"{one['clusters']['probability']:.3f}, global head {one['global_head']['label']} "
        f"{one['global_head']['probability']:.3f})"
        for one in answers
    ]
    return {"predictions": answers}, lines


def _parser() -> Parser:
    from flows.cli import certificate_commands, request_parsers

    top = Parser(prog="lmeraser", description="A vision model that forgets a person exactly. Run it in the project's folder.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, act: Callable[[argparse.Namespace], Result], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        added.set_defaults(act=act)
        return added

    request_parsers.add_parsers(command)
    command("build", build, "what `dvc repro` does, with fewer processes; the same bytes")
    growing = command("slots", slots, "append slots to params.yaml, and write the pipeline files that hold them")
    growing.add_argument("count", type=int, metavar="N", help="how many there shall be; as many as now: write the files anew")
    auditing = command("audit", audit, "prove that what is served never saw the erased people, and that nothing of them is left")
    auditing.add_argument("--rebuild", action="store_true", help="build from the retained records in a clean copy, compare")
    auditing.add_argument("--stores", action="store_true", help="scan every store for what should be gone")
    auditing.add_argument("--canaries-from", metavar="FILE", help="with --stores: look for these lines too; - reads stdin")
    auditing.add_argument("--membership", action="store_true", help="drill: does tuning leave a trace that deletion removes?")
    auditing.add_argument("--people", type=int, default=5, metavar="N", help="with --membership: how many to draw")
    auditing.add_argument("--retrainings", type=int, default=39, metavar="K", help="with --membership: references a person")
    auditing.add_argument("--subject", nargs="+", action="extend", metavar="S", help="with --membership: these people")
    auditing.add_argument("--subjects-from", metavar="FILE", help="with --membership: one subject a line; - reads standard input")
    certificate_commands.add_parsers(command)
    guessing = command("predict", predict, "ask the served model")
    guessing.add_argument("image", nargs="*", metavar="IMAGE")
    guessing.add_argument("--images", metavar="DIR", type=Path, help="every PNG, JPEG and WebP in a folder")
    return top


def passed(result: dict[str, Any]) -> bool:
    """Whether every check of a result passed; "no power" is never a pass."""
    held = bool(result.get("equal", True)) and bool(result.get("clean", True)) and not result.get("people_back")
    return held and result.get("verdict", "pass") == "pass"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, act, print, exit."""
    try:
        determinism.require()
        options = _parser().parse_args(arguments)
        result, lines = options.act(options)
    except LmeraserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print("error: the disk is full; free some space, then run `lmeraser resume`", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing is lost: `lmeraser resume` finishes what was begun", file=sys.stderr)
        sys.exit(130)
    try:
        print(json.dumps(result, sort_keys=True) if options.json else "\n".join(lines), flush=True)
    except BrokenPipeError:  # whoever reads has read enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0 if passed(result) else 1)


if __name__ == "__main__":
    main()
