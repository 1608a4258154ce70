"""`lmeraser keys`: the keys that sign certificates."""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result

HELP = "the keys that sign certificates"
EXIT_CODES = {0: "made, or shown", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser keys init", "lmeraser keys show --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("init", "show"), help="init: make the first key; show: list the public keys")
    parser.add_argument("--replace", action="store_true", help="with init: the key is lost or was seen by others")


def act(options: argparse.Namespace) -> Result:
    from lmeraser.core.errors import BadInputError
    from lmeraser.core.own_code import own_layout
    from lmeraser.prove.keys import signing_key_path

    layout = own_layout()
    private, public = signing_key_path(layout.private_state), layout.public_keys
    if options.action == "init":
        return _init(private, public, options.replace)
    if options.replace:
        raise BadInputError("--replace is an option of `lmeraser keys init` only; leave it out to list the keys")
    return _show(private, public)


def _init(private: Path, public: Path, replace: bool) -> Result:
    from lmeraser.prove.keys import init, load_public

    key = init(private, public, replace)
    return {"key": key, "keys": [known.keyid for known in load_public(public)]}, [
        f"signing key {key}",
        "its public key is in data/certificate-keys.pem: commit it, and tell its id to those who will check certificates",
        "back up the private key: without it the chain goes on only with a signed break",
    ]


def _show(private: Path, public: Path) -> Result:
    from lmeraser.core.errors import ProjectError
    from lmeraser.prove.keys import load_public, load_signer

    ids = [key.keyid for key in load_public(public)]
    try:
        load_signer(private, public)
        problem = None
    except ProjectError as error:
        problem = str(error)
    lines = [f"{keyid}{'  signs now' if keyid == ids[-1] else '  replaced'}" for keyid in ids]
    return {"keys": ids, "can_sign": problem is None, "problem": problem}, [*lines, *([problem] if problem else [])]
