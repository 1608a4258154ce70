"""Peers without groups: one linear head, k nearest neighbours, and our global head alone. All on the frozen features."""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from bench.compare.peers import Ground, Probabilities
from bench.compare.results import Measured
from bench.lab.changes import changed
from lmeraser.clusters.global_head import Sums, solve
from lmeraser.learn.embedding import exact_sums
from lmeraser.learn.tuning import tune_cluster
from lmeraser.serve.yardstick import fit, penalty_for

NEIGHBOURS = 20
PUBLIC = 4000  # public records on which a frame is tuned


def _flat(value: float) -> dict[str, float]:
    return {"mean": value, "p95": value, "max": value, "drawn": 1}


def _result(
    probabilities: Probabilities, known: list[str], cost: dict[str, float], fit: float, again: float, storage: int, equal: bool
) -> Measured:
    """Args: cost: records x epochs by number of subjects; fit, again: processor seconds of a build and of a deletion."""
    return {
        "answers": {"served": (probabilities, known)},
        "groups": 1,
        "largest": 0,
        "passes": 1.0,
        "storage": storage,
        "fit_seconds": fit,
        "fit_work": max(cost.values()),
        "deletion": {size: _flat(value) for size, value in cost.items()},
        "deletion_seconds": {size: _flat(again) for size in cost},
        "rebuild": {"equal": equal, "compared": 1, "left_alone": 0},
    }


def penalty_of(ground: Ground) -> float:
    """The yardstick's, as `evaluate` takes it."""
    standard, features = ground.skeleton.standardise, ground.public_features
    return penalty_for(ground.params.evaluate.linear_penalty, ground.data.public.records, lambda rows: standard(features[rows]))


def linear_head(ground: Ground, sizes: list[int]) -> Measured:
    """`evaluate`'s yardstick; a deletion fits it again (each iteration reads every record), with the penalty that it had."""
    train, test = ground.skeleton.standardise(ground.features), ground.skeleton.standardise(ground.test_features)
    labels, penalty = ground.data.train.labels, penalty_of(ground)
    start = time.process_time()
    model = fit(train, labels, penalty)
    spent = time.process_time() - start
    work = float(len(train) * int(model.n_iter_[0]))
    # The same bits twice: on a few rows, one solver.
    first, second = (fit(train[:2000], labels[:2000], penalty) for _ in range(2))
    equal = first.coef_.tobytes() == second.coef_.tobytes()
    cost = {str(size): work for size in sizes}
    known = [str(label) for label in model.classes_]
    return _result(model.predict_proba(test), known, cost, spent, spent, model.coef_.nbytes, equal)


def nearest_neighbours(ground: Ground, sizes: list[int]) -> Measured:
    """Votes of the nearest records by cosine; a deletion drops rows, and everybody's features are kept."""
    train, test = ground.skeleton.standardise(ground.features), ground.skeleton.standardise(ground.test_features)
    start = time.process_time()
    neighbours = min(NEIGHBOURS, len(train))
    model = KNeighborsClassifier(neighbours, metric="cosine", weights="distance").fit(train, ground.data.train.labels)
    spent = time.process_time() - start
    probabilities = model.predict_proba(test)
    known = [str(label) for label in model.classes_]
    return _result(probabilities, known, {str(size): 0.0 for size in sizes}, spent, 0.0, train.nbytes, True)


def global_head(ground: Ground, sizes: list[int]) -> Measured:
    """Ours without clusters: exact sums, one solve; a deletion subtracts and solves again."""
    params = ground.params
    start = time.process_time()
    head = solve([ground.sums], ground.rule)
    solving = time.process_time() - start
    quantised = ground.skeleton.quantise(ground.features)
    kept = np.ones(len(quantised), dtype=bool)
    kept[: len(kept) // 100 + 1] = False
    labels = np.array(ground.data.train.labels)

    def sums(rows: NDArray[np.bool_]) -> Sums:
        return exact_sums(ground.skeleton.summand(quantised[rows], params.projection.levels), labels[rows].tolist())

    subtracted, rebuilt = solve([ground.sums], ground.rule, leaving=sums(~kept)), solve([sums(kept)], ground.rule)
    summands = ground.skeleton.summand(ground.skeleton.quantise(ground.test_features), params.projection.levels)
    cost = {
        str(size): float(size * len(labels) / len({record.subject for record in ground.data.train.records})) for size in sizes
    }
    storage = head.weight.nbytes + ground.sums.gram.nbytes // 2
    equal = subtracted.weight.tobytes() == rebuilt.weight.tobytes()
    return _result(head.probabilities(summands), head.labels, cost, solving, solving, storage, equal)


def framed_head(ground: Ground, sizes: list[int]) -> Measured:
    """The global head over the features of one frame that was tuned on public images and that no deletion changes."""
    public = ground.data.public
    params = changed(ground.params, {"tune.frame_px": ground.params.tune.frame_px or ground.params.image.size // 8})
    ids = [record.id for record in public.records[:PUBLIC]]  # sorted by a digest: a draw
    tuned = tune_cluster(ids, public.pixels[:PUBLIC], public.labels[:PUBLIC], ground.backbone, ground.skeleton, params, "public")
    return global_head(Ground.prepare(ground.data, ground.params, torch.from_numpy(tuned.frame)), sizes)


CLOSED = {
    "global head alone (ours, mix 0)": global_head,
    "global head over a frame tuned on public images": framed_head,
    "linear head on all private data": linear_head,
    "k-NN on frozen features": nearest_neighbours,
}
