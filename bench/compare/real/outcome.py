"""What is measured of a peer on one stand."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Made = TypeVar("Made")


@dataclass(frozen=True)
class Outcome:
    """Of m test records and k labels.

    Attributes:
        probabilities: (m, k) in the order of labels.
        fit_seconds, deletion_seconds: of processor, on features at hand; a deletion is of one person.
        deletion_passes: images that must pass the network again for it, where no features are kept.
        storage: bytes beside the backbone; passes: of an image through the network for one answer.
        chosen: values that public records chose; equal: whether a deletion gave the bytes of a rebuild, if that was looked at.
    """

    probabilities: NDArray[np.float64]
    labels: list[str]
    fit_seconds: float
    deletion_seconds: float
    deletion_passes: float
    storage: int
    passes: float = 1.0
    chosen: Mapping[str, float] = field(default_factory=dict)
    equal: bool | None = None


def spent(work: Callable[[], Made]) -> tuple[Made, float]:
    """What some work makes, and its processor seconds."""
    start = time.process_time()
    made = work()
    return made, time.process_time() - start
