"""The global head of either kind: sums are exact whatever the order and the parts; taking a record out equals never adding it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_params, refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.clusters import global_head
from lmeraser.clusters.discriminant import Chosen
from lmeraser.clusters.global_head import (
    TILE,
    GlobalHead,
    Rule,
    Sums,
    load_head,
    load_sums,
    pack,
    save_head,
    save_sums,
    solve,
    unpack,
)
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.learn.embedding import exact_sums

LEVELS = 16
seeds = st.integers(0, 2**32 - 1)


class Forgetful(dict[bytes, GlobalHead]):
    """Knows no head: each is solved."""

    def __contains__(self, key: object) -> bool:
        return False


@pytest.fixture(autouse=True, scope="module")
def _solved_each_time() -> Iterator[None]:
    """Else two heads that are compared would be one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(global_head, "_SOLVED", Forgetful())
        yield


def fourier(rng: np.random.Generator, n: int, size: int = 12) -> np.ndarray:
    return rng.integers(-LEVELS, LEVELS + 1, (n, size)).astype(np.float64)


def labels_for(rng: np.random.Generator, n: int) -> list[str]:
    return [f"label-{index}" for index in rng.integers(0, 3, n)]


def ridge(share: float = 0.001) -> Rule:
    return Rule(make_params({"head.kind": "ridge", "head.ridge": share}).head, LEVELS, np.zeros(0), Chosen(0.0, 0.0, 1.0), None)


def discriminant(priors: str = "records") -> Rule:
    head = make_params({"head.kind": "discriminant", "head.priors": priors}).head
    return Rule(head, LEVELS, np.zeros(0), Chosen(0.2, 0.5, 4.0), None)


RULES = {"ridge": ridge(), "discriminant": discriminant(), "discriminant, even priors": discriminant("even")}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))


def sums_of(features: np.ndarray, labels: list[str]) -> Sums:
    return exact_sums(features, labels)


def same(head: GlobalHead, other: GlobalHead) -> bool:
    arrays = all(a.tobytes() == b.tobytes() for a, b in ((head.weight, other.weight), (head.bias, other.bias)))
    return arrays and (head.labels, head.levels, head.temperature) == (other.labels, other.levels, other.temperature)


@each_rule
@given(seeds, st.integers(2, 40), st.integers(1, 5))
def test_head_does_not_depend_on_the_order_of_records_nor_on_how_parts_divide_them(
    rule: Rule, seed: int, n: int, parts: int
) -> None:
    rng = np.random.default_rng(seed)
    features, labels = fourier(rng, n), labels_for(rng, n)
    whole = solve([sums_of(features, labels)], rule)
    order, part = rng.permutation(n), rng.integers(0, parts, n)
    divided = []
    for place in range(parts):
        inside = [row for row in order if part[row] == place]
        divided.append(sums_of(features[inside], [labels[row] for row in inside]))
    assert same(solve(divided, rule), whole)
    assert same(solve(divided[::-1], rule), whole)


@each_rule
@given(seeds, st.integers(3, 40), st.integers(1, 3), st.data())
def test_taking_records_out_equals_never_adding_them(rule: Rule, seed: int, n: int, parts: int, data: st.DataObject) -> None:
    """Whoever they are, wherever they stood, and though a label has nobody left."""
    rng = np.random.default_rng(seed)
    features, labels, part = fourier(rng, n), labels_for(rng, n), rng.integers(0, parts, n)
    leaving = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n - 1, unique=True))
    kept = [row for row in range(n) if row not in leaving]

    def divided(rows: list[int]) -> list[Sums]:
        inside = [[row for row in rows if part[row] == place] for place in range(parts)]
        return [sums_of(features[rows], [labels[row] for row in rows]) for rows in inside]

    left_out = sums_of(features[leaving], [labels[row] for row in leaving])
    assert same(solve(divided(list(range(n))), rule, leaving=left_out), solve(divided(kept), rule))


def test_sums_are_those_of_pythons_integers() -> None:
    rng = np.random.default_rng(3)
    features, labels = fourier(rng, 9), labels_for(rng, 9)
    sums = sums_of(features, labels)
    whole = [[int(value) for value in row] for row in features]
    assert sums.gram.tolist() == [[sum(row[i] * row[j] for row in whole) for j in range(12)] for i in range(12)]
    for label, row in zip(sums.labels, sums.by_label.tolist(), strict=True):
        assert row == [sum(w[i] for w, name in zip(whole, labels, strict=True) if name == label) for i in range(12)]
    assert dict(zip(sums.labels, sums.counts.tolist(), strict=True)) == {label: labels.count(label) for label in labels}
    assert sums.records == 9


@each_rule
def test_label_that_left_is_unknown_to_the_head(rule: Rule) -> None:
    rng = np.random.default_rng(0)
    head = solve([sums_of(fourier(rng, 4), ["a", "a", "b", "b"]), sums_of(fourier(rng, 0), [])], rule)
    assert head.labels == ["a", "b"]


