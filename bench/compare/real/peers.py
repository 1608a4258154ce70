"""Ours and peers without groups on the same features of a given backbone: answers, and what a person's deletion costs.

A deletion is charged in processor seconds on features that are at hand, and in images that must pass the network again where
they are not: ours keeps sums and no features, and of the peers only k nearest neighbours keep them.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax
from sklearn.neighbors import KNeighborsClassifier

from bench.compare.real.chosen import CHOSEN_ON, Floats, Rows, fit, indicator, ridge_for, temperature_for
from bench.compare.real.groups import paper, shards, tuned_head
from bench.compare.real.network import fine_tuned, one_prompt
from bench.compare.real.outcome import Outcome, spent
from bench.compare.real.stand import Side, Stand
from bench.lab.changes import changed
from lmeraser.clusters.global_head import GlobalHead, Rule, Sums, solve
from lmeraser.clusters.quantisation import Integers
from lmeraser.clusters.skeleton import _fourier
from lmeraser.core.digest import seed_for
from lmeraser.learn.embedding import exact_sums

LEAVERS = 3  # people whose deletion is timed, one by one
NEIGHBOURS = 20
RANDOM = 4000  # dimensions of the random projection; RanPAC has 10,000
RIDGES = tuple(10.0**power for power in range(-6, 3))


def _exact(stand: Stand, summands: Integers, test: Integers, rule: Rule) -> Outcome:
    """A head from exact sums. Args: summands: (n, p) of the private training records; test: (m, p)."""
    labels = np.array(stand.train.labels, dtype=object)
    names = sorted(set(stand.part.tolist()))

    def sums(rows: NDArray[np.int64]) -> Sums:
        return exact_sums(summands[rows], labels[rows].tolist())

    def build() -> tuple[list[Sums], GlobalHead]:
        parts = [sums(np.flatnonzero(stand.part == name)) for name in names]
        return parts, solve(parts, rule)

    (parts, head), building = spent(build)
    seconds, equal = [], True
    for turn, person in enumerate(stand.leavers(LEAVERS)):
        leaving = stand.rows_of[person]
        kept = np.setdiff1d(np.arange(len(labels)), leaving)

        def erase(leaving: NDArray[np.int64] = leaving) -> GlobalHead:
            return solve(parts, rule, leaving=sums(leaving))

        without, again = spent(erase)
        seconds.append(again)
        if not turn:  # a rebuild: the person's part is summed anew, the others never held them
            own = names.index(int(stand.part[leaving[0]]))
            rows = kept[stand.part[kept] == names[own]]
            others = [part for place, part in enumerate(parts) if place != own]
            rebuilt = solve([*others, sums(rows)] if len(rows) else others, rule)
            equal = without.weight.tobytes() == rebuilt.weight.tobytes() and without.labels == rebuilt.labels
    half = sum(part.gram.nbytes // 2 + part.by_label.nbytes + part.counts.nbytes for part in parts)
    storage = half + head.weight.nbytes + head.bias.nbytes
    return Outcome(head.probabilities(test), head.labels, building, float(np.mean(seconds)), stand.own, storage, equal=equal)


def discriminant(stand: Stand) -> Outcome:
    """What is served with tune.kind none: the preset's global head over all depths."""
    skeleton = stand.skeleton
    test = skeleton.summand(stand.test_quantised, stand.params.projection.levels)
    outcome = _exact(stand, stand.summands, test, stand.rule)
    return replace(outcome, chosen=skeleton.chosen._asdict())


def fourier_ridge(stand: Stand) -> Outcome:
    """The global head as it was before: ridge regression over random Fourier features of all depths."""
    params = changed(stand.params, {"projection.kind": "fourier", "head.kind": "ridge"})
    projection, offset = _fourier(stand.skeleton.quantise(stand.public.features), params)
    skeleton = replace(stand.skeleton, projection=projection, offset=offset, step=np.zeros(0))
    levels = params.projection.levels
    rule = Rule(params.head, levels, np.zeros(0), skeleton.chosen, None)
    return _exact(stand, skeleton.summand(stand.quantised, levels), skeleton.summand(stand.test_quantised, levels), rule)


def _logistic(stand: Stand, view: Callable[[Side], Rows], penalty: float) -> Outcome:
    """A deletion fits it again."""
    model, seconds = spent(lambda: fit(view(stand.train), stand.train.labels, penalty))
    again = len(stand.train.records) - stand.own
    answer = model.probabilities(view(stand.test))
    return Outcome(answer, model.labels, seconds, seconds, again, model.storage, chosen={"penalty": penalty})


def logistic_last(stand: Stand) -> Outcome:
    return _logistic(stand, stand.last, stand.last_penalty)


def logistic_deep(stand: Stand) -> Outcome:
    return _logistic(stand, stand.deep, stand.deep_penalty)


