"""The model behind the routes: its name, its version, who computes."""

from dataclasses import dataclass
from typing import Any

from flows.serving.limits import Limits
from flows.serving.metrics import Metrics
from flows.serving.pool import Pool
from flows.serving.replies import RefusedError
from lmeraser.serve.live import LiveModel, Prediction
from lmeraser.serve.loading import LeftOut, Loaded


def left_out(gone: LeftOut) -> dict[str, Any]:
    """As it stands in answers: slots and counts, never people."""
    return {"clusters": list(gone.clusters), "global_head": gone.global_head, "by_one_pass": gone.by_one_pass}


@dataclass
class Server:
    """What every route of inference needs."""

    model: LiveModel
    name: str
    limits: Limits
    pool: Pool
    metrics: Metrics

    def check_name(self, name: str) -> None:
        """Raises: RefusedError for another model's name; it is not repeated."""
        if name != self.name:
            raise RefusedError(404, f"no model of this name is served; the one that is served is {self.name}")

    def check_version(self, asked: str | None, present: str) -> None:
        if asked is not None and asked != present:
            raise RefusedError(404, f"this version is not served (any more); the present one is {present}")

    def present(self, name: str, version: str | None) -> Loaded:
        """The model as it stands. Raises: RefusedError if it is another one, or if nothing may answer."""
        self.check_name(name)
        loaded = self.model.present()
        if loaded is None:
            raise RefusedError(503, self.model.failure)
        self.check_version(version, loaded.version)
        return loaded

    def predict(self, images: Any, version: str | None = None) -> Prediction:
        """Answer by the version that was asked for, or not at all. In a thread of the pool.

        Raises: RefusedError for another version; LmeraserError as `LiveModel.predict`.
        """
        self.check_version(version, self.model.current().version)
        prediction = self.model.predict(images)
        self.check_version(version, prediction.parts.model_version)  # it may have changed meanwhile
        self.metrics.answered(prediction)
        return prediction
