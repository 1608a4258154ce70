"""The served model row by row: the bits of an answer are a function of its own image, whatever else is in the batch.

The network's passes have this already (constant shape), and whole numbers are exact in any order. What is left are products of
floats: a BLAS product of many rows divides the work by how many there are. Here each row is a product of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.global_head import GlobalHead
from lmeraser.serve.serving import Probabilities, ServedModel, softmax


def product(rows: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """(n, d) and (d, k) to (n, k), each row by a product of the shape (1, d) and (d, k)."""
    stacked: NDArray[Any] = np.ascontiguousarray(rows)[:, None, :] @ weight
    return stacked[:, 0, :]


@dataclass(frozen=True)
class RowHead(GlobalHead):
    """`GlobalHead`, each row by a product of its own."""

    def scores(self, summands: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = product(summands, self.weight.T) + self.bias
        return scores


@dataclass(frozen=True)
class RowModel(ServedModel):
    """`ServedModel` with products row by row, and labels looked up once. Its answers are those of that one but for last bits."""

    @classmethod
    def of(cls, model: ServedModel) -> "RowModel":
        values = {field.name: getattr(model, field.name) for field in fields(model)}
        if model.head is not None:
            values["head"] = RowHead(**{field.name: getattr(model.head, field.name) for field in fields(model.head)})
        return cls(**values)

    def without_own_passes(self) -> "RowModel":
        """One pass an image: the global head, and those clusters alone whose answers need no pass of their own."""
        kept = [index for index in range(len(self.clusters)) if self._frame(index) is None]
        return replace(
            self,
            prototypes=self.prototypes[kept],
            slots=[self.slots[index] for index in kept],
            clusters=[self.clusters[index] for index in kept],
            sizes=self.sizes[kept],
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.labels)}

    def _spread(self, probabilities: Probabilities, labels: Sequence[str]) -> Probabilities:
        wide = np.zeros((len(probabilities), len(self.labels)))
        wide[:, [self._places[label] for label in labels]] = probabilities
        return wide

    def _standardised(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        skeleton = self.skeleton
        scaled: NDArray[np.float32] = (features - skeleton.mean) / skeleton.scale
        return product(scaled, skeleton.float_axes) if skeleton.axes.shape[1] else scaled

    def _cluster_probabilities(self, index: int, features: NDArray[np.float32]) -> Probabilities:
        cluster = self.clusters[index]
        if cluster is None:
            return self._closed_probabilities(self.slots[index], features)
        return self._spread(softmax(product(self._standardised(features), cluster.weight.T) + cluster.bias), cluster.labels)

    def _closed_probabilities(self, slot: str, plain: NDArray[np.float32]) -> Probabilities:
        whole = super()._closed_probabilities
        return np.concatenate([whole(slot, plain[row : row + 1]) for row in range(len(plain))])
