"""`lmeraser serve`: the model server. (`make serve` is another one: Prefect with its workers, which carries requests out.)"""

import argparse
import re

from flows.cli.command import BAD_INPUT, Result

HELP = "serve the model over HTTP until it is told to end (requests are carried out by `make serve`)"
EXIT_CODES = {
    0: "it was told to end (SIGTERM, Ctrl-C), and begun answers were finished",
    1: "the device failed, or the artifacts are of two environments",
    2: f"{BAD_INPUT}: no project, nothing built, a port in use",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EXAMPLES = ["lmeraser serve", "lmeraser serve --host 0.0.0.0 --port 8080 --behind-proxy --rate 50", "lmeraser serve --one-pass"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; no other machine reaches the default")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--name", default="lmeraser", help="of the model, in /v2/models/NAME")
    parser.add_argument(
        "--one-pass",
        action="store_true",
        help="one pass of the network an image: the global head alone where clusters have prompts",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="records in a pass of the network (else embed.batch); fewer answer a lone client sooner",
    )
    parser.add_argument("--max-body", type=int, metavar="BYTES", default=8_000_000, help="of a request")
    parser.add_argument("--max-images", type=int, metavar="N", default=256, help="of a request")
    parser.add_argument("--rate", type=float, metavar="N", default=100.0, help="requests a second and client; 0: as many as come")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        help="show the report page at / (default: where only this machine reaches it)",
    )
    parser.add_argument("--behind-proxy", action="store_true", help="believe a proxy on this machine who the client is")


def _check(options: argparse.Namespace) -> None:
    from lmeraser.core.errors import BadInputError

    if not NAME.fullmatch(options.name):
        raise BadInputError("--name: expected 1 to 64 letters, digits, dots, dashes and underscores")
    if not 0 <= options.port <= 65535:
        raise BadInputError("--port: expected 0 to 65535")
    if options.max_body < 1 or options.max_images < 1 or not 0 <= options.rate < 1e9 or (options.batch or 1) < 1:
        raise BadInputError("--max-body, --max-images and --batch: expected at least 1; --rate: expected at least 0")


def act(options: argparse.Namespace) -> Result:
    _check(options)
    from flows.project import Project

    project = Project.find()  # before torch: a wrong folder is told at once
    from flows.serving.limits import Limits
    from flows.serving.running import Place, run
    from lmeraser.core.sockets import is_loopback
    from lmeraser.serve.live import open_model

    model = open_model(project.layout, options.one_pass, options.batch)
    limits = Limits(options.max_body, options.max_images, options.rate)
    report = is_loopback(options.host) if options.report is None else options.report
    run(model, options.name, limits, Place(options.host, options.port, options.behind_proxy, report))
    return {"served": options.name}, ["serve: ended"]
