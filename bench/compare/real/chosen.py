"""What the peers choose on public records alone: each is left out with all of its person's records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from lmeraser.core.digest import number_from
from lmeraser.serve.yardstick import FOLDS, PENALTIES, UNTOLD

CHOSEN_ON = 1500  # public records, first by id, that a value is chosen on
TOLERANCE = 1e-6  # of the mean loss's gradient; scikit-learn's 1e-4 lost up to 3 points with 242 labels
CHOICE_TOLERANCE = 1e-4  # while a penalty is chosen: each fit starts where that of the next stronger penalty ended
ITERATIONS = 3000
TEMPERATURES = tuple(2.0 ** (power / 2) for power in range(-14, 15))

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Logistic:
    """A fitted multinomial logistic regression. Attributes: axes: (d, p) of the span that it was solved in; None: of all."""

    model: LogisticRegression
    axes: Rows | None

    @property
    def labels(self) -> list[str]:
        return [str(label) for label in self.model.classes_]

    def probabilities(self, features: Rows) -> Floats:
        inside = features if self.axes is None else features @ self.axes
        answer: Floats = self.model.predict_proba(inside).astype(np.float64)
        return answer

    @property
    def storage(self) -> int:
        """Bytes of its weights over all features, in float32."""
        width = self.model.coef_.shape[1] if self.axes is None else len(self.axes)
        return 4 * len(self.model.intercept_) * (width + 1)


def own_span(features: Rows) -> Rows | None:
    """(d, n) axes of fewer features, or None: an L2 penalty sees inner products alone, so they change no answer."""
    if len(features) >= features.shape[1]:
        return None
    axes: Rows = np.linalg.qr(features.T)[0]
    return axes


def fit(features: Rows, labels: Sequence[str], penalty: float) -> Logistic:
    """One multinomial logistic regression in float32. Args: features: (n, d) standardised; penalty: the inverse of C."""
    axes = own_span(features)
    inside = features if axes is None else features @ axes
    model = LogisticRegression(C=1 / penalty, max_iter=ITERATIONS, tol=TOLERANCE).fit(inside, list(labels))
    return Logistic(model, axes)


def folds(labels: Sequence[str], people: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit on and rows that are left out, of labels that the others know."""
    names = np.array(labels, dtype=object)
    fold = np.array([number_from("fold", person) % FOLDS for person in people])
    pairs = []
    for place in range(FOLDS):
        kept = np.flatnonzero(fold != place)
        out = np.flatnonzero((fold == place) & np.isin(names, list(set(names[kept]))))
        if len(out) and len(set(names[kept])) > 1:
            pairs.append((kept, out))
    return pairs


def penalty_for(features: Rows, labels: Sequence[str], people: Sequence[str]) -> float:
    """The yardstick's rule on CHOSEN_ON records: the penalty that answers most of those right that are left out; of equals the
    middle one."""
    features, labels, people = features[:CHOSEN_ON], labels[:CHOSEN_ON], people[:CHOSEN_ON]
    names = np.array(labels, dtype=object)
    right = dict.fromkeys(PENALTIES, 0)
    pairs = folds(labels, people)
    for kept, out in pairs:
        axes = own_span(features[kept])
        inside, outside = (features[rows] if axes is None else features[rows] @ axes for rows in (kept, out))
        model = LogisticRegression(max_iter=ITERATIONS, tol=CHOICE_TOLERANCE, warm_start=True)
        for penalty in sorted(PENALTIES, reverse=True):
            model.set_params(C=1 / penalty).fit(inside, names[kept].tolist())
            right[penalty] += int((model.predict(outside) == names[out]).sum())
    equals = [penalty for penalty in PENALTIES if right[penalty] == max(right.values())]
    return equals[len(equals) // 2] if pairs else UNTOLD


def indicator(labels: Sequence[str], known: Sequence[str]) -> Floats:
    """(n, k) with a one for each label."""
    place = {label: column for column, label in enumerate(known)}
    shares = np.zeros((len(labels), len(known)))
    shares[np.arange(len(labels)), [place[label] for label in labels]] = 1
    return shares


def least_loss(scores: Floats, known: Sequence[str], truth: Sequence[str]) -> tuple[float, float]:
    """The temperature of a softmax that costs least, and its summed log-loss."""
    column = [list(known).index(label) for label in truth]
    losses = [-float(log_softmax(scores / divisor, axis=1)[np.arange(len(column)), column].sum()) for divisor in TEMPERATURES]
    best = int(np.argmin(losses))
    return TEMPERATURES[best], losses[best]


Scores = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[Floats, list[str]]]


def temperature_for(score: Scores, labels: Sequence[str], people: Sequence[str]) -> float:
    """The temperature that gives what is left out the least log-loss: the middle of the folds'.

    Args: score: rows to fit on, and (m,) rows to answer, to their (m, k) scores and the k labels.
    """
    names = np.array(labels, dtype=object)
    picked = [least_loss(*score(kept, out), names[out].tolist())[0] for kept, out in folds(labels, people)]
    return sorted(picked)[len(picked) // 2] if picked else 1.0


def ridge_for(features: Floats, labels: Sequence[str], people: Sequence[str], ridges: Sequence[float]) -> tuple[float, float]:
    """Ridge, as a share of the records, that answers most right, and the temperature that then costs least.

    Args: features: (n, p) of public records.
    """
    names = np.array(labels, dtype=object)
    right, temperatures = np.zeros(len(ridges)), []
    for kept, out in folds(labels, people):
        known = sorted(set(names[kept]))
        variance, vectors = eigh(features[kept] @ features[kept].T)
        along = vectors.T @ indicator(names[kept].tolist(), known)
        products = (features[out] @ features[kept].T) @ vectors
        losses = []
        for place, ridge in enumerate(ridges):
            scores = products @ (along / (np.maximum(variance, 0) + ridge * len(kept))[:, None])
            right[place] += float((np.array(known, dtype=object)[scores.argmax(1)] == names[out]).sum())
            losses.append(least_loss(scores, known, names[out].tolist())[0])
        temperatures.append(losses)
    best = int(right.argmax())
    middle = sorted(losses[best] for losses in temperatures)
    return ridges[best], middle[len(middle) // 2] if middle else 1.0
