"""The global head: sums are exact whatever the order and the parts; taking a record out equals never adding it."""

from pathlib import Path

import numpy as np
import pytest
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.clusters.global_head import GlobalHead, Sums, load_head, load_sums, save_head, save_sums, solve
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.learn.embedding import exact_sums

LEVELS = 16
seeds = st.integers(0, 2**32 - 1)


def fourier(rng: np.random.Generator, n: int, size: int = 12) -> np.ndarray:
    return rng.integers(-LEVELS, LEVELS + 1, (n, size)).astype(np.float64)


def labels_for(rng: np.random.Generator, n: int) -> list[str]:
    return [f"label-{index}" for index in rng.integers(0, 3, n)]


def sums_of(features: np.ndarray, labels: list[str]) -> Sums:
    gram, by_label, classes = exact_sums(features, labels)
    return Sums(gram, by_label, classes, len(labels))


def same(head: GlobalHead, other: GlobalHead) -> bool:
    return head.weight.tobytes() == other.weight.tobytes() and (head.labels, head.levels) == (other.labels, other.levels)


@given(seeds, st.integers(2, 40), st.integers(1, 5))
def test_head_does_not_depend_on_the_order_of_records_nor_on_how_parts_divide_them(seed: int, n: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels = fourier(rng, n), labels_for(rng, n)
    whole = solve([sums_of(features, labels)], 0.001, LEVELS)
    order, part = rng.permutation(n), rng.integers(0, parts, n)
    divided = []
    for place in range(parts):
        inside = [row for row in order if part[row] == place]
        divided.append(sums_of(features[inside], [labels[row] for row in inside]))
    assert same(solve(divided, 0.001, LEVELS), whole)
    assert same(solve(divided[::-1], 0.001, LEVELS), whole)


@given(seeds, st.integers(3, 40))
def test_taking_a_record_out_equals_never_adding_it(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels = fourier(rng, n), labels_for(rng, n)
    with_it, alone = sums_of(features, labels), sums_of(features[:1], labels[:1])
    by_label = with_it.by_label.copy()
    by_label[with_it.labels.index(labels[0])] -= alone.by_label[0]
    if labels[0] not in labels[1:]:
        by_label = np.delete(by_label, with_it.labels.index(labels[0]), axis=0)
    kept = sorted(set(labels[1:]))
    taken = Sums(with_it.gram - alone.gram, by_label, kept, n - 1)
    assert same(solve([taken], 0.001, LEVELS), solve([sums_of(features[1:], labels[1:])], 0.001, LEVELS))


def test_sums_are_those_of_pythons_integers() -> None:
    rng = np.random.default_rng(3)
    features, labels = fourier(rng, 9), labels_for(rng, 9)
    sums = sums_of(features, labels)
    whole = [[int(value) for value in row] for row in features]
    assert sums.gram.tolist() == [[sum(row[i] * row[j] for row in whole) for j in range(12)] for i in range(12)]
    for label, row in zip(sums.labels, sums.by_label.tolist(), strict=True):
        assert row == [sum(w[i] for w, name in zip(whole, labels, strict=True) if name == label) for i in range(12)]


def test_label_that_left_is_unknown_to_the_head() -> None:
    rng = np.random.default_rng(0)
    head = solve([sums_of(fourier(rng, 4), ["a", "a", "b", "b"]), sums_of(fourier(rng, 0), [])], 0.001, LEVELS)
    assert head.labels == ["a", "b"]


@given(seeds, st.integers(1, 20))
def test_probabilities_are_normalised(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    head = solve([sums_of(fourier(rng, 20), labels_for(rng, 20))], 0.1, LEVELS)
    probabilities = head.probabilities(fourier(rng, n))
    assert probabilities.shape == (n, len(head.labels))
    assert np.allclose(probabilities.sum(1), 1)
    assert (probabilities >= 0).all()


def test_image_that_fits_no_label_gets_equal_probabilities() -> None:
    head = GlobalHead(np.full((4, 2), -1.0), list("abcd"), LEVELS)
    assert head.probabilities(np.ones((1, 2))).tolist() == [[0.25] * 4]


def test_head_learns_what_can_be_learnt() -> None:
    rng = np.random.default_rng(1)
    features = fourier(rng, 60)
    labels = ["high" if row[0] > 0 else "low" for row in features]
    head = solve([sums_of(features, labels)], 0.001, LEVELS)
    guess = [head.labels[index] for index in head.probabilities(features).argmax(1)]
    assert np.mean(np.array(guess) == np.array(labels)) > 0.8


@given(seeds, st.integers(0, 10), st.integers(1, 9))
def test_sums_and_head_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    rng = np.random.default_rng(seed)
    sums = sums_of(fourier(rng, n, size), labels_for(rng, n))
    save_sums(folder / "sums", sums, {})
    read_back = load_sums(folder / "sums")
    assert np.array_equal(read_back.gram, sums.gram)
    assert np.array_equal(read_back.by_label, sums.by_label)
    assert (read_back.labels, read_back.records) == (sums.labels, sums.records)
    if n:
        head = solve([sums], 0.5, LEVELS)
        save_head(folder / "head", head)
        assert same(load_head(folder / "head"), head)


def test_missing_sums_are_refused(tmp_path: Path) -> None:
    refused(ProjectError, lambda: load_sums(tmp_path / "sums.safetensors"))


def test_part_too_large_for_32_bit_sums_is_refused() -> None:
    message = refused(ParamsError, lambda: exact_sums(np.full((1, 2), 50_000.0), ["CANARY"]))
    assert "append more parts" in message
