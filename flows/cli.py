"""The command `lmeraser`. Exit status: 0 done; 1 a check or a step failed; 2 bad input; 3 blocked.

`--json` prints one object on standard output and nothing else there; everything for people goes to standard error.
"""

import argparse
import errno
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from lmeraser.core.errors import BadInputError, LmeraserError

Result = tuple[dict[str, Any], list[str]]  # for --json, and lines for people


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One clear line, without the values that argparse repeats: one of them may be a person."""
        if message.startswith("unrecognized arguments"):
            message = "some arguments were not understood (a person is named with --subject)"
        message = " ".join(re.sub(r"invalid choice: .* \(choose", "invalid choice (choose", message, flags=re.DOTALL).split())
        raise BadInputError(f"{message}; see `{self.prog} --help`")


def _subjects(options: argparse.Namespace) -> list[str]:
    """Subjects of the command line and of --subjects-from, which keeps them out of the shell's history."""
    subjects = list(options.subject or [])
    if options.subjects_from:
        try:
            listed = sys.stdin.read() if options.subjects_from == "-" else Path(options.subjects_from).read_text("utf-8")
            subjects += [line for line in listed.splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"--subjects-from cannot be read ({type(error).__name__}); one subject a line, UTF-8") from error
    return subjects


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    lines = [
        f"records removed     {plan['records_removed']} ({plan['train_removed']} training, {plan['test_removed']} test, "
        f"{plan['public_removed']} public) of {plan['subjects']} subjects, parts {', '.join(plan['parts']) or 'none'}",
        f"clusters retrained  {'' if plan['exact'] else 'at most '}{len(plan['slots_retrained'])} of "
        f"{plan['clusters_total']}: {', '.join(plan['slots_retrained']) or 'none'}",
        f"records retrained   {'' if plan['exact'] else 'at most '}{plan['records_retrained']} of {plan['records_total']}",
        f"source              {plan['source']}",
    ]
    if plan["rebuild"]:
        lines.append("backbone            rebuilt, and everything after it: public records go too")
    if plan["slots_emptied"]:
        lines.append(f"slots emptied       {', '.join(plan['slots_emptied'])}")
    if plan["cut_changes"] and plan["exact"]:
        lines.append("cut                 changes: clusters merge or split")
    if plan["labels_lost"]:
        lines.append(f"labels lost         {plan['labels_lost']}: nobody else has them in training")
    if plan["shared_images"]:
        lines.append(f"shared images       {plan['shared_images']}: another subject holds the same image, which stays")
    return lines


def plan(options: argparse.Namespace) -> Result:
    from flows.steps import Project, draft_plan

    made = draft_plan(Project.find(), _subjects(options), options.include_public).to_json()
    return made | {"clusters_retrained": len(made["slots_retrained"])}, _plan_lines(made)


def _request_summary(request: Any) -> dict[str, Any]:
    made = request.plan or {}
    return {
        "request_id": request.request_id,
        "state": request.state,
        "received_at": request.received_at,
        "certificate": None,  # signed certificates come with a later version
        "receipt": request.receipt,
        "records_removed": made.get("records_removed"),
        "clusters_retrained": len(made.get("slots_retrained", ())),
        "clusters_total": made.get("clusters_total"),
        "slots_retrained": made.get("slots_retrained"),
        "records_retrained": made.get("records_retrained"),
        "records_total": made.get("records_total"),
        "seconds": round(request.seconds, 3),
        "problem": request.problem,
    }


def submit(options: argparse.Namespace) -> Result:
    from flows.steps import Project, receive, workspace

    project = Project.find()
    with workspace(project):
        request_id = receive(project, _subjects(options), options.request_id, options.include_public)
        found = _request_summary(project.requests.get(request_id))
    return found, [f"request {request_id} is {found['state']}; `lmeraser resume` or the Prefect flow carries it out"]


def forget(options: argparse.Namespace) -> Result:
    from flows.steps import Project, carry_out, receive, workspace

    project = Project.find()
    with workspace(project):
        request_id = receive(project, _subjects(options), options.request_id, options.include_public)
        request = carry_out(project, request_id)
    lines = [*_plan_lines(request.plan or {}), f"state               {request.state} in {request.seconds:.1f} s"]
    lines += [
        f"receipt             {request.receipt}",
        "review it: dvc metrics diff; prove it: lmeraser audit --rebuild",
    ]
    return _request_summary(request), lines


