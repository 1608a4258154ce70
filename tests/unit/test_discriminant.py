"""The discriminant: linear discriminant analysis wherever that is defined, and defined wherever there is a record."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from builders import make_params, whole_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

from lmeraser.clusters import discriminant
from lmeraser.clusters.discriminant import (
    EVENNESSES,
    FOLDS,
    GROWTH,
    NEAREST,
    SHRINKAGES,
    TEMPERATURES,
    UNTOLD,
    Chosen,
    Discriminant,
    Floats,
    Priors,
    _scores,
    choose,
    growth_of,
    log_priors,
    moves_of,
    share_of,
)
from lmeraser.clusters.global_head import GlobalHead, Rule, solve
from lmeraser.core.digest import number_from
from lmeraser.core.params import Head
from lmeraser.learn.embedding import exact_sums

LEVELS = 127
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def params_head(
    priors: Priors, shrinkage: float | None = None, evenness: float | None = None, temperature: float | None = None
) -> Head:
    given = {"head.shrinkage": shrinkage, "head.evenness": evenness, "head.temperature": temperature}
    return make_params({"head.kind": "discriminant", "head.priors": priors} | given).head


SHARES = (0.03, 0.1, 0.2, 0.3, 0.5, 0.7)


def solved(
    summands: Floats,
    labels: Sequence[str],
    shrinkage: float = 0.2,
    priors: Priors = "records",
    unit: Floats | None = None,
    temperature: float = 1.0,
    evenness: float = 0.0,
) -> GlobalHead:
    """Args: shrinkage: as a share; the product counts it in records a label."""
    each = len(labels) / len(set(labels))
    shrinkage = shrinkage * each / max(1 - shrinkage, 1e-12)
    head = params_head(priors)
    rule = Rule(head, LEVELS, np.zeros(0) if unit is None else unit, Chosen(shrinkage, evenness, temperature), None)
    return solve([exact_sums(summands, labels)], rule)


def scores(head: GlobalHead, summands: Floats) -> Floats:
    return summands @ head.weight.T + head.bias


def drawn(seed: int, n: int, p: int, k: int) -> tuple[Floats, list[str]]:
    """(n, p) whole numbers whose means differ by label; every one of the k labels has a record where there are enough."""
    rng = np.random.default_rng(seed)
    code = np.concatenate([np.arange(min(k, n)), rng.integers(0, k, max(n - k, 0))])
    means = rng.integers(-40, 41, (k, p))
    return np.clip(means[code] + whole_numbers(rng, n, p, 40), -LEVELS, LEVELS), [f"label-{index}" for index in code]


@given(seeds, st.integers(2, 4), st.integers(1, 8), st.sampled_from(SHARES))
def test_scores_are_those_of_shrunk_linear_discriminant_analysis(seed: int, k: int, p: int, shrinkage: float) -> None:
    """scikit-learn divides the scatter by n, we by n - k; its scores have another common part, which softmax does not see."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    summands, labels = drawn(seed, 40, p, k)
    unit = np.random.default_rng(seed).integers(1, 9, p) / 16
    features = summands * unit
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features, labels)
    head = solved(summands, labels, shrinkage, unit=unit)
    assert head.labels == list(model.classes_)
    wanted = np.atleast_2d(features @ model.coef_.T) + model.intercept_
    ours = scores(head, summands)
    if k == 2:  # it keeps the difference alone
        wanted, ours = wanted.reshape(-1, 1), (ours[:, 1] - ours[:, 0])[:, None]
        prior = np.diff(np.log(model.priors_))
    else:
        prior = np.log(model.priors_)
    freedom = (40 - k) / 40
    expected, had = (wanted - prior) * freedom, ours - prior
    if k > 2:
        expected, had = expected - expected.mean(1, keepdims=True), had - had.mean(1, keepdims=True)
    assert np.allclose(expected, had, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@st.composite
def odd_records(draw: st.DrawFn) -> tuple[Floats, list[str]]:
    """Few records, few different values, more features than records, labels with one record, constant features."""
    n, p = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    values = draw(st.lists(st.sampled_from([-LEVELS, -1, 0, 1, 64, LEVELS]), min_size=1, max_size=3))
    chosen = draw(st.lists(st.lists(st.sampled_from(values), min_size=p, max_size=p), min_size=n, max_size=n))
    labels = draw(st.lists(st.sampled_from(["one", "two", "three"]), min_size=n, max_size=n))
    return np.array(chosen, dtype=np.float64), labels


@settings(max_examples=100)
@given(
    odd_records(),
    st.sampled_from([*SHARES, 1.0, 1e-4]),
    st.sampled_from(["records", "even"]),
    st.sampled_from([1e-3, 1, 20.0]),
    st.sampled_from([*EVENNESSES, 1.0]),
)
def test_whatever_records_there_are_probabilities_sum_to_one(
    records: tuple[Floats, list[str]], shrinkage: float, priors: Priors, unit: float, evenness: float
) -> None:
    summands, labels = records
    head = solved(summands, labels, shrinkage, priors, np.full(summands.shape[1], unit), 2.0, evenness)
    assert head.labels == sorted(set(labels))
    asked = np.vstack([summands, whole_numbers(np.random.default_rng(0), 3, summands.shape[1], LEVELS)])
    probabilities = head.probabilities(asked)
    assert np.allclose(probabilities.sum(1), 1)
    assert (probabilities >= 0).all()
    if len(head.labels) == 1:
        assert (probabilities == 1).all()


@given(seeds, st.integers(2, 6), st.integers(1, 20))
def test_where_each_label_has_one_record_the_nearest_answers(seed: int, k: int, p: int) -> None:
    summands = whole_numbers(np.random.default_rng(seed), k, p, LEVELS)
    labels = [f"label-{index}" for index in range(k)]
    asked = whole_numbers(np.random.default_rng(seed + 1), 5, p, LEVELS)
    distance = ((asked[:, None] - summands[None]) ** 2).sum(2)
    margin = np.sort(distance, axis=1)
    clear = margin[:, 1] - margin[:, 0] > 1e-6 * margin[:, 1]
    answer = scores(solved(summands, labels, unit=np.full(p, 1 / 16)), asked).argmax(1)
    assert np.array_equal(answer[clear], distance.argmin(1)[clear])


@pytest.mark.parametrize("repeats", [1, 2])
def test_many_labels_whose_records_do_not_differ_are_told_apart_though_features_are_large(repeats: int) -> None:
    """What rounding leaves of the scatter within labels is no variance: it has no inverse."""
    summands = np.rint(np.random.default_rng(0).normal(size=(400, 60)) * 40).clip(-LEVELS, LEVELS)
    labels = [f"label-{index:03d}" for index in range(400)]
    head = solved(np.repeat(summands, repeats, axis=0), np.repeat(labels, repeats).tolist(), unit=np.full(60, 20.0))
    assert np.array_equal(scores(head, summands).argmax(1), np.arange(400))


@given(seeds, st.integers(1, 8), st.integers(1, 12), st.sampled_from([*EVENNESSES, 1.0]))
def test_two_labels_with_the_same_images_are_equally_likely(seed: int, n: int, p: int, evenness: float) -> None:
    summands = whole_numbers(np.random.default_rng(seed), n, p, LEVELS)
    head = solved(np.vstack([summands, summands]), ["one"] * n + ["two"] * n, evenness=evenness)
    assert np.allclose(head.probabilities(summands), 0.5)


def test_feature_that_is_constant_changes_no_probability() -> None:
    """But for its share in the mean variance, which shrinkage is towards."""
    summands, labels = drawn(3, 60, 5, 3)
    dead = np.hstack([summands, np.full((60, 1), 9.0)])
    less = 0.2 * 5 / 6 / (0.8 + 0.2 * 5 / 6)  # of six features, one of them dead, the mean variance is 5/6
    wide, narrow = solved(dead, labels, 0.2, "even"), solved(summands, labels, less, "even")
    assert np.abs(wide.weight[:, 5]).max() < 1e-9 * np.abs(wide.weight).max()
    assert np.allclose(scores(wide, dead) * 0.8, scores(narrow, summands) * (1 - less))


def test_priors_are_the_records_or_even() -> None:
    summands, labels = drawn(4, 60, 5, 2)
    summands, labels = np.vstack([summands, summands]), [*labels, *["label-0"] * 60]
    by_records, even = (scores(solved(summands, labels, priors=priors), summands) for priors in ("records", "even"))
    share = np.array([labels.count("label-0"), labels.count("label-1")]) / 120
    assert np.allclose(by_records - even, np.log(share))


@pytest.mark.parametrize("priors", ["records", "even"])
def test_priors_of_every_kind_of_counts_are_told(priors: Priors) -> None:
    counts = np.array([[1.0, 3.0], [0.5, 0.5]])
    expected = np.zeros((2, 2)) if priors == "even" else np.log([[0.25, 0.75], [0.5, 0.5]])
    assert np.allclose(log_priors(counts, priors), expected)


@given(seeds, st.integers(-3, 3))
def test_unit_of_all_features_moves_no_probability(seed: int, power: int) -> None:
    summands, labels = drawn(seed, 30, 6, 3)
    plain = solved(summands, labels)
    scaled = solved(summands, labels, unit=np.full(6, 2.0**power))
    assert np.allclose(scores(plain, summands), scores(scaled, summands))


@given(seeds)
def test_finer_steps_of_the_same_features_give_the_same_bits(seed: int) -> None:
    summands, labels = drawn(seed, 30, 6, 3)
    coarse = solved(summands, labels, unit=np.full(6, 0.5))
    fine = solved(summands * 2, labels, unit=np.full(6, 0.25))
    assert (fine.weight * 2).tobytes() == coarse.weight.tobytes()
    assert fine.bias.tobytes() == coarse.bias.tobytes()


def test_shrinkage_is_towards_the_mean_variance_in_units_of_features() -> None:
    """Wholly shrunk, it is the nearest mean in those units, however coarse the steps of one of them are."""
    summands, labels = drawn(6, 40, 4, 3)
    unit = np.array([1.0, 0.01, 1.0, 1.0])
    head = solved(summands, labels, 1.0, "even", unit)
    features = summands * unit
    means = np.stack([features[np.array(labels) == label].mean(0) for label in head.labels])
    distance = ((features[:, None] - means[None]) ** 2).sum(2)
    assert np.array_equal(scores(head, summands).argmax(1), distance.argmin(1))


def test_temperature_divides_the_scores_and_grows_with_the_distances_of_labels() -> None:
    summands, labels = drawn(7, 40, 4, 3)
    warm = solved(summands, labels, temperature=5.0, evenness=0.5)
    assert warm.temperature is not None
    assert warm.temperature == pytest.approx(5 * growth_of(shared_of(summands, labels, 0.2 * 40 / 3 / 0.8).distances))
    assert np.allclose(np.log(warm.probabilities(summands)), log_softmax(scores(warm, summands) / warm.temperature, axis=1))


# labels' distances


def shared_of(summands: Floats, labels: Sequence[str], shrinkage: float, evenness: float = 0.0) -> Discriminant:
    sums = exact_sums(summands, labels)
    gram, by_label = sums.gram.astype(np.float64), sums.by_label.astype(np.float64)
    return Discriminant.of(gram, by_label, sums.counts.astype(np.float64), np.ones(summands.shape[1]), shrinkage, evenness)


@settings(max_examples=40)
@given(seeds, st.integers(3, 6), st.sampled_from([*EVENNESSES, 1.0]))
def test_scores_are_those_of_means_that_were_moved(seed: int, k: int, evenness: float) -> None:
    """By hand: each mean moved along the line to the middle, under the same covariance."""
    summands, labels = drawn(seed, 60, 5, k)
    plain = shared_of(summands, labels, 3.0)
    inverse = np.linalg.inv(np.tril(plain.factor[0]) @ np.tril(plain.factor[0]).T)
    from_middle = plain.means - plain.means.mean(0)
    distances = np.einsum("kp,pq,kq->k", from_middle, inverse, from_middle)
    assert np.allclose(distances, plain.distances)
    ratio = distances.mean() / np.maximum(distances, distances.mean() * NEAREST)
    moved = from_middle * ratio[:, None] ** (evenness / 2)
    wanted = (summands - plain.middle) @ inverse @ moved.T - 0.5 * np.einsum("kp,pq,kq->k", moved, inverse, moved)
    weight, bias = shared_of(summands, labels, 3.0, evenness).scores()
    assert np.allclose(summands @ weight.T + bias, wanted, atol=1e-6 * np.abs(wanted).max())


@given(seeds, st.integers(2, 6))
def test_no_evenness_moves_nothing_and_a_whole_one_makes_all_labels_equally_far(seed: int, k: int) -> None:
    distances = np.random.default_rng(seed).uniform(1, 9, k)
    assert np.array_equal(moves_of(distances, 0.0), np.ones(k))
    assert np.allclose(moves_of(distances, 1.0) ** 2 * distances, distances.mean())
    half = moves_of(distances, 0.5) ** 2 * distances
    assert np.array_equal(half.argsort(), distances.argsort())
    assert np.ptp(half) <= np.ptp(distances)


@given(seeds, st.sampled_from([*EVENNESSES, 1.0]))
def test_two_labels_are_equally_far_and_stay(seed: int, evenness: float) -> None:
    """However unequal their counts are: the middle is that of the labels, not of the records."""
    summands, labels = drawn(seed, 40, 5, 2)
    labels = [*labels[:2], *["label-0"] * 38]
    plain, even = solved(summands, labels), solved(summands, labels, evenness=evenness)
    assert np.allclose(scores(plain, summands), scores(even, summands))


def test_label_in_the_middle_of_all_is_moved_by_a_bounded_factor() -> None:
    distances = np.array([0.0, 1e-30, 4.0, 5.0])
    assert moves_of(distances, 1.0).max() == NEAREST**-0.5
    assert np.array_equal(moves_of(np.zeros(3), 0.5), np.ones(3))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_temperature_never_grows_by_less_than_one(distances: list[float]) -> None:
    growth = growth_of(np.array(distances))
    assert growth >= 1
    assert growth == pytest.approx(max(float(np.mean(distances)), 1.0) ** GROWTH)


@settings(max_examples=30)
@given(seeds, st.sampled_from([*EVENNESSES, 1.0]), st.data())
def test_who_leaves_the_sums_was_never_in_them(seed: int, evenness: float, data: st.DataObject) -> None:
    """Distances and what they move and warm are functions of whole numbers: bits are those of a rebuild."""
    summands, labels = drawn(seed, 20, 6, 3)
    leaves = np.array(data.draw(st.lists(st.booleans(), min_size=20, max_size=20)))
    if leaves.all():
        return
    rule = Rule(params_head("records"), LEVELS, np.full(6, 1 / 16), Chosen(20.0, evenness, 0.5), None)
    names = np.array(labels, dtype=object)
    everybody, leaving, kept = (
        exact_sums(summands[rows], names[rows].tolist()) for rows in (np.ones(20, dtype=bool), leaves, ~leaves)
    )
    without, rebuilt = solve([everybody], rule, leaving=leaving), solve([kept], rule)
    assert without.labels == rebuilt.labels
    assert without.weight.tobytes() == rebuilt.weight.tobytes()
    assert (without.bias.tobytes(), without.temperature) == (rebuilt.bias.tobytes(), rebuilt.temperature)


# the choice on public records


@settings(max_examples=40)
@given(seeds, st.integers(4, 30), st.integers(1, 25), st.integers(2, 4), st.sampled_from(["records", "even"]))
def test_fast_scores_are_those_of_the_solve(seed: int, n: int, p: int, k: int, priors: Priors) -> None:
    summands, labels = drawn(seed, n, p, min(k, n))
    unit = np.full(p, 1 / 16)
    code = np.unique(labels, return_inverse=True)[1]
    asked = whole_numbers(np.random.default_rng(seed), 4, p, LEVELS)
    fast = _scores(summands * unit, code, asked * unit, priors, SHRINKAGES, EVENNESSES)
    for (shrinkage, evenness), ours in zip(itertools.product(SHRINKAGES, EVENNESSES), fast, strict=True):
        share = share_of(shrinkage, n, len(set(labels)))
        head = solved(summands, labels, share, priors, unit, 1.0, evenness)
        slow = scores(head, asked) / (head.temperature or 0)
        assert np.allclose(ours, slow, rtol=1e-6, atol=1e-6 * np.abs(slow).max())


def public(seed: int = 0, n: int = 90, p: int = 12, k: int = 3) -> tuple[Floats, list[str], list[str]]:
    """Features, labels and people, three records each."""
    summands, labels = drawn(seed, n, p, k)
    return summands / 16, labels, [f"person-{row // 3}" for row in range(n)]


@pytest.mark.parametrize("priors", ["records", "even"])
@pytest.mark.parametrize("seed", range(3))
def test_choice_is_that_of_the_least_log_loss_of_people_who_were_left_out(
    seed: int, priors: Priors, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels, people = public(seed)
    fold = np.array([number_from("fold", person) % FOLDS for person in people])
    losses: dict[tuple[float, float, float], float] = {}
    for shrinkage, evenness in itertools.product(SHRINKAGES, EVENNESSES):
        for temperature in TEMPERATURES[::3]:
            loss = 0.0
            for place in range(FOLDS):
                kept = fold != place
                names = sorted({label for label, stays in zip(labels, kept, strict=True) if stays})
                right = np.array([names.index(label) for label, stays in zip(labels, kept, strict=True) if not stays])
                sums = exact_sums(features[kept] * 16, [label for label, stays in zip(labels, kept, strict=True) if stays])
                gram, by_label = sums.gram.astype(np.float64), sums.by_label.astype(np.float64)
                shared = Discriminant.of(gram, by_label, sums.counts.astype(np.float64), np.full(12, 1 / 16), shrinkage, evenness)
                weight, bias = shared.scores()
                given_out = features[~kept] * 16 @ weight.T + bias + log_priors(shared.counts, priors)
                warm = given_out / (temperature * growth_of(shared.distances))
                loss -= log_softmax(warm, axis=1)[np.arange(len(right)), right].sum()
            losses[shrinkage, evenness, temperature] = loss
    monkeypatch.setattr(discriminant, "TEMPERATURES", TEMPERATURES[::3])
    assert choose(features, labels, people, params_head(priors)) == min(losses, key=lambda values: losses[values])


def test_nobody_is_scored_by_a_fit_that_saw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, people = public()
    features = features + np.arange(len(people))[:, None] // 3 * 1000  # whose it is
    true_scores, asked_of = discriminant._scores, []

    def watched(train: Floats, code: NDArray[np.int64], asked: Floats, *rest: Any) -> Iterator[Floats]:
        owners = [set((rows[:, 0] / 1000).round().tolist()) for rows in (train, asked)]
        assert not owners[0] & owners[1]
        asked_of.append(len(asked))
        return true_scores(train, code, asked, *rest)

    monkeypatch.setattr(discriminant, "_scores", watched)
    choose(features, labels, people, params_head("records"))
    assert sum(asked_of) == len(people), "and everybody is scored once"


GIVEN = (st.none() | st.just(0.123), st.none() | st.just(0.0) | st.just(0.9), st.none() | st.just(4.56))


@given(seeds, *GIVEN)
def test_what_is_given_stays(seed: int, shrinkage: float | None, evenness: float | None, temperature: float | None) -> None:
    given_values = shrinkage, evenness, temperature
    chosen = choose(*public(seed % 5, 30, 4), params_head("even", *given_values))
    for value, stays, tried in zip(chosen, given_values, (SHRINKAGES, EVENNESSES, TEMPERATURES), strict=True):
        assert value == stays if stays is not None else value in tried


def test_where_public_records_cannot_tell_it_is_the_same_each_time() -> None:
    features, labels, people = public()
    alone, one_label = ["person-0"] * len(people), ["one"] * len(labels)
    each_their_own = people
    for odd in ((features, labels, alone), (features, one_label, people), (features[:0], [], [])):
        assert choose(*odd, params_head("records")) == UNTOLD
        assert choose(*odd, params_head("records", shrinkage=0.5)) == UNTOLD._replace(shrinkage=0.5)
        assert choose(*odd, params_head("records", evenness=0.0)) == UNTOLD._replace(evenness=0.0)
        assert choose(*odd, params_head("records", temperature=3.0)) == UNTOLD._replace(temperature=3.0)
    # Labels that nobody else has can be asked of nobody.
    assert choose(features, each_their_own, people, params_head("records")) == UNTOLD


def test_choice_is_deterministic_and_does_not_depend_on_names_of_labels() -> None:
    features, labels, people = public(8)
    chosen = choose(features, labels, people, params_head("records"))
    assert choose(features.copy(), list(labels), list(people), params_head("records")) == chosen
    renamed = [label.replace("label-", "étiquette ") for label in labels]
    assert choose(features, renamed, people, params_head("records")) == chosen


def test_records_beyond_the_first_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "RECORDS", 45)
    features, labels, people = public(9)
    first = choose(features[:45], labels[:45], people[:45], params_head("records"))
    features[45:] = 7
    assert choose(features, labels, people, params_head("records")) == first


@given(st.floats(1e-6, 1e6), st.integers(1, 10**7), st.integers(1, 1000))
def test_share_of_the_mean_variance_falls_as_labels_get_records(shrinkage: float, records: int, labels: int) -> None:
    share = share_of(shrinkage, records, labels)
    assert 0 < share <= 1
    assert share_of(shrinkage, 2 * records, labels) <= share
    assert share_of(2 * shrinkage, records, labels) >= share
    assert share_of(shrinkage, 3 * records, 3 * labels) == pytest.approx(share), "records of a label count, not all"
