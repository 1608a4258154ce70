"""Public principal axes: features of several depths are many, and a Gram matrix has their square.

The axes are found once, of public records, and are whole numbers, so that a projection is a sum of products of whole numbers:
exact, and a function of its own record. They are not whitened: a direction in which public records hardly differ stays small.
"""

import numpy as np

from lmeraser.clusters.quantisation import Integers

AXIS_STEPS = 2.0**12  # steps per unit of an axis
RECORDS = 4096  # public records, first by id, of which the axes are found
FLAT = 1e-9  # variance, as a share of the greatest, below which an axis is none


def principal_axes(quantised: Integers, dim: int) -> Integers:
    """The first principal axes of public records.

    Args: quantised: (n, d) whole numbers, sorted by record id (ids are digests, so the first are a random draw).
    Returns: (d, at most dim) whole numbers in steps of 1 / AXIS_STEPS; fewer where records differ in fewer directions.
    """
    from scipy.linalg import eigh

    points = quantised[:RECORDS] - quantised[:RECORDS].mean(0)
    few = len(points) < points.shape[1]
    products = points @ points.T if few else points.T @ points
    last = len(products) - 1
    variance, vectors = eigh(products, subset_by_index=(max(0, last + 1 - dim), last))
    kept = variance > FLAT * max(float(variance[-1]), 0.0)
    axes = (points.T @ vectors if few else vectors)[:, kept][:, ::-1]
    if axes.shape[1]:
        axes = axes / np.linalg.norm(axes, axis=0)
    largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]  # positive, so that its sign is no accident
    whole: Integers = np.rint(axes * np.where(largest < 0, -1, 1) * AXIS_STEPS)
    return whole


def project(quantised: Integers, axes: Integers) -> Integers:
    """(n, d) whole numbers along (d, p) axes, rounded to whole numbers of the same steps: (n, p)."""
    along: Integers = np.rint(quantised @ axes / AXIS_STEPS)
    return along
