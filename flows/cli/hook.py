"""`lmeraser hook`: a command or a webhook that is told what happens to requests; with ids and certificates, never names."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from flows.project import Project

HELP = "commands and webhooks that are told: received, in effect, certified, late soon, late, failed"
EXIT_CODES = {0: "done", 1: "a check or a step failed: a hook that was tested did not take it", 2: BAD_INPUT}
EXAMPLES = ['lmeraser hook add --command "logger -t erasures" --on certified,failed', "lmeraser hook list"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list", "remove", "test", "send"), help="send: tell now what waits to be told")
    parser.add_argument("id", nargs="?", metavar="ID", help="with remove and test: of the hook")
    parser.add_argument(
        "--command", metavar="COMMAND", dest="words", help="a program with its arguments; it gets JSON on standard input"
    )
    parser.add_argument("--url", metavar="URL", help="a webhook; it gets the same JSON as a signed POST")
    parser.add_argument("--on", metavar="EVENT,…", help="received,in_effect,certified,late_soon,late,failed")
    parser.add_argument("--days-before", type=int, default=7, metavar="N", help="how long before the due date late_soon is (7)")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project

    project = Project.find()
    if options.action in ("remove", "test") and not options.id:
        raise BadInputError(f"`lmeraser hook {options.action}` takes the hook's id; `lmeraser hook list` shows the ids")
    acts = {"add": _add, "list": _list, "remove": _remove, "test": _test, "send": _send}
    return acts[options.action](project, options)


def _add(project: "Project", options: argparse.Namespace) -> Result:
    from flows.door import hooks
    from flows.door.store import Store

    if not options.on:
        raise BadInputError(
            "`lmeraser hook add` takes --on with events; expected some of received,in_effect,certified,late_soon,late,failed"
        )
    hook, secret = hooks.add(project, Store(project.layout), options.words, options.url, options.on, options.days_before)
    lines = [f"hook {hook} is told from now on, while `make serve` or `lmeraser door` runs, or by `lmeraser hook send`"]
    if secret:
        lines.append(f"secret  {secret}   (shown this once; the webhook checks signatures with it)")
    return {"id": hook} | ({"secret": secret} if secret else {}), lines


def _list(project: "Project", _: argparse.Namespace) -> Result:
    from flows.door import outbox
    from flows.door.store import Store

    store = Store(project.layout)
    shown = [_shown(row) for row in outbox.subscriptions(store)] if store.exists else []
    lines = []
    for hook in shown:
        told = f"{hook['id']}  {hook['kind']:<9} {','.join(hook['on']) or hook['request_id']}  {hook['target']}"
        lines.append(told + (f"  {hook['waiting']} wait" if hook["waiting"] else ""))
        lines += [
            f"          {hook['given_up']} were given up" if hook["given_up"] else "",
            f"          {hook['problem'] or ''}".rstrip(),
        ]
    return {"hooks": shown}, [line for line in lines if line] or ["no hook yet; `lmeraser hook add` makes one"]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Without secrets, and without addresses of clients."""
    from flows.door.outbox import COMMAND, WEBHOOK

    target = " ".join(json.loads(row["target"])) if row["kind"] == COMMAND else row["target"] if row["kind"] == WEBHOOK else "…"
    return {
        "id": row["subscription_id"],
        "kind": row["kind"],
        "target": target,
        "on": row["events"],
        "request_id": row["request_id"],
        "waiting": row["waiting"],
        "given_up": row["given_up"],
        "problem": row["problem"],
    }


def _remove(project: "Project", options: argparse.Namespace) -> Result:
    from flows.door import outbox
    from flows.door.store import Store

    if not outbox.remove(Store(project.layout), options.id):
        raise BadInputError("no hook has this id; `lmeraser hook list` shows the ids")
    return {"id": options.id}, [f"hook {options.id} is removed, and what waited for it"]


def _test(project: "Project", options: argparse.Namespace) -> Result:
    from flows.door import hooks
    from flows.door.store import Store

    hooks.test(project, Store(project.layout), options.id)
    return {"id": options.id}, [f"hook {options.id} took it"]


def _send(project: "Project", _: argparse.Namespace) -> Result:
    import asyncio

    from flows.door import outbox
    from flows.door.courier import Courier
    from flows.door.store import Store

    count = asyncio.run(Courier(project).round())
    store = Store(project.layout)
    waiting, given_up = outbox.outlook(store) if store.exists else (0, 0)
    lines = [f"{count} told"] + ([f"{waiting} wait for another try; `lmeraser hook list` shows why"] if waiting else [])
    return {"told": count, "waiting": waiting, "given_up": given_up}, lines
