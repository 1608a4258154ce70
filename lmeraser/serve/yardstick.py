"""The honest yardstick: one multinomial logistic regression on all private data over the same frozen features.

Of bench and of `evaluate` alike: solved until it converges, with a penalty that is pinned in the params or chosen on public
records (fit on the other public people, scored on those left out). Both are functions of their records, in any order of folds.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digest import number_from
from lmeraser.core.errors import StepFailedError
from lmeraser.core.params import Params
from lmeraser.core.progress import track
from lmeraser.data.records import Record
from lmeraser.serve.evaluation import accuracy

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # L2, inverse of scikit-learn's C: of the summed, not the mean loss
UNTOLD = 1.0  # where public records cannot tell: fewer than two people, or one label
FOLDS = 3
CHOSEN_ON = 5000  # public records, as whole people drawn by a digest: more of them choose the same, and cost more
ITERATIONS = 10_000
BEHIND = 0.01  # share of answers by which served may be below the yardstick before it is told
TOLERANCE = 1e-6  # of the mean loss's gradient; at scikit-learn's 1e-4 digits' accuracy still moved by one answer in 700


def fit(features: NDArray[Any], labels: Sequence[str], penalty: float) -> "LogisticRegression":
    """Args: features: (n, d) standardised; labels: at least two different ones.

    Raises: StepFailedError unless it converges.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / penalty, max_iter=ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(features.astype(np.float64), list(labels))
        except ConvergenceWarning as error:
            raise StepFailedError(
                f"the yardstick (one linear head on all private data) does not converge with penalty {penalty:g}; set a greater "
                "evaluate.linear_penalty in params.yaml, or set evaluate.linear_head to false"
            ) from error


def drawn(records: Sequence[Record]) -> list[int]:
    """The rows, in their order, of public people that the penalty is chosen on: a function of each name and of the counts."""
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.subject, []).append(row)
    chosen: list[int] = []
    for subject in sorted(rows, key=lambda name: number_from("yardstick", name)):
        if chosen and len(chosen) + len(rows[subject]) > CHOSEN_ON:
            break
        chosen += rows[subject]
    return sorted(chosen)


def choose_penalty(features: NDArray[Any], records: Sequence[Record]) -> float:
    """The penalty that answers most public records right, each by a fit without its person; of equals the middle one.

    The backbone was trained on these people, so their features are clear, and many penalties may answer all of them right.

    Args: features: (n, d) standardised, of the n public records.
    """
    labels = np.array([record.label for record in records], dtype=object)
    fold = np.array([number_from("fold", record.subject) % FOLDS for record in records])
    left_out = [fold == place for place in range(FOLDS)]
    asked = [out for out in left_out if out.any() and len(set(labels[~out])) > 1]
    if not asked:
        return UNTOLD
    right = dict.fromkeys(PENALTIES, 0)
    fits = [(out, penalty) for out in asked for penalty in PENALTIES]
    for out, penalty in track(fits, len(fits), "evaluate: the yardstick's penalty", "fit"):
        model = fit(features[~out], labels[~out].tolist(), penalty)
        right[penalty] += int((model.predict(features[out].astype(np.float64)) == labels[out]).sum())
    equals = [penalty for penalty in PENALTIES if right[penalty] == max(right.values())]
    return equals[len(equals) // 2]


def penalty_for(pinned: float | None, public: Sequence[Record], features: Callable[[list[int]], NDArray[Any]]) -> float:
    """The yardstick's penalty: pinned, or chosen on public records. No private record has a say in it.

    Args: features: rows of the public records to their (n, d) standardised features; asked only where nothing is pinned.
    """
    if pinned is not None:
        return pinned
    rows = drawn(public)
    return choose_penalty(features(rows), [public[row] for row in rows])


def linear_head(
    features: NDArray[Any], labels: Sequence[str], test: NDArray[Any], truth: Sequence[str], penalty: float
) -> float | None:
    """Share of right answers; None without tests or with one label.

    Args: features: (n, d) standardised training features; test: (m, d).
    """
    if not len(truth) or len(set(labels)) < 2:
        return None
    model = fit(features, labels, penalty)
    return accuracy(model.predict_proba(test.astype(np.float64)), list(model.classes_), truth)


def advice(accuracy: Mapping[str, float | None], params: Params) -> str:
    """What to change in params.yaml where the served model is below the yardstick: the first that is not so yet."""
    served, head = accuracy["served"] or 0.0, accuracy["global_head"] or 0.0
    mends = {
        "the global head alone is better: set serve.mix to 0 (and tune.kind to none)": bool(params.serve.mix) and head > served,
        "set features.depths to several of the network's blocks, with features.grid 2 (see params/efficientnet-lite0.yaml)": bool(
            params.pretrain.weights and not params.features.depths
        ),
        "set head.kind to discriminant and projection.kind to plain": params.head.kind == "ridge",
        "set features.grid to 2: where something is counts too": bool(params.features.depths) and params.features.grid == 1,
        "raise features.dim, or set it to null": params.features.dim is not None,
        "set head.shrinkage, head.evenness and head.temperature to null: they are then chosen on public records": params.head.kind
        == "discriminant"
        and (params.head.shrinkage, params.head.evenness, params.head.temperature) != (None, None, None),
        "let `python -m bench.choose` look for better values on public records": True,
    }
    return next(change for change, helps in mends.items() if helps)
