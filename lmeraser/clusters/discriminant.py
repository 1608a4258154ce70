"""Linear discriminant analysis from additive sums: counts, class sums, one Gram matrix (Fisher 1936; shrinkage: Friedman 1989).

One covariance for all labels, shrunk towards its mean variance, so that more features than records, constant features and labels
with one record are all defined. What is summed are whole numbers: a record is taken out by subtraction, bit for bit. Statistics
that add up instead of training: RanPAC (McDonnell et al. 2023, arXiv:2307.02251), FSA (Panos et al. 2023, arXiv:2303.13199).

A label whose mean lies far from the middle is answered too often: its records spread more than the one covariance says. So the
labels' distances are evened: each mean is moved along the line to the middle, by a power of its distance over the mean one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digest import number_from
from lmeraser.core.params import Head

Floats = NDArray[np.float64]
Priors = Literal["records", "even"]
SHRINKAGES = (20.0, 40.0, 80.0)  # bounded: public labels are others, and what they prefer beyond was worse (docs/decisions/0026)
EVENNESSES = (0.0, 0.5)  # bounded: of 242 labels public loss wanted more than private accuracy (docs/decisions/0026)
LEAST = 1e-4  # share of the mean variance, so that a covariance of constant features has an inverse
TEMPERATURES = tuple(2.0 ** (power / 4) for power in range(-24, 25))
GROWTH = 0.75  # power of the labels' mean distance with which the best temperature grew over data sets (docs/decisions/0026)
NEAREST = 1 / 16  # least distance of a label that is evened, as a share of the mean one: nearer ones are rounding, or chance
FOLDS = 3
RECORDS = 3072  # public records, first by id, that they are chosen on
FLAT = 1e-10  # scatter, as a share of all squares or of the greatest, below which it is rounding


class Chosen(NamedTuple):
    """What the params say or public records choose of a discriminant.

    Attributes:
        shrinkage: records of each label that the mean variance counts for in the covariance.
        evenness: 0: labels lie as far from their middle as their means do; 1: all equally far; a power in between.
        temperature: of the softmax, as a share of what `growth_of` says of the labels' distances.
    """

    shrinkage: float
    evenness: float
    temperature: float


UNTOLD = Chosen(40.0, 0.5, 0.25)  # where public records cannot tell: fewer than two people, or one label


@dataclass(frozen=True)
class Discriminant:
    """A shared covariance, ready to turn any means of its labels into scores of whole numbers (k labels, p summands).

    Attributes:
        factor: (p, p) Cholesky factor of the shrunk covariance; unit: (p,) what one step of each whole number stands for.
        middle: (p,) mean of the labels' means; means: (k, p) of each label; counts: (k,) records of each.
        along: (k, p) the means from the middle, over the covariance; distances: (k,) squared, in its units; evenness: as chosen.
    """

    factor: tuple[Floats, bool]
    unit: Floats
    middle: Floats
    means: Floats
    counts: Floats
    along: Floats
    distances: Floats
    evenness: float

    @classmethod
    def of(
        cls, gram: Floats, by_label: Floats, counts: Floats, unit: Floats, shrinkage: float, evenness: float
    ) -> "Discriminant":
        """From sums over n records.

        Args:
            gram: (p, p) sum of products of whole numbers; overwritten. by_label: (k, p) their sums; counts: (k,), none zero.
            unit: (p,) shrinkage is towards the mean variance in these units.
        """
        from scipy.linalg import cho_factor, cho_solve

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
        means = by_label / counts[:, None]
        middle = means.mean(0)
        along = cho_solve(factor, (means - middle).T).T
        return cls(factor, unit, middle, means, counts, along, (along * (means - middle)).sum(1), evenness)

    def scores(self) -> tuple[Floats, Floats]:
        """Weights over whole numbers and biases of the labels' scores, before any prior: (k, p) and (k,)."""
        return self._scores(self.along, self.distances, self._moves)

    def scores_of(self, means: Floats, label: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """The same of other means of some labels, each moved as its label's own is. Args: means: (r, p); label: (r,)."""
        from scipy.linalg import cho_solve

        centred = means - self.middle
        along = cho_solve(self.factor, centred.T).T
        return self._scores(along, (along * centred).sum(1), self._moves[label])

    @property
    def _moves(self) -> Floats:
        return moves_of(self.distances, self.evenness)

    def _scores(self, along: Floats, distances: Floats, moves: Floats) -> tuple[Floats, Floats]:
        weight = along * moves[:, None]
        return weight * self.unit, -0.5 * moves**2 * distances - weight @ self.middle


def share_of(shrinkage: float, records: float, labels: int) -> float:
    """The share that the mean variance has in a covariance of so many records: less, the more records a label has.

    Counts are exact, so this is too. What public people choose at their few records holds at the many of private ones: measured,
    the best share fell from 0.7 at 20 records a label to 0.05 at 800, at about 40 records' worth (docs/decisions/0026).
    """
    return max(shrinkage / (shrinkage + records / labels), LEAST)


def moves_of(distances: Floats, evenness: float) -> Floats:
    """(k,) what each label's mean is multiplied by, seen from the middle, so that the labels' squared distances are more alike.

    Two labels are always equally far from their middle, and stay where they are.
    """
    mean = float(distances.mean())
    if not (evenness and mean > 0):
        return np.ones(len(distances))
    moves: Floats = (mean / np.maximum(distances, NEAREST * mean)) ** (evenness / 2)
    return moves


def growth_of(distances: Floats) -> float:
    """What the softmax's temperature grows with: the fewer records means come from, the further apart labels seem to lie.

    A function of exact sums, like the distances. What public people choose at few records a label then holds at many, and the
    other way round. Nothing shrinks where labels can hardly be told apart: such a distance may be rounding.
    """
    return float(max(float(distances.mean()), 1.0) ** GROWTH)


def log_priors(counts: Floats, priors: Priors) -> Floats:
    """Of k labels, along the last axis; counts need not be whole."""
    return np.zeros(counts.shape) if priors == "even" else np.log(counts / counts.sum(-1, keepdims=True))


def _spread(scatter: float, squares: float, degrees: float) -> float:
    """The mean variance; 1 where no label has two records that differ, so that the nearest mean answers.

    Args: scatter: sum of squares about the labels' means, with its rounding; squares: sum of all squares.
    """
    return scatter / degrees if scatter > FLAT * squares else 1.0


def _scores(
    train: Floats,
    code: NDArray[np.int64],
    asked: Floats,
    priors: Priors,
    shrinkages: Sequence[float],
    evennesses: Sequence[float],
) -> Iterator[Floats]:
    """(m, k) scores of other records, whose temperature has not to grow, under each evenness under each shrinkage.

    By one decomposition for all of them. Args: train: (n, p); code: (n,) label of each in [0, k), none empty; asked: (m, p).
    """
    from scipy.linalg import eigh

    counts = np.bincount(code).astype(np.float64)
    means = np.zeros((len(counts), train.shape[1]))
    np.add.at(means, code, train)
    means /= counts[:, None]
    middle = means.mean(0)
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
        distances = (lengths - (along**2 * weight).sum(1)) / ridge
        for evenness in evennesses:
            moves = moves_of(distances, evenness)
            yield (moves * linear - 0.5 * moves**2 * distances + log_priors(counts, priors)) / growth_of(distances)


def choose(features: Floats, labels: Sequence[str], people: Sequence[str], head: Head) -> Chosen:
    """The values that give public people who were left out the least log-loss; what the params give stays.

    Args: features: (n, p) of public records, in the units of a solve; labels, people: (n,).
    """
    from scipy.special import log_softmax

    given = Chosen._make(getattr(head, name) for name in Chosen._fields)
    if None not in given:
        return given
    features, labels, people = features[:RECORDS], labels[:RECORDS], people[:RECORDS]
    pairs = zip(given, (SHRINKAGES, EVENNESSES, TEMPERATURES), strict=True)
    shrinkages, evennesses, temperatures = (tried if value is None else (value,) for value, tried in pairs)
    fold = np.array([number_from("fold", person) % FOLDS for person in people])
    names = np.array(labels, dtype=object)
    losses, asked = np.zeros((len(shrinkages), len(evennesses), len(temperatures))), 0
    by_solve = losses.reshape(-1, len(temperatures))
    for place in range(FOLDS):
        known = sorted(set(names[fold != place]))
        out = (fold == place) & np.isin(names, known)
        if not out.any() or len(known) < 2:
            continue
        code = np.searchsorted(known, names[fold != place].astype(str))
        right = np.searchsorted(known, names[out].astype(str))
        asked += len(right)
        tried = _scores(features[fold != place], code, features[out], head.priors, shrinkages, evennesses)
        for row, scores in enumerate(tried):
            for column, divisor in enumerate(temperatures):
                by_solve[row, column] -= log_softmax(scores / divisor, axis=1)[np.arange(len(right)), right].sum()
    if not asked:
        return Chosen._make(fixed if value is None else value for value, fixed in zip(given, UNTOLD, strict=True))
    best = np.unravel_index(int(losses.argmin()), losses.shape)
    return Chosen(shrinkages[best[0]], evennesses[best[1]], temperatures[best[2]])
