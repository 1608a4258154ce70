"""What Prometheus is told (/metrics), and one line of JSON a request: counts and times, never content, names or addresses."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from lmeraser.serve.live import LiveModel, Prediction

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def log(event: str, **facts: Any) -> None:
    """One line of JSON on standard error. Args: facts: numbers, names of ours; nothing that a client sent."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | facts
    print(json.dumps(line, separators=(",", ":")), file=sys.stderr, flush=True)


class _Model(Collector):
    """The model as it stands when somebody asks."""

    def __init__(self, model: LiveModel) -> None:
        self._model = model

    def collect(self) -> Iterable[Metric]:
        loaded = self._model.present()
        yield GaugeMetricFamily("lmeraser_ready", "1 if a model may answer", value=float(loaded is not None))
        if loaded is None:
            return
        gone = loaded.left_out
        yield InfoMetricFamily("lmeraser_model", "The version that answers", value={"version": loaded.version})
        yield GaugeMetricFamily("lmeraser_clusters", "Clusters that answer", value=len(loaded.model.clusters))
        yield GaugeMetricFamily("lmeraser_left_out_clusters", "Clusters in quarantine", value=len(gone.clusters))
        withheld = float(gone.global_head == "withheld")
        yield GaugeMetricFamily("lmeraser_global_head_withheld", "1 until it is solved without people who left", value=withheld)


class Metrics:
    """The numbers of one server."""

    def __init__(self, model: LiveModel) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("lmeraser_requests", "Requests by route and status", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "lmeraser_request_seconds", "Seconds of a request, by route", ["route"], registry=self.registry, buckets=SECONDS
        )
        self.images = Counter("lmeraser_images", "Images that were answered", registry=self.registry)
        self.registry.register(_Model(model))

    def answered(self, prediction: Prediction) -> None:
        self.images.inc(len(prediction.labels))

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


def make_router(metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics")
    async def numbers() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT)

    return router
