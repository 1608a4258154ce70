"""What people and programs are told of requests. Imported within commands: it imports the ledger's database."""

from datetime import UTC, datetime
from typing import Any

from flows.cli.command import Result
from flows.project import Project
from flows.requests import intake
from flows.requests.proposals import cause_of
from lmeraser.erase.ledger_pauses import APPROVED_BY, EXTENSION
from lmeraser.erase.requests import Request
from lmeraser.erase.states import BLOCKED, CERTIFIED, PROPOSED
from lmeraser.erase.states import status as opendsr_status
from lmeraser.prove.timestamp import timestamp_path


def summary(project: Project, request: Request) -> dict[str, Any]:
    """No pseudonym: who may read the ledger finds it there."""
    planned = intake.plan_of(project, request)
    batch = project.ledger.get_batch(request.batch_id) if request.batch_id else None
    own_plan = planned.to_json() if planned else {}
    shared = batch.outcome.to_json() if batch else own_plan
    now = datetime.now(UTC)
    return {
        "request_id": request.request_id,
        "type": request.type,
        "state": request.state,
        "proposed_for": cause_of(project, request),
        "reached": request.reached,
        "request_status": opendsr_status(request.state),
        "received_at": request.received_at,
        "due_at": request.due_at,
        "late": request.late(now),
        "certificate": request.certificate,
        "records_removed": own_plan.get("records_removed"),
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
        "approved_by": next((text for kind, text in project.ledger.words(request.request_id) if kind == APPROVED_BY), None),
        **_pauses(project, request),
        **_timestamp(project, request),
    }


def _timestamp(project: Project, request: Request) -> dict[str, str]:
    """The file of the certificate's timestamp, once it is there."""
    if not request.certificate:
        return {}
    path = timestamp_path(project.layout.root / request.certificate)
    return {"timestamp": str(path.relative_to(project.layout.root))} if path.exists() else {}


def _pauses(project: Project, request: Request) -> dict[str, Any]:
    """What a request waits for, as long as it does, and why; what its due date was extended for."""
    open_now = request.is_open or request.state == BLOCKED
    grace = datetime.fromtimestamp(request.ready_at, UTC).isoformat(timespec="seconds") if request.ready_at else None
    holds = project.ledger.holds_on(request.request_id, request.pseudonyms) if open_now else []
    return {
        "waits_until": grace if request.in_grace(project.ledger.time()) or request.state == PROPOSED else None,
        "held_until": holds[-1].last_day if holds else None,
        "hold_reason": "; ".join(hold.reason for hold in holds if hold.reason) or None,
        "extension_reason": next((text for kind, text in project.ledger.words(request.request_id) if kind == EXTENSION), None),
    }


def pause_line(summarised: dict[str, Any]) -> str | None:
    """What a request waits for, for people: a hold, the end of its grace, or somebody to accept it."""
    if summarised["state"] == PROPOSED:
        until = f", accepted by itself from {summarised['waits_until']} on" if summarised["waits_until"] else ""
        return f"{summarised['proposed_for']}{until}"
    if summarised["held_until"]:
        return f"on hold until {summarised['held_until']}"
    if summarised["waits_until"]:
        return f"carried out from {summarised['waits_until']} on"
    return None


def grace_line(project: Project, request: Request) -> str:
    """Until when a request that is in effect may be withdrawn."""
    return f"in effect; carried out from {_pauses(project, request)['waits_until']} on, until then `lmeraser withdraw` ends it"


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Args: plan: as `Plan.to_json` gives it."""
    images, corrected = plan.get("images", 0), plan.get("corrected", 0)
    named = [f"{plan['subjects']} subjects"] if plan["subjects"] or not (images or corrected) else []
    named += [f"{images} images"] if images else []
    named += [f"{corrected} old values"] if corrected else []
    lines = [
        f"records removed     {plan['records_removed']} ({plan['train_removed']} training, {plan['test_removed']} test, "
        f"{plan['public_removed']} public) of {' and '.join(named)}, "
        f"parts {', '.join(plan['parts']) or 'none'}",
        f"clusters retrained  {'' if plan['exact'] else 'at most '}{len(plan['slots_retrained'])} of "
        f"{plan['clusters_total']}: {', '.join(plan['slots_retrained']) or 'none'}",
        f"records retrained   {'' if plan['exact'] else 'at most '}{plan['records_retrained']} of {plan['records_total']}",
        f"source              {plan['source']}",
    ]
    if images and plan["owners"]:
        gone = f", {plan['owners_gone']} of whom have no other record" if plan["owners_gone"] else ""
        lines.append(f"images of           {plan['owners']} people who were not named{gone}")
    if images and plan["owners_moved"]:
        lines.append(f"people moved        {plan['owners_moved']} of them stand elsewhere without these images")
    if corrected:
        lines.append(f"records corrected   {corrected}: they stay, with the right value")
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


def scan_lines(project: Project, request: Request) -> list[str]:
    """Which scan found nothing, as the certificate has it."""
    from flows.purge.report import WHICH

    batch = project.ledger.get_batch(request.batch_id) if request.batch_id else None
    return [f"scan                {result}" for check, result in (batch.scan if batch else ()) if check == WHICH]


def timestamp_lines(project: Project, request: Request) -> list[str]:
    """Where the certificate's timestamp lies, or that it is to come; nothing where no authority is named."""
    if project.params.service.timestamp_url is None:
        return []
    path = _timestamp(project, request).get("timestamp")
    return [f"timestamp           {path or 'to come; `lmeraser status` says what it waits for'}"]


def timing_lines(request: Request) -> list[str]:
    """Where the time of a request went: steps, and below each what it spent it on."""
    lines = [f"{'seconds':>9}  step"]
    for name, seconds in request.timings.items():
        step, _, part = name.partition(": ")
        lines.append(f"{seconds:9.2f}  {'    ' + part if part else step}")
    return [*lines, f"{request.seconds:9.2f}  all steps"]


def missing_from_list(project: Project) -> Result:
    """Where the branch's list lacks people whom this machine erased: how many, and what to do; else nothing."""
    from flows.requests.ground import missing_from_branch

    missing = missing_from_branch(project)
    line = (
        f"data/erased.json of this branch lacks {missing} people who were erased here; run `lmeraser build`, which puts them "
        "back and keeps them out"
    )
    return ({"missing_from_list": missing}, [line]) if missing else ({}, [])


def older_ledger(project: Project) -> Result:
    """Where ledger and certificates are of different ages, as after a restore: the line that says so; else nothing."""
    from flows.restore.chain import older_line

    line = older_line(project)
    return ({"restored": line}, [line]) if line else ({}, [])


def outdated_exports(project: Project) -> Result:
    """How many versions of the model were exported before the last erasure, and what to do; else nothing."""
    from flows.release.export import outdated

    versions = outdated(project)
    line = f"{versions} exported versions are from before the last erasure: their holders must replace them (`lmeraser export`)"
    return ({"outdated_exports": versions}, [line]) if versions else ({}, [])
