"""Embed: one private part becomes each unit's leaf and the part's exact sums. Features are never stored."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.global_head import Sums, pack, total
from lmeraser.clusters.hierarchy import Hierarchy
from lmeraser.clusters.leaf_sums import LeafSums, combine
from lmeraser.clusters.quantisation import Integers, mean_by_group
from lmeraser.clusters.skeleton import Skeleton
from lmeraser.core.digest import number_from
from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Params
from lmeraser.data.records import Record
from lmeraser.data.units import group_units
from lmeraser.learn.backbone import Backbone

INT32_MAX = 2**31 - 1
BLOCK = 8192  # records whose summands are in memory at once; their sums are exact, so it decides no bit


@dataclass(frozen=True)
class PartEmbedding:
    """What is kept of a part's private training records (n records).

    Attributes:
        units: (n,) the unit (subject or record) of each record; leaf: (n,) its unit's public leaf.
        finite: (n,) whether the backbone gave numbers; the gate stops the pipeline if not.
        sums: of what the global head sums.
    """

    units: list[str]
    leaf: NDArray[np.int64]
    finite: NDArray[np.bool_]
    sums: Sums


def exact_sums(summands: Integers, labels: Sequence[str]) -> Sums:
    """Gram matrix, sums by label and counts of whole numbers: exact, so independent of order and of BLAS.

    Raises: ParamsError if a part is too large for int32.
    """
    return exact_sums_of_blocks([summands], labels, summands.shape[1])


def added(sums: Sequence[Sums]) -> Sums:
    """A part's sums from those of some of its records each: the same bits as all of them at once.

    Raises: ParamsError if it is too large for int32, and only then: no sum on the way is larger than the largest in the end
    (Cauchy and Schwarz; a whole number is no larger than its square).
    """
    whole = total(sums)
    by_label = whole.by_label.reshape(len(whole.labels), sums[0].by_label.shape[1])  # also where there is no label
    return _narrow(whole.packed, by_label, whole.counts.astype(np.int64), whole.labels, whole.by_leaf)


def exact_sums_of_blocks(blocks: Iterable[Integers], labels: Sequence[str], dim: int) -> Sums:
    """`exact_sums` of summands that come block by block, in the order of the labels."""
    classes = sorted(set(labels))
    place = {name: index for index, name in enumerate(classes)}
    code = np.array([place[label] for label in labels], dtype=np.int64)
    gram, by_label, start = np.zeros((dim, dim)), np.zeros((len(classes), dim)), 0
    for block in blocks:
        indicator = np.zeros((len(block), len(classes)))
        indicator[np.arange(len(block)), code[start : start + len(block)]] = 1
        if start:
            gram += block.T @ block
        else:
            gram = block.T @ block  # where few records leave, the products are few and the matrix is large
        by_label += indicator.T @ block
        start += len(block)
    return _narrow(pack(gram), by_label, np.bincount(code, minlength=len(classes)), classes)


def _narrow(
    packed: Integers, by_label: Integers, counts: NDArray[np.int64], labels: list[str], by_leaf: LeafSums | None = None
) -> Sums:
    """Raises: ParamsError if a part is too large for int32."""
    if max(np.abs(packed).max(initial=0), np.abs(by_label).max(initial=0)) > INT32_MAX:
        raise ParamsError(
            f"params.yaml: a part's {counts.sum()} records are too many for 32-bit sums of projection.levels squared; append "
            "more parts, or lower projection.levels"
        )
    return Sums(packed.astype(np.int32), by_label.astype(np.int32), counts, labels, by_leaf)


def leaf_of_units(
    names: Sequence[str], quantised: Integers, index: NDArray[np.int64], tree: Hierarchy, method: str
) -> NDArray[np.int64]:
    """The public leaf of each unit.

    Args:
        names: (u,) the units; quantised: (n, d) whole numbers of their records; index: (n,) the unit of each.
        method: `random` takes a hash of the unit instead of its mean feature: even groups also where the private images are so
            unlike the public ones that most would fall into a few leaves.
    """
    if method == "random":
        return np.array([number_from("leaf", name) % tree.n_leaves for name in names], dtype=np.int64)
    return tree.route(mean_by_group(quantised, index, len(names)))


def _leaf_sums(
    quantised: Integers, leaf: NDArray[np.int64], labels: Sequence[str], skeleton: Skeleton, params: Params
) -> Iterator[LeafSums]:
    """Sums by leaf and label, block by block: wide summands of all records at once would not fit."""
    for start in range(0, max(len(labels), 1), BLOCK):
        block = slice(start, start + BLOCK)
        yield LeafSums.of(skeleton.summand(quantised[block], params.projection.levels), leaf[block], labels[block])


def quantised_features(
    pixels: NDArray[np.uint8], backbone: Backbone, skeleton: Skeleton, params: Params
) -> tuple[Integers, NDArray[np.bool_]]:
    """(n, s, s, c) uint8 to (n, d) whole numbers, and (n,) whether the backbone gave numbers; where not, zeros stand for them.

    Exactness: a row depends on its own image alone (constant batch shape).
    """
    features = backbone.features(pixels, params.embed.batch)
    finite = np.asarray(np.isfinite(features).all(axis=1))
    return skeleton.quantise(np.where(finite[:, None], features, 0)), finite


def embed_part(
    records: Sequence[Record], pixels: NDArray[np.uint8], backbone: Backbone, skeleton: Skeleton, params: Params
) -> PartEmbedding:
    """Embed a part's private training records.

    Args:
        records: sorted by id; pixels: (n, s, s, c) uint8 in the same order.
    Exactness: a record's features depend on its image alone (constant batch shape), a unit's leaf on its own records alone.
    """
    return place(records, *quantised_features(pixels, backbone, skeleton, params), skeleton, params)


def place(
    records: Sequence[Record], quantised: Integers, finite: NDArray[np.bool_], skeleton: Skeleton, params: Params
) -> PartEmbedding:
    """Each record's leaf, and the sums of all.

    Args: records: sorted by id, of each unit all; quantised: (n, d) whole numbers in the same order; finite: (n,).
    """
    units, index = group_units(records, params.cluster.unit)
    leaf_of_unit = leaf_of_units(units, quantised, index, skeleton.hierarchy, params.cluster.method)
    blocks = (
        skeleton.summand(quantised[start : start + BLOCK], params.projection.levels) for start in range(0, len(records), BLOCK)
    )
    labels = [record.label for record in records]
    sums = exact_sums_of_blocks(blocks, labels, skeleton.summands)
    if params.tune.kind == "closed":
        sums = replace(sums, by_leaf=combine(_leaf_sums(quantised, leaf_of_unit[index], labels, skeleton, params)))
    return PartEmbedding([units[i] for i in index], leaf_of_unit[index], finite, sums)
