"""The skeleton: public features decide scales, hierarchy and projection once; a feature is a function of its record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Lab, make_record, public_features, refused, slot_names, tiny_params
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import stages.skeleton
from lmeraser.clusters.skeleton import Skeleton, build_skeleton, load_skeleton, save_skeleton
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.core.layout import Layout

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(3, 2, (40, 5)).astype(np.float32)
UNITS = np.arange(40) // 2
LABELS = [("one", "two")[unit % 2] for unit in UNITS]
PLAIN = {"projection.kind": "plain", "projection.levels": 127, "head.kind": "discriminant"}
KINDS = [{}, PLAIN, {"features.dim": 3}, PLAIN | {"features.dim": 3}]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def made(changes: dict[str, Any] | None = None, features: np.ndarray = FEATURES) -> Skeleton:
    return build_skeleton(public_features(features, UNITS, LABELS), tiny_params(changes))


@each_kind
def test_skeleton_twice_has_the_same_bytes_and_reads_back(tmp_path: Path, kind: dict[str, Any]) -> None:
    for name in ("one", "other"):
        save_skeleton(tmp_path / name, made(kind), {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    again = load_skeleton(tmp_path / "one")
    save_skeleton(tmp_path / "again", again, {})
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()
    first = made(kind)
    quantised = first.quantise(FEATURES)
    assert np.array_equal(again.quantise(FEATURES), quantised)
    assert np.array_equal(again.summand(quantised, 127), first.summand(quantised, 127))
    assert (again.last_weight, again.chosen) == (first.last_weight, first.chosen)


def test_public_features_are_standardised() -> None:
    standardised = made().standardise(FEATURES)
    assert np.allclose(standardised.mean(0), 0, atol=1e-5)
    assert np.allclose(standardised.std(0), 1, atol=1e-5)


def test_dead_feature_keeps_a_scale() -> None:
    features = FEATURES.copy()
    features[:, 2] = 0
    skeleton = made({"skeleton.scale_floor": 0.1}, features)
    assert skeleton.scale[2] == pytest.approx(0.1 * features.astype(np.float64).std(0).mean())
    # All alike: still no division by zero.
    assert np.isfinite(made(features=np.ones_like(FEATURES)).standardise(FEATURES)).all()


@each_kind
def test_public_records_that_are_all_alike_have_a_skeleton(kind: dict[str, Any]) -> None:
    alike = made(kind, np.ones_like(FEATURES))
    quantised = alike.quantise(FEATURES)
    assert np.isfinite(quantised).all()
    assert np.isfinite(alike.summand(quantised, 16)).all()
    assert np.isfinite(alike.chosen).all()


@settings(max_examples=20)
@given(st.permutations(range(40)), st.integers(1, 40), st.sampled_from(KINDS), st.integers(1, 127), st.floats(0.1, 1e6))
def test_summands_are_whole_within_the_levels_and_do_not_depend_on_neighbours(
    order: list[int], keep: int, kind: dict[str, Any], levels: int, reach: float
) -> None:
    """Also of private features that lie far beyond the public ones."""
    skeleton = made(kind | {"projection.levels": levels})
    features = (FEATURES - 3) * np.float32(reach)
    together = skeleton.summand(skeleton.quantise(features), levels)
    assert together.shape == (40, skeleton.summands)
    assert np.array_equal(together, np.rint(together))
    assert np.abs(together).max() <= levels
    chosen = order[:keep]
    assert np.array_equal(skeleton.summand(skeleton.quantise(features[chosen]), levels), together[chosen])


DEPTHS = (2, 7, 3)


def deep(changes: dict[str, Any] | None = None) -> tuple[np.ndarray, Skeleton]:
    """Features of three depths, each of another size."""
    features = np.random.default_rng(4).normal(1, np.repeat([0.01, 5, 100], DEPTHS), (60, 12)).astype(np.float32)
    unit = np.arange(60) // 2
    return features, build_skeleton(public_features(features, unit, widths=DEPTHS), tiny_params(changes))


def test_each_depth_has_the_same_share_of_the_variance() -> None:
    features, skeleton = deep()
    variance = skeleton.standardise(features).astype(np.float64).var(0)
    shares = [depth.sum() / variance.sum() for depth in np.split(variance, np.cumsum(DEPTHS)[:-1])]
    assert np.allclose(shares, 1 / 3, atol=1e-5)
    assert np.isclose(variance.mean(), 1, atol=1e-5)  # as large as the features of one depth


@pytest.mark.parametrize("kind", [{}, {"features.dim": 4}], ids=str)
def test_a_head_over_the_last_layer_stands_on_what_it_would_without_depths(kind: dict[str, Any]) -> None:
    features, skeleton = deep(kind)
    own = features[:, -3:]
    alone = build_skeleton(public_features(own, np.arange(60) // 2), tiny_params())
    assert np.allclose(skeleton.standardise_last(features, 3), alone.standardise(own), rtol=1e-5, atol=1e-5)
    assert skeleton.last_weight == pytest.approx(np.sqrt(12 / 9))
    assert alone.last_weight == 1


@pytest.mark.parametrize("dim", [1, 4, 11])
def test_projection_gives_as_many_features_of_the_same_records_to_routing_and_to_clusters(dim: int) -> None:
    features, skeleton = deep({"features.dim": dim})
    assert skeleton.dim == skeleton.quantise(features).shape[1] == skeleton.standardise(features).shape[1] == dim
    assert np.allclose(skeleton.standardise(features), skeleton.quantise(features) / 64, atol=0.1)


def test_projected_features_do_not_depend_on_how_many_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, skeleton = deep({"features.dim": 4})
    whole = skeleton.quantise(features)
    assert skeleton.quantise(features[:0]).shape == (0, 4)
    for block in (1, 7, 60):
        monkeypatch.setattr("lmeraser.clusters.skeleton.BLOCK", block)
        assert skeleton.quantise(features).tobytes() == whole.tobytes()


def test_plain_levels_reach_over_eight_deviations_of_public_records_and_at_least_eight_units() -> None:
    features, skeleton = deep(PLAIN | {"features.dim": 6})
    quantised = skeleton.quantise(features)
    deviation = quantised.std(0)
    steps = np.maximum(8 * np.maximum(deviation, 64) / 127, 1)
    assert np.abs(skeleton.step - steps).max() <= 0.5
    assert np.allclose(skeleton.unit * 64, skeleton.step)
    assert np.abs(skeleton.summand(quantised, 127) * skeleton.unit - quantised / 64).max() <= skeleton.unit.max() / 2 + 1e-9


@pytest.mark.parametrize(
    ("dim", "line"),
    [
        (16, "features.dim 16 is not below the network's 16 features: they are not projected"),
        (400, "features.dim 400 is not below the network's 16 features: they are not projected"),
        (15, "public axes of features.dim 15: the public records differ in no more directions"),
    ],
)
def test_projection_that_is_wider_than_public_records_allow_is_told_and_works(
    dim: int, line: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)
    people = [make_record(f"p{index}", ("one", "two")[index % 2], "public", image=b"%d" % index) for index in range(4)]
    params = tiny_params(PLAIN | {"features.dim": dim, "skeleton.leaves": 2})
    backbone = replace(lab.backbone, dim=16, widths=(16,))
    monkeypatch.setattr(stages.skeleton, "load_backbone", lambda *_: backbone)
    monkeypatch.setattr(stages.skeleton, "read_records", lambda *_: people)
    monkeypatch.setattr(stages.skeleton, "images_of", lambda _, records: [b""] * len(records))
    monkeypatch.setattr(stages.skeleton, "features_of", lambda *_: features)
    stages.skeleton.skeleton(Layout(tmp_path), params, [])
    told = capsys.readouterr().err
    assert line in told
    assert "skeleton: shrinkage" in told
    quantised = load_skeleton(Layout(tmp_path).skeleton).quantise(features)
    assert quantised.shape == (4, 16 if dim >= 16 else 3)  # four records differ in three directions
    assert len(np.unique(quantised, axis=0)) == 4


def test_projection_depends_on_the_root_seed() -> None:
    assert not np.array_equal(made({"seed": 1}).projection, made().projection)
    assert np.array_equal(made().projection, made({"skeleton.leaves": 2}).projection)


def test_hierarchy_is_made_of_units_and_has_at_most_the_leaves_asked_for() -> None:
    assert made({"skeleton.leaves": 16}).hierarchy.n_leaves == 16
    one_person = public_features(FEATURES, np.zeros(40, dtype=np.int64))
    single = build_skeleton(one_person, tiny_params({"skeleton.leaves": 1}))
    assert single.hierarchy.n_leaves == 1
    alike = made(features=np.ones_like(FEATURES))
    assert alike.hierarchy.n_leaves == 1


def test_more_leaves_than_public_units_are_refused() -> None:
    assert made({"skeleton.leaves": 20, "slots": slot_names(20)}).hierarchy.n_leaves == 20
    message = refused(ParamsError, lambda: made({"skeleton.leaves": 21, "slots": slot_names(21)}))
    assert "skeleton.leaves is 21, but there are 20 public units" in message


def test_missing_skeleton_is_refused(tmp_path: Path) -> None:
    refused(ProjectError, lambda: load_skeleton(tmp_path / "skeleton.safetensors"))


def test_skeleton_of_a_real_network_has_every_leaf_it_needs(lab: Lab) -> None:
    assert lab.skeleton.hierarchy.n_leaves == lab.params.skeleton.leaves


class ByNeighbours(nn.Module):
    """Takes its neighbours' mean away, as batch statistics do."""

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1)
        return features - features.mean(0)


def test_batch_in_which_bits_depend_on_neighbours_is_refused_though_the_backbone_was_made_under_another(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pretrain` asked with the batch of its day; a new embed.batch makes `skeleton` stale and not `pretrain`."""
    monkeypatch.setattr(stages.skeleton, "load_backbone", lambda *_: replace(lab.backbone, model=ByNeighbours()))
    assert "set embed.batch to 1" in refused(ParamsError, lambda: stages.skeleton.skeleton(Layout(tmp_path), lab.params, []))
