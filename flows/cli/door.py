"""`lmeraser door`: requests by HTTP, as OpenDSR 2.0 has them; callbacks and hooks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.command import BAD_INPUT, Result
from lmeraser.core.errors import BadInputError
from lmeraser.core.sockets import bound, is_loopback

if TYPE_CHECKING:
    from flows.door.signing import Signer
    from flows.project import Project

HELP = "take requests by HTTP (OpenDSR 2.0), with tokens; send callbacks and hooks; until Ctrl-C"
EXIT_CODES = {0: "ended by Ctrl-C or SIGTERM", 1: "a check or a step failed", 2: BAD_INPUT}
BACKLOG = 128  # clients that wait before they are let in
EXAMPLES = ["lmeraser door", "lmeraser door --host 0.0.0.0 --tls-certificate cert.pem --tls-key key.pem"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8090, help="0: any that is free")
    parser.add_argument("--url", metavar="URL", help="the door's address as clients reach it; its host is the protocol's domain")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM; with --tls-key: https without a proxy")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy of this machine does TLS; its headers are believed")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM; signs answers instead of the project's key")
    parser.add_argument("--certificate-key", type=Path, metavar="FILE", help="the key of --certificate, mode 0600")
    parser.add_argument("--allow-http-callbacks", action="store_true", help="for tests only: callbacks to any address, also http")


def act(options: argparse.Namespace) -> Result:
    from flows.door import asgi, signing
    from flows.door.guard import Door
    from flows.project import Project

    _check(options)
    tls = _tls(options)
    project = Project.find()
    project.ledger.head()  # a damaged one is told now
    listening = bound(options.host, options.port)
    listening.listen(BACKLOG)  # from the line on that says where, whoever comes waits
    port = listening.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    here = f"{'https' if options.tls_key else 'http'}://{host}:{port}"
    base_url = signing.check_url(options.url or here)
    door = Door(project, _signer(project, base_url, options), open_http=options.allow_http_callbacks)
    _say(here, base_url, options.allow_http_callbacks)
    asgi.run(asgi.make_door(project, door), listening, tls, options.behind_proxy)
    return {"url": base_url}, ["the door is closed"]


def _check(options: argparse.Namespace) -> None:
    """Raise BadInputError for options that do not belong together, and before tokens would cross a network in clear."""
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise BadInputError("--tls-certificate and --tls-key belong together; give both, or none behind a proxy")
    if bool(options.certificate) != bool(options.certificate_key):
        raise BadInputError("--certificate and --certificate-key belong together; give both, or none to use the project's key")
    if not 0 <= options.port <= 65535:
        raise BadInputError(f"--port is {options.port}, expected 0 to 65535")
    if not (is_loopback(options.host) or options.tls_key or options.behind_proxy):
        raise BadInputError(
            "--host is not this machine alone, and tokens would cross the network in clear; give --tls-certificate and "
            "--tls-key, or --behind-proxy if a proxy before it does TLS"
        )


def _tls(options: argparse.Namespace) -> tuple[Path, Path] | None:
    """The certificate and key of https, if they are a pair. Raises: BadInputError."""
    import ssl

    if options.tls_key is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_certificate, options.tls_key, password=lambda: "")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise BadInputError(
            "--tls-certificate and --tls-key cannot be used; expected PEM files of one pair, the key without a password"
        ) from error
    return options.tls_certificate, options.tls_key


def _signer(project: "Project", base_url: str, options: argparse.Namespace) -> "Signer":
    from datetime import UTC, datetime

    from flows.door import signing

    if options.certificate:
        return signing.named_signer(base_url, options.certificate, options.certificate_key, datetime.now(UTC))
    return signing.own_signer(project.layout, base_url)


def _say(here: str, base_url: str, open_http: bool) -> None:
    from lmeraser.core.progress import say

    say(f"open          {here}" + ("" if here == base_url else f"   (as {base_url})"))
    say("tokens        lmeraser token create --name CLIENT --scope submit read")
    if open_http:
        say("callbacks     TO ANY ADDRESS, ALSO HTTP: for tests only")
    say("end           Ctrl-C")
