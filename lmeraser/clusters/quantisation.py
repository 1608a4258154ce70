"""Features as integers, so that every later sum is exact.

A record's standardised feature is rounded once to a multiple of 1 / STEPS. From there on, means, split decisions, distances and
projections are sums of products of integers below 2**53, which float64 represents exactly: they do not depend on order,
blocking, threads or the number of rows (a BLAS product of floats does), and taking a record out equals never having put it in.
"""

import numpy as np
from numpy.typing import NDArray

STEPS = 64  # steps per unit of a standardised feature
LIMIT = 16  # features are clipped to [-LIMIT, LIMIT]

Integers = NDArray[np.float64]  # whole numbers, held in float64 so that BLAS can multiply them exactly


def quantise(features: NDArray[np.float32]) -> Integers:
    """(n, d) float32 standardised features to whole numbers in [-LIMIT * STEPS, LIMIT * STEPS].

    NaN stays NaN: the validation gate counts it.
    """
    return np.rint(np.clip(features.astype(np.float64), -LIMIT, LIMIT) * STEPS)


def mean_by_group(features: Integers, group: NDArray[np.int64], n_groups: int) -> Integers:
    """Mean of each group's rows, rounded to whole numbers (halves to even).

    Args:
        features: (n, d) whole numbers.
        group: (n,) each in [0, n_groups), no group empty.
    Returns: (n_groups, d).
    """
    sums = np.zeros((n_groups, features.shape[1]))
    np.add.at(sums, group, features)
    return np.rint(sums / np.bincount(group, minlength=n_groups)[:, None])


def squared_distances(features: Integers, prototypes: Integers) -> Integers:
    """(n, d) and (k, d) whole numbers to (n, k) exact squared distances, in squared steps."""
    distances: Integers = features @ prototypes.T
    distances *= -2  # in place from here: exact in any order, and (n, k) may be large
    distances += (features**2).sum(1)[:, None]
    distances += (prototypes**2).sum(1)[None, :]
    return distances
