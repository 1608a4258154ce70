"""The commands about requests: plan, submit, forget, approve, status, resume."""

import argparse
import codecs
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.project import Project, workspace
from flows.purge.step import by_store, told_unknown
from flows.requests import intake
from flows.requests.ground import missing_from_branch
from lmeraser.core.errors import BadInputError, LmeraserError, ProjectError
from lmeraser.core.progress import say
from lmeraser.erase.requests import Request, check_request_id, read_event
from lmeraser.erase.states import CERTIFIED
from lmeraser.erase.states import status as opendsr_status
from lmeraser.pipeline.mixing import environments_of, mixed

Result = tuple[dict[str, Any], list[str]]  # for --json, and lines for people


def subjects_of(options: argparse.Namespace) -> list[str]:
    """Subjects of the command line and of --subjects-from, which keeps them out of the shell's history."""
    subjects = list(options.subject or [])
    if options.subjects_from:
        subjects += read_lines(options.subjects_from, "--subjects-from")
    return subjects


def read_lines(name: str, option: str) -> list[str]:
    """The lines of a file, or of standard input, that hold something; UTF-8, or UTF-16 with its byte-order mark."""
    data = _read(name, option, "one a line, UTF-8")
    try:
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{option} cannot be read (UnicodeDecodeError); expected one a line, UTF-8") from error
    # Not `splitlines`, which would make two people of one whose name holds a rarer separator.
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _read(name: str, option: str, expected: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise BadInputError(f"{option} cannot be read ({type(error).__name__}); expected {expected}") from error


def plan_lines(plan: dict[str, Any]) -> list[str]:
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
    project = Project.find()
    made = intake.draft_plan(project, subjects_of(options), options.include_public).to_json()
    unknown, problem = told_unknown(project.layout)
    lines = plan_lines(made)
    if unknown:
        lines.append(
            f"unknown objects     {by_store(unknown)}: no dvc.lock known to git names them; refused unless --accept-unknown"
        )
    if problem:
        lines.append(f"unknown objects     cannot be told: {problem}")
    return made | {"clusters_retrained": len(made["slots_retrained"]), "unknown": unknown}, lines


def summary(project: Project, request: Request) -> dict[str, Any]:
    """What people and programs are told of a request. No pseudonym: who may read the ledger finds it there."""
    made = intake.plan_of(project, request) or {}
    batch = project.ledger.get_batch(request.batch_id) if request.batch_id else None
    shared = (batch.facts.get("replayed") or batch.plan) if batch else made
    now = datetime.now(UTC)
    return {
        "request_id": request.request_id,
        "state": request.state,
        "reached": request.reached,
        "request_status": opendsr_status(request.state),
        "received_at": request.received_at,
        "due_at": request.due_at,
        "late": request.late(now),
        "certificate": request.certificate,
        "records_removed": made.get("records_removed"),
        "clusters_retrained": len(shared.get("slots_retrained", ())),
        "clusters_total": shared.get("clusters_total"),
        "slots_retrained": shared.get("slots_retrained"),
        "records_retrained": shared.get("records_retrained"),
        "records_total": shared.get("records_total"),
        "attempts": request.attempts,
        "seconds": round(request.seconds, 3),
        "timings": {name: round(seconds, 3) for name, seconds in request.timings.items()},
        "problem": request.problem if request.state != CERTIFIED else None,
        "reason": request.reason,
        "approved_by": next((text for kind, text in project.ledger.words(request.request_id) if kind == "approved by"), None),
    }


def receive(project: Project, options: argparse.Namespace) -> tuple[Request, list[str]]:
    """The request of a command line or of an event, in the ledger; and its subjects in the order given."""
    subjects, request_id, include_public = subjects_of(options), options.request_id, options.include_public
    if getattr(options, "event", None):
        if subjects or request_id:
            raise BadInputError("--event names the request and its subjects; leave --subject and --request-id out")
        event = read_event(_read(options.event, "--event", "an OpenDSR 2.0 request as JSON"))
        subjects, request_id, include_public = list(event.subjects), event.request_id, include_public or event.include_public
    return intake.receive(project, subjects, request_id, include_public), subjects


def submit(options: argparse.Namespace) -> Result:
    from flows.service.client import announce

    project = Project.find()
    request, subjects = receive(project, options)
    problem = None
    try:
        request = intake.accept(project, request, subjects)
    except ProjectError as error:  # nobody can tell yet whether it is valid; it is in the ledger and will be looked at again
        problem = str(error)
        say(f"received, and not validated yet: {problem}")
    told = announce(project.layout, request.request_id)
    found = summary(project, request) | ({"problem": problem} if problem else {})
    if intake.needs_approval(project, request):
        then = f"`lmeraser approve {request.request_id} --by NAME` puts it in effect"
    else:
        then = "the server was told" if told else "`lmeraser resume` or a server's sweep carries it out"
    return found, [f"request {request.request_id} is {request.state}, due {request.due_at[:10]}; {then}"]


def forget(options: argparse.Namespace) -> Result:
    from flows.requests.coordinator import run_open

    project = Project.find(options.accept_unknown)
    request, subjects = receive(project, options)
    if request.is_open or request.state == "blocked":
        failed = request.state == "failed"
        request = intake.accept(project, request, subjects, solved=False)
        if not intake.needs_approval(project, request):
            with workspace(project):
                try:
                    run_open(project, retry_failed=failed)
                except LmeraserError as error:
                    if project.ledger.get(request.request_id).state != CERTIFIED:
                        raise
                    say(f"another request is still open: {error}")
    request = project.ledger.get(request.request_id)
    intake.refuse(request)
    found = summary(project, request)
    lines = [
        *plan_lines(intake.plan_of(project, request) or {}),
        f"state               {request.state} in {request.seconds:.1f} s",
    ]
    if request.certificate:
        lines += [
            f"certificate         {request.certificate}",
            f"check it           lmeraser verify {request.certificate}",
            "prove it           lmeraser audit --rebuild --stores; review it: dvc metrics diff",
        ]
    else:
        lines.append(f"waits for approval: lmeraser approve {request.request_id} --by NAME")
    if getattr(options, "timings", False):
        lines += timing_lines(request)
    return found, lines


def timing_lines(request: Request) -> list[str]:
    """Where the time of a request went: steps, and below each what it spent it on."""
    lines = [f"{'seconds':>9}  step"]
    for name, seconds in request.timings.items():
        step, _, part = name.partition(": ")
        lines.append(f"{seconds:9.2f}  {'    ' + part if part else step}")
    return [*lines, f"{request.seconds:9.2f}  all steps"]


def approve(options: argparse.Namespace) -> Result:
    from flows.service.client import announce, resume_waiting

    project = Project.find()
    request = intake.approve(project, check_request_id(options.request_id), options.by)
    if not resume_waiting(project.layout, request.request_id, options.by):
        announce(project.layout, request.request_id)
    found = summary(project, request)
    return found, [f"request {request.request_id} is approved and {request.state}"]


def cancel(options: argparse.Namespace) -> Result:
    project = Project.find()
    request = intake.cancel(project, check_request_id(options.request_id))
    return summary(project, request), [f"request {request.request_id} is cancelled; nothing was erased for it"]


def list_line(missing: int) -> str:
    """What to do where the branch's list lacks people whom this machine erased."""
    return (
        f"data/erased.json of this branch lacks {missing} people who were erased here; run `lmeraser build`, which puts them "
        "back and keeps them out"
    )


def status(options: argparse.Namespace) -> Result:
    project = Project.find()
    if options.request_id:
        request = project.ledger.get(check_request_id(options.request_id))
        found = summary(project, request)
        lines = [f"{name:<20}{value}" for name, value in found.items() if value is not None and name != "timings"]
        return found, [*lines, *(timing_lines(request) if request.timings else [])]
    listed = [summary(project, request) for request in project.ledger.all()]
    late = sum(one["late"] for one in listed)
    lines = [
        f"{one['request_id']}  {one['state']:<12} due {one['due_at'][:10]}{'  LATE' if one['late'] else ''}"
        f"{'  ' + one['problem'] if one['problem'] and one['state'] != CERTIFIED else ''}"
        for one in listed
    ]
    if late:
        lines.append(f"{late} requests are late")
    told: dict[str, Any] = {"requests": listed, "late": late}
    missing = missing_from_branch(project)
    if missing:
        told["missing_from_list"] = missing
        lines.append(list_line(missing))
    environments = mixing_line(project)
    if environments:
        told["mixed_environments"] = environments
        lines.append(environments)
    return told, lines or ["no request yet"]


def mixing_line(project: Project) -> str | None:
    """Which artifacts were made in another environment than the rest; None where none was, or where there is no whole model."""
    try:
        return mixed(environments_of(project.layout, project.params))
    except LmeraserError:
        return None


def resume(options: argparse.Namespace) -> Result:
    from flows.requests.coordinator import run_open

    project = Project.find(options.accept_unknown)
    with workspace(project):
        finished = run_open(project, retry_failed=True)
    lines = [f"{request.request_id}  {request.state}" for request in finished] or ["nothing was open"]
    return {"finished": [summary(project, request) for request in finished]}, lines
