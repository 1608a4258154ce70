"""The skeleton: public features decide scales, hierarchy and projection once; a feature is a function of its record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Lab, refused, slot_names, tiny_params
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


def made(changes: dict[str, Any] | None = None, features: np.ndarray = FEATURES) -> Skeleton:
    return build_skeleton(features, UNITS, tiny_params(changes))


def test_skeleton_twice_has_the_same_bytes_and_reads_back(tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_skeleton(tmp_path / name, made(), {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    again = load_skeleton(tmp_path / "one")
    save_skeleton(tmp_path / "again", again, {})
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()
    assert np.array_equal(again.quantise(FEATURES), made().quantise(FEATURES))


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
    assert np.isfinite(made(features=np.ones_like(FEATURES)).fourier(np.zeros((2, 5)), 16)).all()


@settings(max_examples=20)
@given(st.permutations(range(40)), st.integers(1, 40))
def test_fourier_features_are_whole_and_do_not_depend_on_neighbours(order: list[int], keep: int) -> None:
    skeleton = made()
    quantised = skeleton.quantise(FEATURES)
    together = skeleton.fourier(quantised, 16)
    assert np.array_equal(together, np.rint(together))
    assert np.abs(together).max() <= 16
    chosen = order[:keep]
    assert np.array_equal(skeleton.fourier(quantised[chosen], 16), together[chosen])


def test_projection_depends_on_the_root_seed() -> None:
    assert not np.array_equal(made({"seed": 1}).projection, made().projection)
    assert np.array_equal(made().projection, made({"skeleton.leaves": 2}).projection)


def test_hierarchy_is_made_of_units_and_has_at_most_the_leaves_asked_for() -> None:
    assert made({"skeleton.leaves": 16}).hierarchy.n_leaves == 16
    single = build_skeleton(FEATURES, np.zeros(40, dtype=np.int64), tiny_params({"skeleton.leaves": 1}))
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
