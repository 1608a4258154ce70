"""Features as integers, so that every later sum is exact.

A record's standardised feature is rounded once to a multiple of 1 / STEPS. From there on, means, split decisions, distances and
projections are sums of products of integers below 2**53, which float64 represents exactly: they do not depend on order,
blocking, threads or the number of rows (a BLAS product of floats does), and taking a record out equals never having put it in.
"""

import numpy as np
from numpy.typing import NDArray

STEPS = 64  # steps per unit of a standardised feature
LIMIT = 16  # features are clipped to [-LIMIT, LIMIT]
WIDEST = 64.0  # radians, up to which a cosine may be rounded by float32
DOUBT = 2.0**-14  # of a float32 cosine, on either side of where two levels meet
MOST_LEVELS = 256  # with more of them, too many cosines are in doubt

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


def round_cosines(angle: NDArray[np.float64], levels: int) -> None:
    """Replace (n, p) angles, in radians, by rint(cos(angle) * levels). What is no number stays none.

    A float64 cosine takes six times as long as a float32 one, which tells the level but where it lies too near to where two
    levels meet: those few are computed in float64, so that all are what float64 gives, bit for bit. How near is too near: an
    angle of at most WIDEST, rounded to float32, is off by 2^-18; numpy's cosine by a few units in the last place, below 2^-21;
    the product with levels by one. Together that is below 2^-17.5 of a cosine; DOUBT is eleven times as much.
    """
    near = angle.astype(np.float32)
    if levels > MOST_LEVELS or not np.abs(near).max(initial=0) <= WIDEST:  # also where one is no number
        angle[:] = _round_exactly(angle, levels)
        return
    np.cos(near, out=near)
    near *= np.float32(levels)
    # Levels meet at halves, and the two zeros at zero: both are whole numbers when doubled.
    gap = near + near
    gap -= np.rint(gap)
    doubtful = np.flatnonzero(np.abs(gap, out=gap) < 2 * levels * DOUBT)
    np.rint(near, out=near)
    np.put(near, doubtful, _round_exactly(angle.ravel()[doubtful], levels))
    angle[:] = near


def _round_exactly(angle: NDArray[np.float64], levels: int) -> Integers:
    rounded: Integers = np.rint(np.cos(angle) * levels)
    return rounded
