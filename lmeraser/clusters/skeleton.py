"""The skeleton: all that public features decide once and for ever: scales, hierarchy, and the global head's projection."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.hierarchy import Hierarchy, grow
from lmeraser.clusters.quantisation import STEPS, Integers, mean_by_group, quantise, squared_distances
from lmeraser.core.digest import seed_for
from lmeraser.core.environment import Environment
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_tensors, write_tensors

PROJECTION_STEPS = 2.0**16  # steps per unit of a projection's entry
PAIRS = 1000  # public records, first by id, among which the median distance is taken


@dataclass(frozen=True)
class Skeleton:
    """Permanent statistics of the public records (d features, p random Fourier features).

    Attributes:
        mean, scale: (d,) float32; a feature is standardised by them.
        projection: (d, p) whole numbers; offset: (p,) float64 in [0, 2 pi).
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    hierarchy: Hierarchy
    projection: Integers
    offset: NDArray[np.float64]

    def standardise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = (features - self.mean) / self.scale
        return scaled

    def quantise(self, features: NDArray[np.float32]) -> Integers:
        """(n, d) float32 features as the backbone gives them, to whole numbers."""
        return quantise(self.standardise(features))

    def fourier(self, quantised: Integers, levels: int) -> Integers:
        """Random Fourier features rounded to whole numbers in [-levels, levels] (Rahimi and Recht 2007, NIPS).

        Args: quantised: (n, d) whole numbers. Returns: (n, p).
        """
        angle = quantised @ self.projection  # exact: whole numbers
        rounded: Integers = np.rint(np.cos(angle / (STEPS * PROJECTION_STEPS) + self.offset) * levels)
        return rounded


def build_skeleton(features: NDArray[np.float32], unit: NDArray[np.int64], params: Params) -> Skeleton:
    """Make the skeleton of public features.

    Args:
        features: (n, d) float32 of the public training records, sorted by record id.
        unit: (n,) which subject (or record) each belongs to, in [0, number of units).
    Raises: ParamsError if more leaves are asked for than there are units.
    """
    n_units = int(unit.max()) + 1
    if n_units < params.skeleton.leaves:
        raise ParamsError(
            f"params.yaml: skeleton.leaves is {params.skeleton.leaves}, but there are {n_units} public units; "
            "lower it, or add public records"
        )
    mean = features.astype(np.float64).mean(0)
    scale = features.astype(np.float64).std(0)
    # A feature that is dead on public images can wake up under a frame: without a floor, training diverges.
    floor = params.skeleton.scale_floor * scale.mean()
    scale = np.maximum(scale, floor if floor > 0 else 1.0)
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    quantised = quantise((features - mean) / scale)
    tree = grow(mean_by_group(quantised, unit, n_units), params.skeleton.leaves)
    generator = np.random.Generator(np.random.PCG64(seed_for(params.seed, "projection")))
    gap = np.sqrt(squared_distances(quantised[:PAIRS], quantised[:PAIRS]))
    width = params.projection.bandwidth * float(np.median(gap)) / STEPS
    if not width > 0:
        width = params.projection.bandwidth  # all public records are alike
    normal = generator.standard_normal((features.shape[1], params.projection.dim))
    return Skeleton(
        mean=mean,
        scale=scale,
        hierarchy=tree,
        projection=np.rint(normal / width * PROJECTION_STEPS),
        offset=generator.uniform(0, 2 * np.pi, params.projection.dim),
    )


TREE = tuple(field.name for field in fields(Hierarchy))


def save_skeleton(path: Path, skeleton: Skeleton, made_in: Environment) -> None:
    tensors = {f"tree.{name}": getattr(skeleton.hierarchy, name) for name in TREE}
    tensors |= {name: getattr(skeleton, name) for name in ("mean", "scale", "projection", "offset")}
    write_tensors(path, tensors, {"environment": made_in})


def load_skeleton(path: Path) -> Skeleton:
    tensors, _ = read_tensors(path)
    tree = Hierarchy(**{name: tensors[f"tree.{name}"] for name in TREE})
    return Skeleton(tensors["mean"], tensors["scale"], tree, tensors["projection"], tensors["offset"])
