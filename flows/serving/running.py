"""The model server as a process: a socket, uvicorn, and an end that lets answers finish (`lmeraser serve`)."""

import asyncio
import signal
import sys
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from flows.serving import inference, metrics, page, predict
from flows.serving.app import make_app
from flows.serving.asking import Server
from flows.serving.limits import Limits
from flows.serving.metrics import Metrics, log
from flows.serving.pool import Pool
from lmeraser.core.errors import LmeraserError, NotReadyError
from lmeraser.core.progress import say
from lmeraser.core.sockets import bound
from lmeraser.serve.live import LiveModel

ENDING_S = 30  # s that answers have to finish once the server is told to end
CONNECTIONS = 512  # at once; each may hold a body
SWITCH_S = 0.001  # s after which a computing thread lets the server's own go on; Python's default is five times that


@dataclass(frozen=True)
class Place:
    """Where it listens. Attributes: behind_proxy: whether a proxy on this machine names the client; report: whether the report
    page is shown there."""

    host: str
    port: int
    behind_proxy: bool
    report: bool = False


def application(model: LiveModel, name: str, limits: Limits, report: bool = False) -> tuple[ASGIApp, Pool]:
    """The model's routes, and the threads that compute their answers. Args: report: also the report page."""
    numbers, pool = Metrics(model), Pool()
    server = Server(model, name, limits, pool, numbers)
    routers = [inference.make_router(server), predict.make_router(server), metrics.make_router(numbers)]
    if report:
        routers.append(page.make_router(model.watch.layout))
    return make_app(routers, limits, numbers), pool


def begin(model: LiveModel) -> None:
    """Read the model. Raises: LmeraserError if nothing may answer; while requests are open that passes, so it is only told."""
    try:
        model.current()
    except NotReadyError as error:
        if not model.quarantined():
            raise error.__cause__ if isinstance(error.__cause__, LmeraserError) else error from None
        say(f"serve: not ready: {error}")
    model.follow()


def run(model: LiveModel, name: str, limits: Limits, place: Place) -> None:
    """Serve until SIGTERM or Ctrl-C; answers that were begun are finished."""
    with bound(place.host, place.port) as listening, model:
        begin(model)
        app, pool = application(model, name, limits, place.report)
        sys.setswitchinterval(SWITCH_S)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again at its end
            signal.signal(number, lambda *_: None)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(
            f"serve: model {name} on http://{shown}:{port} (POST /predict, /v2/models/{name}/infer; GET /metrics); Ctrl-C ends it"
        )
        loaded = model.present()
        log("begin", port=port, model_version=loaded.version if loaded else None)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=place.behind_proxy,
            forwarded_allow_ips="127.0.0.1",
            timeout_graceful_shutdown=ENDING_S,
            limit_concurrency=CONNECTIONS,
        )
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))
        pool.close()
        log("end")
