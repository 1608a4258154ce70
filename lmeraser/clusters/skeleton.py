"""The skeleton: all that public features decide once and for ever: scales, hierarchy, and the global head's projection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.discriminant import Chosen, choose
from lmeraser.clusters.hierarchy import Hierarchy, grow
from lmeraser.clusters.principal import AXIS_STEPS, principal_axes, project
from lmeraser.clusters.quantisation import STEPS, Integers, mean_by_group, quantise, round_cosines, squared_distances
from lmeraser.core.digest import seed_for
from lmeraser.core.environment import Environment
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_tensors, write_tensors

PROJECTION_STEPS = 2.0**16  # steps per unit of a projection's entry
SPAN = 8  # deviations, or units if they are more, that the levels of a plain summand reach over
BLOCK = (
    4096  # records whose features are in memory as wide as the network gives them; a projection is exact, so it decides no bit
)
CACHED = 64  # rows of summands that the processor's cache holds; each is rounded alone, so it decides no bit
NOTHING = Chosen(0.0, 0.0, 1.0)  # of a head that is no discriminant
PAIRS = 1000  # public records, first by id, among which the median distance is taken


@dataclass(frozen=True)
class Skeleton:
    """Permanent statistics of the public records (w features of the network, d after the projection, p summands).

    Attributes:
        mean, scale: (w,) float32; a feature is standardised by them, and every depth weighs the same.
        axes: (w, d) whole numbers, the public principal axes; (w, 0) where there is no projection, and d is w.
        projection, offset: of random Fourier features, (d, p) whole numbers and (p,) float64 in [0, 2 pi); else empty.
        step: (p,) whole numbers, how many quantisation steps one level of a plain summand stands for; else empty.
        last_weight: by which the network's own row is multiplied, so that each depth weighs the same.
        chosen: of a discriminant head, as the params say or chosen on public records.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    hierarchy: Hierarchy
    axes: Integers
    projection: Integers
    offset: NDArray[np.float64]
    step: Integers
    last_weight: float = 1.0
    chosen: Chosen = NOTHING

    @property
    def dim(self) -> int:
        """Features that routing and cluster heads stand on."""
        return self.axes.shape[1] or len(self.mean)

    @cached_property
    def float_axes(self) -> NDArray[np.float32]:
        """The axes for features that are no whole numbers."""
        return (self.axes / AXIS_STEPS).astype(np.float32)

    @property
    def summands(self) -> int:
        """Features that the global head sums."""
        return len(self.step) or self.projection.shape[1]

    def standardise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, w) float32 features as the backbone gives them, to (n, d)."""
        scaled: NDArray[np.float32] = (features - self.mean) / self.scale
        return scaled @ self.float_axes if self.axes.shape[1] else scaled

    def standardise_last(self, features: NDArray[np.float32], width: int) -> NDArray[np.float32]:
        """The network's own row alone, (n, w) to (n, width): what a head over the last layer stands on."""
        last = slice(len(self.mean) - width, None)
        scaled: NDArray[np.float32] = (features[:, last] - self.mean[last]) / (self.scale[last] * self.last_weight)
        return scaled

    def quantise(self, features: NDArray[np.float32]) -> Integers:
        """(n, w) float32 features as the backbone gives them, to (n, d) whole numbers."""
        if not self.axes.shape[1]:
            return quantise((features - self.mean) / self.scale)
        blocks = (features[start : start + BLOCK] for start in range(0, max(len(features), 1), BLOCK))
        return np.concatenate([project(quantise((block - self.mean) / self.scale), self.axes) for block in blocks])

    def summand(self, quantised: Integers, levels: int) -> Integers:
        """What the global head sums of each record: whole numbers in [-levels, levels].

        Args: quantised: (n, d) whole numbers. Returns: (n, p): the features themselves, or random Fourier features of them
        (Rahimi and Recht 2007, NIPS).
        """
        if len(self.step):
            plain: Integers = np.clip(np.rint(quantised / self.step), -levels, levels)
            return plain
        angle = quantised @ self.projection  # exact: whole numbers
        for start in range(0, len(angle), CACHED):  # in place: thousands of wide rows are gigabytes
            rows = angle[start : start + CACHED]
            rows /= STEPS * PROJECTION_STEPS
            rows += self.offset
            round_cosines(rows, levels)
        return angle

    @property
    def unit(self) -> NDArray[np.float64]:
        """(p,) a summand's level in units of a standardised feature; of Fourier features 1."""
        return self.step / STEPS if len(self.step) else np.ones(self.summands)


@dataclass(frozen=True)
class PublicFeatures:
    """What the skeleton is made of (n public training records, sorted by id).

    Attributes:
        rows: (n, w) float32 as the backbone gives them; widths: of each depth, adding up to w.
        unit: (n,) which subject or record each belongs to, in [0, number of units); labels, people: (n,).
    """

    rows: NDArray[np.float32]
    widths: tuple[int, ...]
    unit: NDArray[np.int64]
    labels: Sequence[str]
    people: Sequence[str]