def random_ridge(stand: Stand) -> Outcome:
    """RanPAC (McDonnell et al. 2023, arXiv:2307.02251): ridge regression over a random projection of the last layer."""
    generator = np.random.default_rng(seed_for(stand.params.seed, "ranpac"))
    mixing = generator.standard_normal((stand.widths[-1], RANDOM), dtype=np.float32)

    def lifted(rows: Rows) -> Rows:
        high: Rows = np.maximum(rows @ mixing, 0)
        return high

    few = lifted(stand.last(stand.public)[:CHOSEN_ON]).astype(np.float64)
    ridge, temperature = ridge_for(few / RANDOM**0.5, stand.public.labels[:CHOSEN_ON], stand.public.people[:CHOSEN_ON], RIDGES)
    known = sorted(set(stand.train.labels))
    shares = indicator(stand.train.labels, known).astype(np.float32)
    train = lifted(stand.last(stand.train)) / np.float32(RANDOM**0.5)

    def sums(rows: slice | NDArray[np.int64]) -> tuple[Floats, Floats]:
        return (train[rows].T @ train[rows]).astype(np.float64), (train[rows].T @ shares[rows]).astype(np.float64)

    def head(gram: Floats, products: Floats, records: int) -> Floats:
        gram = gram + ridge * records * np.eye(RANDOM)
        weight: Floats = cho_solve(cho_factor(gram, overwrite_a=True, check_finite=False), products)
        return weight

    (gram, products), summing = spent(lambda: sums(slice(None)))
    weight, solving = spent(lambda: head(gram, products, len(train)))
    leaving = stand.rows_of[stand.leavers(1)[0]]
    own, taking = spent(lambda: sums(leaving))
    _, again = spent(lambda: head(gram - own[0], products - own[1], len(train) - len(leaving)))
    scores = (lifted(stand.last(stand.test)) / np.float32(RANDOM**0.5)) @ weight
    storage = gram.nbytes // 4 + products.nbytes // 2 + weight.nbytes // 2 + mixing.nbytes  # half a Gram matrix, in float32
    chosen = {"ridge": ridge, "temperature": temperature}
    answer = softmax(scores / temperature, axis=1)
    return Outcome(answer, known, summing + solving, taking + again, stand.own, storage, chosen=chosen)


def neighbours(stand: Stand) -> Outcome:
    """Votes of the nearest records by cosine, in the last layer; a deletion drops rows."""
    train = stand.last(stand.train)
    count = min(NEIGHBOURS, len(train))
    model, seconds = spent(
        lambda: KNeighborsClassifier(count, metric="cosine", weights="distance", algorithm="brute").fit(train, stand.train.labels)
    )
    answer = model.predict_proba(stand.last(stand.test)).astype(np.float64)
    return Outcome(answer, [str(label) for label in model.classes_], seconds, 0.0, 0.0, train.nbytes)


def _unit_rows(rows: NDArray[np.floating]) -> Floats:
    long: Floats = rows.astype(np.float64)
    long /= np.maximum(np.linalg.norm(long, axis=1, keepdims=True), 1e-12)
    return long


def _cosines(train: Rows, labels: list[str], asked: Rows) -> tuple[Floats, list[str]]:
    """(m, k) cosines between records and the labels' mean records."""
    known = sorted(set(labels))
    means = indicator(labels, known).T @ _unit_rows(train)
    return _unit_rows(asked) @ _unit_rows(means).T, known


def class_means(stand: Stand) -> Outcome:
    """The nearest class mean by cosine, in the last layer; a deletion subtracts from one or some of the means."""
    public, labels = stand.last(stand.public), np.array(stand.public.labels, dtype=object)
    temperature = temperature_for(
        lambda kept, out: _cosines(public[kept], labels[kept].tolist(), public[out]), stand.public.labels, stand.public.people
    )
    train = stand.last(stand.train)
    (scores, known), seconds = spent(lambda: _cosines(train, stand.train.labels, stand.last(stand.test)))
    storage = len(known) * (train.shape[1] + 1) * 4
    answer = softmax(scores / temperature, axis=1)
    return Outcome(answer, known, seconds, 0.0, stand.own, storage, chosen={"temperature": temperature})


OURS = "ours: discriminant of exact sums, all depths (served)"
LAST = "logistic regression, last layer"
DEEP = "logistic regression, all depths"
ONE_PROMPT = "one prompt and head for all, by SGD"
FINE_TUNED = "full fine-tuning"
THROUGH_NETWORK = {ONE_PROMPT, FINE_TUNED}  # measured with --device cuda, the others without
PEERS: dict[str, Callable[[Stand], Outcome]] = {
    OURS: discriminant,
    LAST: logistic_last,
    DEEP: logistic_deep,
    "RanPAC-style ridge, last layer": random_ridge,
    "k-NN, last layer": neighbours,
    "nearest class mean, last layer": class_means,
    "ours before: ridge over Fourier features": fourier_ridge,
    "the paper's clustering, closed heads": paper,
    "SISA over the frozen backbone, 16 shards": shards,
    "one head by SGD, all depths": tuned_head,
    ONE_PROMPT: one_prompt,
    FINE_TUNED: fine_tuned,
}
