"""Whole-number features: sums, means and distances are exact, so order, blocking and neighbours do not matter."""

import numpy as np
from builders import whole_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.quantisation import LIMIT, STEPS, WIDEST, mean_by_group, quantise, round_cosines, squared_distances

seeds = st.integers(0, 2**32 - 1)


def half_even(numerator: int, denominator: int) -> int:
    """Round a fraction to a whole number, halves to even, with Python's integers alone."""
    low, rest = divmod(numerator, denominator)
    return low + (2 * rest > denominator or (2 * rest == denominator and low % 2 == 1))


@given(seeds, st.integers(1, 30), st.integers(1, 20), st.integers(1, 600))
def test_distances_are_those_of_pythons_integers(seed: int, n: int, k: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    features, prototypes = whole_numbers(rng, n, dim, LIMIT * STEPS), whole_numbers(rng, k, dim, LIMIT * STEPS)
    rows, columns = int(rng.integers(n)), int(rng.integers(k))
    exact = sum((int(a) - int(b)) ** 2 for a, b in zip(features[rows], prototypes[columns], strict=True))
    assert int(squared_distances(features, prototypes)[rows, columns]) == exact


@given(seeds, st.integers(2, 40))
def test_distance_of_a_record_does_not_depend_on_its_neighbours(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    features, prototypes = whole_numbers(rng, n, 64), whole_numbers(rng, 5, 64)
    together = squared_distances(features, prototypes)
    alone = np.concatenate([squared_distances(features[row : row + 1], prototypes) for row in range(n)])
    assert np.array_equal(together, alone)


@given(seeds, st.integers(1, 40), st.integers(1, 6))
def test_means_are_those_of_pythons_integers(seed: int, n: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    features = whole_numbers(rng, n, 4)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, n)])[:n] if n >= groups else np.zeros(n, dtype=np.int64)
    count = int(group.max()) + 1
    means = mean_by_group(features, group.astype(np.int64), count)
    for place in range(count):
        inside = features[group == place]
        expected = [half_even(sum(map(int, column)), len(inside)) for column in inside.T]
        assert means[place].tolist() == expected


@given(seeds, st.integers(2, 30))
def test_mean_of_a_group_does_not_depend_on_the_order_of_records(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    features, group = whole_numbers(rng, n, 6), np.arange(n) % 3 % n
    order = rng.permutation(n)
    groups = int(group.max()) + 1
    assert np.array_equal(mean_by_group(features, group, groups), mean_by_group(features[order], group[order], groups))


def test_features_become_whole_numbers_within_the_limit() -> None:
    numbers = quantise(np.array([[0.0, 1.0, -1.0, 1e9, -np.inf, 1 / STEPS, 0.4 / STEPS]], dtype=np.float32))
    assert numbers.tolist() == [[0, STEPS, -STEPS, LIMIT * STEPS, -LIMIT * STEPS, 1, 0]]


def test_feature_that_is_no_number_stays_none() -> None:
    assert np.isnan(quantise(np.array([[np.nan]], dtype=np.float32))).all()


def where_levels_meet(levels: int) -> NDArray[np.float64]:
    """Angles whose cosine is at a half level or zero, some turns on, and the nearest numbers on either side."""
    halves = np.concatenate([np.arange(-levels, levels) + 0.5, [0.0, levels, -levels]])
    turns = np.arange(-12, 13)[:, None] * 2 * np.pi
    angle = (np.arccos(halves / levels) + turns).ravel()
    beside = [angle + side * gap for gap in (1e-15, 1e-9, 1e-6, 1e-5, 1e-4) for side in (-1, 1)]
    return np.concatenate([angle, np.nextafter(angle, np.inf), np.nextafter(angle, -np.inf), *beside])


@given(seeds, st.sampled_from([1, 2, 7, 16, 127, 256, 257, 2047]), st.sampled_from([1.0, 10.0, WIDEST, 1e3, 1e9]))
@settings(max_examples=40)
def test_rounded_cosines_are_those_of_float64_bit_for_bit(seed: int, levels: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    meeting = rng.choice(where_levels_meet(levels), 400)
    angle = np.concatenate([rng.uniform(-reach, reach, 400), meeting[np.abs(meeting) <= reach]])[:, None]
    expected = np.rint(np.cos(angle) * levels)
    for rounded in (angle.copy(), np.asfortranarray(np.hstack([angle, angle]))):
        round_cosines(rounded, levels)
        assert np.array_equal(rounded[:, 0].view(np.int64), expected[:, 0].view(np.int64)), "zeros have a sign"


def test_a_float32_cosine_is_as_near_as_the_doubt_takes_for_granted() -> None:
    angle = np.random.default_rng(0).uniform(-WIDEST, WIDEST, 1_000_000)
    assert np.abs(np.cos(angle.astype(np.float32)) - np.cos(angle)).max() < 2**-17.5


def test_cosine_of_what_is_no_number_is_none_and_leaves_its_neighbours() -> None:
    angle = np.array([[np.nan, 0.3, np.pi, 1.0]])
    round_cosines(angle, 16)
    assert np.isnan(angle[0, 0])
    assert angle[0, 1:].tolist() == np.rint(np.cos([0.3, np.pi, 1.0]) * 16).tolist()
