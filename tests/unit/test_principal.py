"""Public principal axes: whole numbers, the same each time; what is projected is exact and a function of its own record."""

import numpy as np
import pytest
from builders import whole_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters import principal
from lmeraser.clusters.principal import AXIS_STEPS, principal_axes, project
from lmeraser.clusters.quantisation import LIMIT, STEPS, Integers

seeds = st.integers(0, 2**32 - 1)


def stretched(seed: int, n: int, d: int) -> Integers:
    """(n, d) whole numbers whose directions have clearly different variances."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    points: Integers = np.rint(rng.normal(size=(n, d)) * 300 * 0.6 ** np.arange(d) @ turn.T)
    return points


def spanned(axes: Integers) -> NDArray[np.float64]:
    """The projection on the space of some axes."""
    basis: NDArray[np.float64] = np.linalg.qr(axes)[0]
    return basis @ basis.T


@given(seeds, st.integers(2, 30), st.integers(1, 12), st.integers(1, 12))
def test_axes_are_whole_of_unit_length_at_right_angles_and_each_points_where_its_largest_entry_is_positive(
    seed: int, n: int, d: int, dim: int
) -> None:
    axes = principal_axes(whole_numbers(np.random.default_rng(seed), n, d), dim)
    assert axes.shape[0] == d
    assert axes.shape[1] <= min(dim, d, n - 1)
    assert np.array_equal(axes, np.rint(axes))
    assert np.allclose(axes.T @ axes / AXIS_STEPS**2, np.eye(axes.shape[1]), atol=5e-3)
    assert (axes.max(0) >= -axes.min(0)).all()  # rounded, two entries can be equally large: one of them is positive


def test_axes_are_those_of_the_greatest_variance_and_are_not_whitened() -> None:
    points = stretched(1, 400, 6)
    variance = np.linalg.eigvalsh(np.cov(points.T))[::-1]
    along = project(points, principal_axes(points, 3))
    assert np.allclose(along.var(0, ddof=1), variance[:3], rtol=0.01)


@pytest.mark.parametrize(("n", "d"), [(9, 30), (40, 7)])
def test_axes_of_few_records_and_of_few_features_are_the_principal_ones(n: int, d: int) -> None:
    """They are decomposed on the shorter side."""
    points = stretched(2, n, d)
    vectors = np.linalg.svd(points - points.mean(0))[2]
    axes = principal_axes(points, 3)
    assert np.allclose(spanned(axes), spanned(vectors[:3].T), atol=1e-2)
    cosines = np.abs((axes / AXIS_STEPS * vectors[:3].T).sum(0))
    assert np.allclose(cosines, 1, atol=1e-3), "in the order of their variances"


def test_both_sides_span_the_same_space() -> None:
    """Six records of nine features are decomposed on the records' side; each of them twice, on the features'."""
    points = stretched(3, 6, 9)
    repeated = principal_axes(np.repeat(points, 2, axis=0), 4)
    assert repeated.shape == (9, 4)
    assert np.allclose(spanned(principal_axes(points, 4)), spanned(repeated), atol=1e-2)


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_there_are_no_more_axes_than_directions_in_which_records_differ(seed: int, directions: int, repeats: int) -> None:
    rng = np.random.default_rng(seed)
    some = whole_numbers(rng, 1, 10) + np.vstack([np.zeros((1, 10)), np.eye(10)[:directions] * 500])
    points = np.repeat(some, repeats, axis=0)
    assert principal_axes(points, 8).shape == (10, directions)
    assert principal_axes(np.repeat(some[:1], 5, axis=0), 8).shape == (10, 0)


@given(seeds)
def test_axes_twice_have_the_same_bits(seed: int) -> None:
    points = whole_numbers(np.random.default_rng(seed), 20, 8)
    assert principal_axes(points, 5).tobytes() == principal_axes(points.copy(), 5).tobytes()


def test_records_beyond_the_first_move_no_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal, "RECORDS", 20)
    points = stretched(5, 30, 6)
    assert np.array_equal(principal_axes(points, 3), principal_axes(points[:20], 3))


@settings(max_examples=40)
@given(seeds, st.integers(1, 6), st.integers(1, 40), st.integers(1, 6))
def test_projection_is_that_of_pythons_integers_and_its_rows_are_their_own(seed: int, n: int, d: int, p: int) -> None:
    rng = np.random.default_rng(seed)
    points = whole_numbers(rng, n, d, LIMIT * STEPS)
    axes = whole_numbers(rng, d, p, int(AXIS_STEPS))
    along = project(points, axes)
    exact = [[sum(int(a) * int(b) for a, b in zip(row, axis, strict=True)) for axis in axes.T] for row in points]
    for row, expected in zip(along, exact, strict=True):
        for value, total in zip(row, expected, strict=True):
            assert abs(int(value) * int(AXIS_STEPS) - total) * 2 <= AXIS_STEPS
    chosen = rng.permutation(n)[: rng.integers(1, n + 1)]
    assert project(points[chosen], axes).tobytes() == along[chosen].tobytes()


def test_sums_of_a_very_wide_network_are_still_exact() -> None:
    """The greatest feature along the greatest axis, twenty thousand times: below 2**53."""
    width, odd = 20_000, 3.0
    points, axes = np.full((1, width), LIMIT * STEPS - 1.0), np.full((width, 1), AXIS_STEPS - 1)
    axes[0] = odd
    total = (LIMIT * STEPS - 1) * ((width - 1) * (int(AXIS_STEPS) - 1) + int(odd))
    assert (points @ axes).item() == total
    assert project(points, axes).item() == round(total / AXIS_STEPS)
