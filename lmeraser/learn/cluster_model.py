"""A cluster's prompt and head, and the file that holds them. How they are tuned is `learn/tuning.py`'s."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.errors import BadInputError
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_tensors, write_tensors
from lmeraser.learn.environment import network_environment
from lmeraser.learn.precision import resolve


@dataclass(frozen=True)
class ClusterModel:
    """A cluster's prompt and head (k labels, d features).

    Attributes:
        frame: (c, s, s) float32, zero but for the border; added to the normalised image.
        weight: (k, d), bias: (k,) float32, over standardised features.
        labels: the k labels of the cluster's own records, sorted; the head knows no others.
    """

    frame: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    labels: list[str]


def save_cluster_model(path: Path, model: ClusterModel, params: Params) -> None:
    precision = resolve(params.tune.precision, params.device)
    made_in = network_environment(params.device)
    note = {"state": "tuned", "labels": model.labels, "precision": precision, "environment": made_in}
    write_tensors(path, {"frame": model.frame, "weight": model.weight, "bias": model.bias}, note)


def load_cluster_model(path: Path) -> ClusterModel | None:
    """None where clusters are not tuned (`tune.kind` closed or none).

    Raises: ProjectError if the file is absent or broken; BadInputError if it is an empty slot's.
    """
    tensors, note = read_tensors(path)
    if note["state"] in ("closed", "none"):
        return None
    if note["state"] != "tuned":
        raise BadInputError(f"{path.name} is an empty slot; run `dvc repro` and retry")
    return ClusterModel(tensors["frame"], tensors["weight"], tensors["bias"], note["labels"])
