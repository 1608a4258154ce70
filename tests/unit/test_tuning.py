"""Tuning: one cluster's bytes depend on its own records alone; the frame is a border; the backbone stays frozen."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import Lab, refused, striped, tiny_params
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.data.tensors import write_tensors
from lmeraser.learn.cluster_model import ClusterModel, load_cluster_model, save_cluster_model
from lmeraser.learn.tuning import batch_size, border, rate_at, tune_cluster

HEAD_ONLY = {"tune.frame_px": 0}
VARIANTS = [{}, HEAD_ONLY, {"tune.precision": "bfloat16"}, {"tune.shift_px": 2, "tune.flip": True}]


def tuned(lab: Lab, n: int = 13, seed: int = 7, changes: dict[str, Any] | None = None, name: str = "c00") -> ClusterModel:
    ids, images, labels = striped(n, seed)
    params = tiny_params(changes)
    return tune_cluster(ids, images, labels, lab.backbone, lab.skeleton, params, name)


def fingerprint(model: ClusterModel) -> str:
    digest = hashlib.sha256(repr(model.labels).encode())
    for array in (model.frame, model.weight, model.bias):
        digest.update(array.tobytes())
    return digest.hexdigest()


def weights_of(lab: Lab) -> bytes:
    return b"".join(value.numpy().tobytes() for value in lab.backbone.model.state_dict().values())


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_tuning_twice_gives_the_same_bytes(lab: Lab, changes: dict[str, Any]) -> None:
    assert fingerprint(tuned(lab, changes=changes)) == fingerprint(tuned(lab, changes=changes))


@pytest.mark.parametrize("changes", [{}, HEAD_ONLY], ids=str)
def test_cluster_does_not_depend_on_another_that_was_tuned_before(lab: Lab, changes: dict[str, Any]) -> None:
    alone = fingerprint(tuned(lab, changes=changes))
    other = fingerprint(tuned(lab, n=30, seed=8, changes=changes))
    torch.manual_seed(99)
    assert fingerprint(tuned(lab, changes=changes)) == alone != other


def test_name_of_the_slot_does_not_matter(lab: Lab) -> None:
    assert fingerprint(tuned(lab, name="c00")) == fingerprint(tuned(lab, name="c15"))


@pytest.mark.parametrize("changes", [{}, HEAD_ONLY], ids=str)
def test_cluster_does_not_depend_on_the_order_in_which_its_records_came(lab: Lab, changes: dict[str, Any]) -> None:
    ids, images, labels = striped(13, seed=7)
    came = list(zip(ids, images, labels, strict=True))
    random.Random(3).shuffle(came)
    came.sort(key=lambda record: record[0])  # as the cluster's file lists them
    again = tune_cluster(
        [identity for identity, _, _ in came],
        np.stack([image for _, image, _ in came]),
        [label for _, _, label in came],
        lab.backbone,
        lab.skeleton,
        tiny_params(changes),
        "c00",
    )
    assert fingerprint(again) == fingerprint(tuned(lab, changes=changes))


def test_one_record_less_changes_the_cluster(lab: Lab) -> None:
    assert fingerprint(tuned(lab, n=13)) != fingerprint(tuned(lab, n=12))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_backbone_is_the_same_after_tuning_and_holds_no_gradient(lab: Lab, changes: dict[str, Any]) -> None:
    before = weights_of(lab)
    tuned(lab, changes=changes)
    assert weights_of(lab) == before
    assert all(weight.grad is None and not weight.requires_grad for weight in lab.backbone.model.parameters())
    assert not lab.backbone.model.training


@pytest.mark.parametrize("width", [1, 2, 3])
def test_frame_is_a_border_that_moved_and_zero_inside(lab: Lab, width: int) -> None:
    frame = tuned(lab, changes={"tune.frame_px": width}).frame
    inside = frame[:, width:-width, width:-width]
    assert inside.size > 0
    assert not inside.any()
    assert frame.any()
    assert border(8, width).sum() == 64 - (8 - 2 * width) ** 2


def test_head_alone_has_no_frame_and_no_augmentation(lab: Lab) -> None:
    model = tuned(lab, changes=HEAD_ONLY)
    assert not model.frame.any()
    assert model.weight.any()
    assert fingerprint(model) == fingerprint(tuned(lab, changes=HEAD_ONLY | {"tune.shift_px": 3, "tune.flip": True}))


def test_head_learns_its_own_records(lab: Lab) -> None:
    ids, images, labels = striped(40, seed=7)
    params = tiny_params({"tune.epochs": 40, "tune.frame_px": 0})
    model = tune_cluster(ids, images, labels, lab.backbone, lab.skeleton, params, "c00")
    features = lab.skeleton.standardise(lab.backbone.features(images, 8))
    guess = np.array(model.labels)[(features @ model.weight.T + model.bias).argmax(1)]
    assert np.mean(guess == np.array(labels)) > 0.9


@pytest.mark.parametrize("changes", [{}, HEAD_ONLY], ids=str)
def test_cluster_of_one_class_is_tuned(lab: Lab, changes: dict[str, Any]) -> None:
    ids, images, _ = striped(5, seed=7)
    model = tune_cluster(ids, images, ["down"] * 5, lab.backbone, lab.skeleton, tiny_params(changes), "c00")
    assert model.labels == ["down"]
    assert model.weight.shape == (1, lab.backbone.dim)
    assert np.isfinite(model.weight).all()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 17])
def test_cluster_of_any_size_is_tuned(lab: Lab, n: int) -> None:
    model = tuned(lab, n=n)
    assert all(np.isfinite(array).all() for array in (model.frame, model.weight, model.bias))


def test_label_that_nobody_in_the_cluster_has_is_unknown_to_its_head(lab: Lab) -> None:
    assert set(tuned(lab).labels) == set(striped(13, seed=7)[2])


def test_empty_cluster_is_refused(lab: Lab) -> None:
    ids, images, labels = striped(0, seed=1)
    params = tiny_params()
    message = refused(BadInputError, lambda: tune_cluster(ids, images, labels, lab.backbone, lab.skeleton, params, "c03"))
    assert "c03: no records" in message


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 64))
def test_batch_is_halved_for_small_clusters_but_not_below_the_least(n: int, batch: int, least: int) -> None:
    tune = tiny_params().tune.model_copy(update={"batch": max(batch, least), "min_batch": least})
    size = batch_size(n, tune)
    assert least <= size <= tune.batch
    assert size == tune.batch or n < 4 * size


def test_rate_rises_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert min(rates) > 0
    assert rates[-1] < 0.001
    assert rate_at(0, 1, 0.1) == 1.0


def test_cluster_model_reads_back_as_it_was_written(lab: Lab, tmp_path: Path) -> None:
    model = tuned(lab)
    save_cluster_model(tmp_path / "c00", model, lab.params)
    read_back = load_cluster_model(tmp_path / "c00")
    assert read_back is not None
    assert fingerprint(read_back) == fingerprint(model)
    save_cluster_model(tmp_path / "again", replace(model, weight=np.asfortranarray(model.weight)), lab.params)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "c00").read_bytes()


def test_empty_slot_and_missing_slot_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "c00.safetensors", {}, {"state": "empty"})
    assert "empty slot" in refused(BadInputError, lambda: load_cluster_model(tmp_path / "c00.safetensors"))
    assert "missing" in refused(ProjectError, lambda: load_cluster_model(tmp_path / "c01.safetensors"))