def _scales(public: PublicFeatures, floor_share: float) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Mean and scale of each feature, so that each depth has the same share of the variance; the last depth's weight."""
    mean = public.rows.astype(np.float64).mean(0)
    scale = public.rows.astype(np.float64).std(0)
    # A feature that is dead on public images can wake up under a frame: without a floor, training diverges.
    start, weight = 0, 1.0
    for width in public.widths:
        depth = slice(start, start + width)
        floor = floor_share * scale[depth].mean()
        scale[depth] = np.maximum(scale[depth], floor if floor > 0 else 1.0)
        weight = math.sqrt(len(scale) / (len(public.widths) * width))
        scale[depth] /= weight
        start += width
    return mean.astype(np.float32), scale.astype(np.float32), weight


def _fourier(quantised: Integers, params: Params) -> tuple[Integers, NDArray[np.float64]]:
    """Projection and offset of the random Fourier features."""
    generator = np.random.Generator(np.random.PCG64(seed_for(params.seed, "projection")))
    gap = np.sqrt(squared_distances(quantised[:PAIRS], quantised[:PAIRS]))
    width = params.projection.bandwidth * float(np.median(gap)) / STEPS
    if not width > 0:
        width = params.projection.bandwidth  # all public records are alike
    normal = generator.standard_normal((quantised.shape[1], params.projection.dim))
    return np.rint(normal / width * PROJECTION_STEPS), generator.uniform(0, 2 * np.pi, params.projection.dim)


def _steps(quantised: Integers, levels: int) -> Integers:
    """Quantisation steps of a plain summand's level: all levels reach over SPAN deviations of public records, or SPAN units."""
    deviation = np.maximum(quantised.std(0) / STEPS, 1.0)
    steps: Integers = np.maximum(np.rint(SPAN * STEPS / levels * deviation), 1.0)
    return steps


def build_skeleton(public: PublicFeatures, params: Params) -> Skeleton:
    """Make the skeleton of public features.

    Raises: ParamsError if more leaves are asked for than there are units.
    """
    n_units = int(public.unit.max()) + 1
    if n_units < params.skeleton.leaves:
        raise ParamsError(
            f"params.yaml: skeleton.leaves is {params.skeleton.leaves}, but there are {n_units} public units; "
            "lower it, or add public records"
        )
    mean, scale, last_weight = _scales(public, params.skeleton.scale_floor)
    quantised = quantise((public.rows - mean) / scale)
    axes = np.zeros((len(mean), 0))
    if params.features.dim and params.features.dim < len(mean):
        axes = principal_axes(quantised, params.features.dim)
        quantised = project(quantised, axes) if axes.shape[1] else quantised
    tree = grow(mean_by_group(quantised, public.unit, n_units), params.skeleton.leaves)
    dim = quantised.shape[1]
    nothing = np.zeros((dim, 0)), np.zeros(0)
    plain = params.projection.kind == "plain"
    projection, offset = nothing if plain else _fourier(quantised, params)
    step = _steps(quantised, params.projection.levels) if plain else np.zeros(0)
    skeleton = Skeleton(mean, scale, tree, axes, projection, offset, step, last_weight)
    if params.head.kind != "discriminant":
        return skeleton
    summands = skeleton.summand(quantised, params.projection.levels) * skeleton.unit
    return replace(skeleton, chosen=choose(summands, public.labels, public.people, params.head))


TREE = tuple(field.name for field in fields(Hierarchy))
ARRAYS = ("mean", "scale", "axes", "projection", "offset", "step")


def save_skeleton(path: Path, skeleton: Skeleton, made_in: Environment) -> None:
    tensors = {f"tree.{name}": getattr(skeleton.hierarchy, name) for name in TREE}
    tensors |= {name: getattr(skeleton, name) for name in ARRAYS}
    note = {"environment": made_in, "last_weight": skeleton.last_weight} | skeleton.chosen._asdict()
    write_tensors(path, tensors, note)


def load_hierarchy(path: Path) -> Hierarchy:
    """The hierarchy alone, which every release has written: a plan may be made on what an older one left."""
    return _tree_of(read_tensors(path)[0])


def _tree_of(tensors: dict[str, NDArray[Any]]) -> Hierarchy:
    return Hierarchy(**{name: tensors[f"tree.{name}"] for name in TREE})


def load_skeleton(path: Path) -> Skeleton:
    tensors, note = read_tensors(path)
    tree = _tree_of(tensors)
    chosen = Chosen._make(note[name] for name in Chosen._fields)
    made: dict[str, Any] = {name: tensors[name] for name in ARRAYS}
    return Skeleton(hierarchy=tree, last_weight=note["last_weight"], chosen=chosen, **made)
