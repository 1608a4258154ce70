"""`lmeraser token`: who may come through the door, and to do what."""

import argparse
from datetime import UTC, datetime
from typing import Any

from flows.cli.command import BAD_INPUT, Result
from lmeraser.core.errors import BadInputError

HELP = "tokens for the door: who may send requests, see them, approve them, audit"
EXIT_CODES = {0: "made, listed or revoked", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser token create --name crm --scope submit read", "lmeraser token list", "lmeraser token revoke 0123abcd"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("create", "list", "revoke"))
    parser.add_argument("id", nargs="?", metavar="ID", help="with revoke: of the token, as `list` shows it")
    parser.add_argument("--name", metavar="CLIENT", help="with create: whose it is; several tokens may have one name")
    parser.add_argument("--scope", nargs="+", metavar="SCOPE", help="with create: submit, read, approve, audit")
    parser.add_argument("--days", type=int, default=365, metavar="N", help="with create: until it expires (365)")


def act(options: argparse.Namespace) -> Result:
    from flows.door import tokens
    from flows.door.store import Store
    from flows.project import Project

    store, now = Store(Project.find().layout), datetime.now(UTC)
    if options.action == "create":
        if not options.name or not options.scope or options.id:
            raise BadInputError("`lmeraser token create` takes --name and --scope; give both")
        token_id, token = tokens.create(store, options.name, options.scope, options.days, now)
        lines = [token, f"token {token_id} of {options.name}; it is shown this once: only a hash of it is kept"]
        return {"id": token_id, "token": token, "client": options.name, "scopes": sorted(set(options.scope))}, lines
    if options.action == "revoke":
        if not options.id:
            raise BadInputError("`lmeraser token revoke` takes the token's id; `lmeraser token list` shows the ids")
        client = tokens.revoke(store, options.id, now)
        return {"id": options.id, "client": client}, [f"token {options.id} of {client} is revoked"]
    listed = tokens.listed(store, now) if store.exists else []
    return {"tokens": listed}, [*map(_line, listed)] or ["no token yet; `lmeraser token create` makes one"]


def _line(token: dict[str, Any]) -> str:
    ends = "valid until" if token["valid"] else "ended, until"
    return f"{token['token_id']}  {token['client']:<20} {ends} {token['expires_at'][:10]}  {','.join(token['scopes'])}"
