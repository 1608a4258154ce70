"""Whole-number features: sums, means and distances are exact, so order, blocking and neighbours do not matter."""

import numpy as np
from builders import whole_numbers
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.clusters.quantisation import LIMIT, STEPS, mean_by_group, quantise, squared_distances

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