def status(options: argparse.Namespace) -> Result:
    from flows.steps import Project

    store = Project.find().requests
    if options.request_id:
        from lmeraser.erase.requests import check_request_id

        found = _request_summary(store.get(check_request_id(options.request_id)))
        return found, [f"{name:<20}{value}" for name, value in found.items() if value is not None]
    found = {"requests": [_request_summary(request) for request in store.all()]}
    lines = [f"{one['request_id']}  {one['state']:<10}  {one['received_at']}" for one in found["requests"]]
    return found, lines or ["no request yet"]


def resume(_: argparse.Namespace) -> Result:
    from flows.steps import Project, workspace
    from flows.steps import resume as resume_all

    project = Project.find()
    with workspace(project):
        finished = resume_all(project)
    lines = [f"{request.request_id}  {request.state}" for request in finished] or ["nothing was open"]
    return {"finished": [_request_summary(request) for request in finished]}, lines


def build(_: argparse.Namespace) -> Result:
    from flows.build import build as build_all
    from flows.steps import Project, workspace

    project = Project.find()
    with workspace(project):
        build_all(project.layout)
    metrics = json.loads((project.layout.metrics / "metrics.json").read_bytes())
    return metrics, [f"served accuracy     {metrics['accuracy']['served']}"]


def audit(options: argparse.Namespace) -> Result:
    if not options.rebuild:
        raise BadInputError("nothing to audit was named; add --rebuild")
    from flows.audit import rebuild
    from flows.steps import Project, workspace

    project = Project.find()
    with workspace(project):
        found = rebuild(project)
    lines = [f"{found.artifacts} artifacts compared, {len(found.differing)} differ", *found.differing]
    lines.append("equal: a build from the retained records gives the same bytes" if found.equal else "NOT EQUAL")
    return {"equal": found.equal, **asdict(found)}, lines


def predict(options: argparse.Namespace) -> Result:
    from flows.steps import Project

    project = Project.find()
    from lmeraser.learn.predicting import predict_files

    answers = predict_files(project.layout, project.params, [Path(image) for image in options.image], options.images)
    lines = [
        f"{one['image']}: {one['label']} ({one['probability']:.3f}; clusters {one['clusters']['label']} "
        f"{one['clusters']['probability']:.3f}, global head {one['global_head']['label']} "
        f"{one['global_head']['probability']:.3f})"
        for one in answers
    ]
    return {"predictions": answers}, lines


def _parser() -> Parser:
    top = Parser(prog="lmeraser", description="A vision model that forgets a person exactly. Run it in the project's folder.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, act: Callable[[argparse.Namespace], Result], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        added.set_defaults(act=act)
        return added

    def subjects(added: argparse.ArgumentParser) -> None:
        added.add_argument("--subject", nargs="+", action="extend", metavar="S", help="a person, as the manifest names them")
        added.add_argument("--subjects-from", metavar="FILE", help="one subject a line; - reads standard input")
        added.add_argument("--include-public", action="store_true", help="accept a rebuild if they have public records")

    subjects(command("plan", plan, "what erasing people would touch; changes nothing"))
    submitting = command("submit", submit, "accept a request without carrying it out yet")
    subjects(submitting)
    submitting.add_argument("--request-id", metavar="UUID", help="the same id twice has one effect")
    erasing = command("forget", forget, "erase people: remove, retrain what they touched, verify, write a receipt")
    subjects(erasing)
    erasing.add_argument("--request-id", metavar="UUID", help="the same id twice has one effect")
    command("status", status, "requests and their states").add_argument("request_id", nargs="?", metavar="UUID")
    command("resume", resume, "finish what was interrupted")
    command("build", build, "what `dvc repro` does, with fewer processes; the same bytes")
    auditing = command("audit", audit, "prove that what is served never saw the erased people")
    auditing.add_argument("--rebuild", action="store_true", help="build from the retained records in a clean copy, compare")
    guessing = command("predict", predict, "ask the served model")
    guessing.add_argument("image", nargs="*", metavar="IMAGE")
    guessing.add_argument("--images", metavar="DIR", type=Path, help="every PNG, JPEG and WebP in a folder")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, act, print, exit."""
    try:
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
    print(json.dumps(result, sort_keys=True) if options.json else "\n".join(lines))
    sys.exit(0 if result.get("equal", True) else 1)


if __name__ == "__main__":
    main()