@each_rule
@given(seeds, st.integers(1, 20))
def test_probabilities_are_normalised(rule: Rule, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    head = solve([sums_of(fourier(rng, 20), labels_for(rng, 20))], rule)
    probabilities = head.probabilities(fourier(rng, n))
    assert probabilities.shape == (n, len(head.labels))
    assert np.allclose(probabilities.sum(1), 1)
    assert (probabilities >= 0).all()


def test_image_that_fits_no_label_gets_equal_probabilities() -> None:
    head = GlobalHead(np.full((4, 2), -1.0), np.zeros(4), list("abcd"), LEVELS)
    assert head.probabilities(np.ones((1, 2))).tolist() == [[0.25] * 4]


@each_rule
def test_head_learns_what_can_be_learnt(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    features = fourier(rng, 60)
    labels = ["high" if row[0] > 0 else "low" for row in features]
    head = solve([sums_of(features, labels)], rule)
    guess = [head.labels[index] for index in head.probabilities(features).argmax(1)]
    assert np.mean(np.array(guess) == np.array(labels)) > 0.8


@each_rule
@given(seeds, st.integers(0, 10), st.integers(1, 9))
def test_sums_and_head_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rule: Rule, seed: int, n: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    rng = np.random.default_rng(seed)
    sums = sums_of(fourier(rng, n, size), labels_for(rng, n))
    save_sums(folder / "sums", sums, {})
    read_back = load_sums(folder / "sums")
    assert np.array_equal(read_back.gram, sums.gram)
    assert np.array_equal(read_back.by_label, sums.by_label)
    assert np.array_equal(read_back.counts, sums.counts)
    assert (read_back.labels, read_back.records) == (sums.labels, sums.records)
    if n:
        head = solve([sums], rule)
        save_head(folder / "head", head)
        assert same(load_head(folder / "head"), head)


@pytest.mark.parametrize("size", [0, 1, 7, TILE - 1, TILE, TILE + 1, 2 * TILE + 3])
def test_a_gram_matrix_is_packed_into_half_and_comes_back_whole(size: int) -> None:
    below = np.random.default_rng(size).integers(-9, 9, (size, size), dtype=np.int32)
    gram = below + below.T
    packed = pack(gram)
    assert packed.tolist() == gram[np.triu_indices(size)].tolist()
    np.testing.assert_array_equal(unpack(packed), gram)


ANOTHER: dict[str, Callable[[Sums, Rule], tuple[Sums, Rule]]] = {
    "one product": lambda sums, rule: (replace(sums, packed=sums.packed + (np.arange(len(sums.packed)) == 0)), rule),
    "a label's sum": lambda sums, rule: (replace(sums, by_label=sums.by_label + 1), rule),
    "a count": lambda sums, rule: (replace(sums, counts=sums.counts + 1), rule),
    "a label's name": lambda sums, rule: (replace(sums, labels=[f"{label}x" for label in sums.labels]), rule),
    "the levels": lambda sums, rule: (sums, replace(rule, levels=rule.levels + 1)),
    "the choice": lambda sums, rule: (sums, replace(rule, chosen=Chosen(0.9, 0.1, 2.0))),
    "the unit": lambda sums, rule: (sums, replace(rule, unit=np.full(len(sums.gram), 2.0))),
    "the ridge": lambda sums, rule: (sums, replace(rule, head=rule.head.model_copy(update={"ridge": 0.5}))),
}


@each_rule
@pytest.mark.parametrize("change", ANOTHER.values(), ids=list(ANOTHER))
def test_a_head_that_was_just_solved_answers_for_these_very_sums_alone(
    rule: Rule, change: Callable[[Sums, Rule], tuple[Sums, Rule]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    sums = sums_of(fourier(rng, 40), labels_for(rng, 40))
    fresh = [solve([sums], rule), solve([change(sums, rule)[0]], change(sums, rule)[1])]
    monkeypatch.setattr(global_head, "_SOLVED", {})
    first, again = solve([sums], rule), solve([sums], rule)
    assert first is again
    other, other_rule = change(sums, rule)
    assert same(solve([other], other_rule), fresh[1])
    assert same(solve([sums], rule), fresh[0])


def test_missing_sums_are_refused(tmp_path: Path) -> None:
    refused(ProjectError, lambda: load_sums(tmp_path / "sums.safetensors"))


@pytest.mark.parametrize("levels", [127, 2047])
def test_part_is_refused_from_the_first_record_that_32_bits_do_not_hold(levels: int) -> None:
    most = (2**31 - 1) // levels**2
    summands = np.full((most + 1, 2), levels) * np.array([1.0, -1.0])
    greatest = most * levels**2
    assert exact_sums(summands[1:], ["one"] * most).gram.tolist() == [[greatest, -greatest], [-greatest, greatest]]
    message = refused(ParamsError, lambda: exact_sums(summands, ["CANARY"] * (most + 1)))
    assert f"a part's {most + 1} records" in message
    assert "append more parts, or lower projection.levels" in message
