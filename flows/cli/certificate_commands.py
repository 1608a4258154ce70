"""The commands `lmeraser verify` and `lmeraser keys`. They import neither the engine nor anything of learning."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.own_code import require_own_code

Result = tuple[dict[str, Any], list[str]]
PROJECT_VARIABLE = "LMERASER_PROJECT"  # as in flows/project.py, which imports the ledger's database


def verify(options: argparse.Namespace) -> Result:
    """Check certificates. Raises: CertificateError (exit status 1); BadInputError if a file cannot be read (2)."""
    from lmeraser.prove.home import Home, check_head_file
    from lmeraser.prove.keys import load_public
    from lmeraser.prove.verify import openssl_way, parse_head, shown, verify_files

    for place, path in enumerate(options.certificate, start=1):
        if not path.is_file():
            where = shown(path, place, len(options.certificate))
            raise BadInputError(f"{where}: there is no such file; name a file of certificates/")
    head = parse_head(options.head) if options.head is not None else None
    home = Home.of(options.certificate) if options.key is None else None
    path = home.keys if home else options.key
    called = "data/certificate-keys.pem beside the certificates" if home else "the file that --key names"
    verdict = verify_files(options.certificate, load_public(path), head, home.project() if home else None)
    for folder in sorted({one.resolve().parent for one in options.certificate}):
        inside = [
            one for one, file in zip(verdict.certificates, options.certificate, strict=True) if file.resolve().parent == folder
        ]
        check_head_file(folder, inside, at_home=home is not None)
    told = {
        "valid": True,
        "certificates": [
            {
                "file": one.file,
                "format": one.version,
                "project": one.project,
                "request_id": one.request_id,
                "sequence": one.sequence,
                "sha256": one.digest,
                "key_id": one.key_id,
                "completed_at": one.completed_at,
                "key_changed": one.break_from is not None,
            }
            for one in verdict.certificates
        ],
        "chain": verdict.chain,
        "anchored": verdict.anchored,
        "keys": list(verdict.keys),
        "keys_from": called,
        "limits": verdict.limits,
    }
    last = verdict.certificates[-1]
    lines = [
        f"valid: certificate {one.sequence}, request {one.request_id}, completed {one.completed_at}, key {one.key_id[:16]}"
        f"{f', format {one.version}: it does not say of which project and state' if one.project is None else ''}"
        f"{', signed break: the key was replaced' if one.break_from else ''}"
        for one in verdict.certificates
    ]
    lines.append(f"keys: {', '.join(verdict.keys)} from {called}")
    if options.key is None:
        lines.append("whoever can write here can exchange keys too: compare their ids with what the issuer told you elsewhere")
    lines.append("chain: whole from the first on" if verdict.chain else f"chain: from {verdict.certificates[0].sequence} on only")
    lines.append(
        "anchored: the last one is the head that you gave"
        if verdict.anchored
        else f"not anchored: later ones could be missing; check with --head {last.sequence}:SHA256 kept elsewhere"
    )
    if options.openssl:
        for file, one in zip(options.certificate, verdict.certificates, strict=True):
            lines += openssl_way(file, path, verdict.keys.index(one.key_id) + 1)
    return told, [*lines, "what this does not show:", *(f"- {text}" for text in verdict.limits)]


def _layout() -> Layout:
    return Layout.find(Path(os.environ.get(PROJECT_VARIABLE) or Path.cwd()))


def keys(options: argparse.Namespace) -> Result:
    """Make or list the keys that sign certificates."""
    from lmeraser.prove.keys import init, load_public, load_signer, signing_key_path

    layout = _layout()
    require_own_code(layout.root)
    private, public = signing_key_path(layout.private_state), layout.public_keys
    if options.action == "init":
        made = init(private, public, options.replace)
        listed = [key.keyid for key in load_public(public)]
        lines = [
            f"signing key {made}",
            "its public key is in data/certificate-keys.pem: commit it, and tell its id to those who will check certificates",
            "back up the private key: without it the chain goes on only with a signed break",
        ]
        return {"key": made, "keys": listed}, lines
    if options.replace:
        raise BadInputError("--replace belongs to `lmeraser keys init`")
    listed = [key.keyid for key in load_public(public)]
    try:
        load_signer(private, public)
        problem = None
    except ProjectError as error:
        problem = str(error)
    lines = [f"{one}{'  signs now' if one == listed[-1] else '  replaced'}" for one in listed]
    return {"keys": listed, "can_sign": problem is None, "problem": problem}, [*lines, *([problem] if problem else [])]


def add_parsers(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Args: command: adds a subparser: (name, act, text)."""
    checking = command("verify", verify, "check certificates offline: signature, content, chain")
    checking.add_argument("certificate", nargs="+", type=Path, metavar="CERTIFICATE", help="in the order of their numbers")
    checking.add_argument("--key", type=Path, metavar="PUBLIC.pem", help="the issuer's public keys, oldest first")
    checking.add_argument("--head", metavar="SEQ:SHA256|FILE", help="the last certificate as you know it: nothing is cut off")
    checking.add_argument("--openssl", action="store_true", help="also print shell lines that check the signature with OpenSSL")
    managing = command("keys", keys, "the keys that sign certificates")
    managing.add_argument("action", choices=("init", "show"), help="init: make the first key; show: list the public keys")
    managing.add_argument("--replace", action="store_true", help="with init: the key is lost or was seen by others")
