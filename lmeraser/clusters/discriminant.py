"""Linear discriminant analysis from additive sums: counts, class sums, one Gram matrix (Fisher 1936; shrinkage: Friedman 1989).

One covariance for all labels, shrunk towards its mean variance, so that more features than records, constant features and labels
with one record are all defined. What is summed are whole numbers: a record is taken out by subtraction, bit for bit. Statistics
that add up instead of training: RanPAC (McDonnell et al. 2023, arXiv:2307.02251), FSA (Panos et al. 2023, arXiv:2303.13199).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.special import log_softmax

from lmeraser.core.digest import number_from

Floats = NDArray[np.float64]
Priors = Literal["records", "even"]
SHRINKAGES = (20.0, 40.0, 80.0)  # bounded: public labels are others, and what they prefer beyond was worse (docs/decisions/0026)
LEAST = 1e-4  # share of the mean variance, so that a covariance of constant features has an inverse
TEMPERATURES = tuple(2.0 ** (power / 4) for power in range(-4, 41))
UNTOLD = (40.0, 8.0)  # where public records cannot tell: fewer than two people, or one label
FOLDS = 3
RECORDS = 3072  # public records, first by id, that they are chosen on
FLAT = 1e-10  # scatter, as a share of all squares or of the greatest, below which it is rounding


@dataclass(frozen=True)
class Discriminant:
    """A shared covariance, ready to turn any class means into scores of whole numbers (k labels, p summands).

    Attributes:
        factor: (p, p) Cholesky factor of the shrunk covariance; unit: (p,) what one step of each whole number stands for.
        middle: (p,) mean of all records; means: (k, p) of each label; counts: (k,) records of each.
    """

    factor: tuple[Floats, bool]
    unit: Floats
    middle: Floats
    means: Floats
    counts: Floats

    @classmethod
    def of(cls, gram: Floats, by_label: Floats, counts: Floats, unit: Floats, shrinkage: float) -> "Discriminant":
        """From sums over n records.

        Args:
            gram: (p, p) sum of products of whole numbers; overwritten. by_label: (k, p) their sums; counts: (k,), none zero.
            unit: (p,) shrinkage is towards the mean variance in these units.
            shrinkage: records of each label that the mean variance counts for.
        """
        records = counts.sum()
        by_label = by_label * unit
        covariance = gram
        covariance *= unit[:, None]
        covariance *= unit
        squares = float(covariance.trace())
        root = by_label / np.sqrt(counts)[:, None]
        covariance -= root.T @ root
        freedom = max(records - len(counts), 1)
        spread = _spread(float(covariance.trace()), squares, freedom * len(unit))
        covariance /= freedom
        share = share_of(shrinkage, records, len(counts))
        covariance *= 1 - share
        covariance[np.diag_indices(len(unit))] += share * spread
        factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        return cls(factor, unit, by_label.sum(0) / records, by_label / counts[:, None], counts)

    def scores_of(self, means: Floats) -> tuple[Floats, Floats]:
        """Weights over whole numbers and biases of the scores of some class means, before any prior: (r, p) and (r,)."""
        centred = means - self.middle
        weight = cho_solve(self.factor, centred.T).T
        return weight * self.unit, -0.5 * (weight * centred).sum(1) - weight @ self.middle


def share_of(shrinkage: float, records: float, labels: int) -> float:
    """The share that the mean variance has in a covariance of so many records: less, the more records a label has.

    Counts are exact, so this is too. What public people choose at their few records holds at the many of private ones: measured,
    the best share fell from 0.7 at 20 records a label to 0.05 at 800, at about 40 records' worth (docs/decisions/0026).
    """
    return max(shrinkage / (shrinkage + records / labels), LEAST)


def log_priors(counts: Floats, priors: Priors) -> Floats:
    """Of k labels, along the last axis; counts need not be whole."""
    return np.zeros(counts.shape) if priors == "even" else np.log(counts / counts.sum(-1, keepdims=True))


def _spread(scatter: float, squares: float, degrees: float) -> float:
    """The mean variance; 1 where no label has two records that differ, so that the nearest mean answers.

    Args: scatter: sum of squares about the labels' means, with its rounding; squares: sum of all squares.
    """
    return scatter / degrees if scatter > FLAT * squares else 1.0


def _scores(
    train: Floats, code: NDArray[np.int64], asked: Floats, priors: Priors, shrinkages: Sequence[float]
) -> Iterator[Floats]:
    """(m, k) scores of other records under each shrinkage, by one decomposition for all of them.

    Args: train: (n, p); code: (n,) label of each in [0, k), none empty; asked: (m, p).
    """
    counts = np.bincount(code).astype(np.float64)
    means = np.zeros((len(counts), train.shape[1]))
    np.add.at(means, code, train)
    middle = means.sum(0) / len(train)
    means /= counts[:, None]
    within = train - means[code]
    few = len(within) < within.shape[1]
    squares, vectors = eigh(within @ within.T if few else within.T @ within)
    kept = squares > FLAT * max(float(squares[-1]), FLAT)
    squares, vectors = squares[kept], vectors[:, kept]
    axes = within.T @ (vectors / np.sqrt(squares)) if few else vectors
    freedom = max(len(train) - len(counts), 1)
    variance = squares / freedom
    spread = _spread(float(squares.sum()), float((train**2).sum()), freedom * train.shape[1])
    means, asked = means - middle, asked - middle
    along, asked_along = means @ axes, asked @ axes
    products, lengths = asked @ means.T, (means**2).sum(1)
    for shrinkage in shrinkages:
        share = share_of(shrinkage, len(train), len(counts))
        ridge, taken = share * spread, (1 - share) * variance
        weight = taken / (taken + ridge)
        linear = (products - (asked_along * weight) @ along.T) / ridge
        yield linear - 0.5 * (lengths - (along**2 * weight).sum(1)) / ridge + log_priors(counts, priors)


def choose(
    features: Floats,
    labels: Sequence[str],
    people: Sequence[str],
    priors: Priors,
    shrinkage: float | None,
    temperature: float | None,
) -> tuple[float, float]:
    """Shrinkage and temperature that give public people who were left out the least log-loss; what is given stays.

    Args: features: (n, p) of public records, in the units of a solve; labels, people: (n,).
    """
    if shrinkage is not None and temperature is not None:
        return shrinkage, temperature
    features, labels, people = features[:RECORDS], labels[:RECORDS], people[:RECORDS]
    shrinkages = SHRINKAGES if shrinkage is None else (shrinkage,)
    temperatures = TEMPERATURES if temperature is None else (temperature,)
    fold = np.array([number_from("fold", person) % FOLDS for person in people])
    names = np.array(labels, dtype=object)
    losses, asked = np.zeros((len(shrinkages), len(temperatures))), 0
    for place in range(FOLDS):
        known = sorted(set(names[fold != place]))
        out = (fold == place) & np.isin(names, known)
        if not out.any() or len(known) < 2:
            continue
        code = np.searchsorted(known, names[fold != place].astype(str))
        right = np.searchsorted(known, names[out].astype(str))
        asked += len(right)
        by_shrinkage = _scores(features[fold != place], code, features[out], priors, shrinkages)
        for row, scores in enumerate(by_shrinkage):
            for column, divisor in enumerate(temperatures):
                losses[row, column] -= log_softmax(scores / divisor, axis=1)[np.arange(len(right)), right].sum()
    if not asked:
        return (UNTOLD[0] if shrinkage is None else shrinkage, UNTOLD[1] if temperature is None else temperature)
    best = divmod(int(losses.argmin()), len(temperatures))
    return shrinkages[best[0]], temperatures[best[1]]
