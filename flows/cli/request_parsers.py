"""The arguments of the commands about requests.

What they do is imported when it is asked for, so that `verify` and `--help` need no database.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any


def later(name: str) -> Callable[[argparse.Namespace], Any]:
    """The command of that name in flows/cli/request_commands.py."""

    def act(options: argparse.Namespace) -> Any:
        return getattr(import_module("flows.cli.request_commands"), name)(options)

    return act


def add_parsers(command: Any) -> None:
    """Args: command: adds a subparser: (name, act, text)."""

    def subjects(added: argparse.ArgumentParser) -> None:
        added.add_argument("--subject", nargs="+", action="extend", metavar="S", help="a person, as the manifest names them")
        added.add_argument("--subjects-from", metavar="FILE", help="one subject a line; - reads standard input")
        added.add_argument("--include-public", action="store_true", help="accept a rebuild if they have public records")

    def accepting(added: argparse.ArgumentParser) -> None:
        text = "certify though a remote holds objects that no version known to git names; the certificate counts them"
        added.add_argument("--accept-unknown", action="store_true", help=text)

    subjects(command("plan", later("plan"), "what erasing people would touch; changes nothing"))
    for name, act, text in (
        ("submit", later("submit"), "accept a request: in the ledger and in effect at once; a server or `resume` carries it out"),
        ("forget", later("forget"), "erase people: quarantine, remove, retrain, verify, purge, certify"),
    ):
        added = command(name, act, text)
        subjects(added)
        added.add_argument("--request-id", metavar="UUID", help="the same id twice has one effect")
        added.add_argument("--event", metavar="FILE", help="an OpenDSR 2.0 request as JSON; - reads standard input")
        if name == "forget":
            accepting(added)
            added.add_argument("--timings", action="store_true", help="print where the time went")
    approving = command("approve", later("approve"), "let a request take effect that waits for approval")
    approving.add_argument("request_id", metavar="UUID")
    approving.add_argument("--by", required=True, metavar="NAME", help="who approves; kept in the ledger")
    ending = command(
        "cancel", later("cancel"), "end a request that nothing was done for yet: one that was set aside, or came by mistake"
    )
    ending.add_argument("request_id", metavar="UUID")
    command("status", later("status"), "requests, their states, and what is late").add_argument(
        "request_id", nargs="?", metavar="UUID"
    )
    accepting(command("resume", later("resume"), "finish what was interrupted or failed"))
