"""Serving: routing weights and answers are probabilities; an answer depends on its own image; errors tell positions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import CANARY_PATH, Lab, encoded, pixels, png, refused, slot_names, striped, tiny_params, whole_numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lmeraser.clusters.files import Cluster, Member, save_clusters
from lmeraser.clusters.global_head import GlobalHead, save_head
from lmeraser.clusters.skeleton import save_skeleton
from lmeraser.core.errors import BadInputError, ImageError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.learn.cluster_model import ClusterModel, save_cluster_model
from lmeraser.serve.predicting import predict_files
from lmeraser.serve.serving import ServedModel, nearest_of, rows_by_cluster, softmax

K = 4  # clusters
LABELS = [["across"], ["across", "down"], ["down", "other"], ["across", "down"]]


def cluster_models(dim: int) -> list[ClusterModel]:
    """Four clusters that know one or two labels each; the third has no frame."""
    rng = np.random.default_rng(1)
    made = []
    for index, labels in enumerate(LABELS):
        frame = np.zeros((1, 8, 8), dtype=np.float32)
        if index != 2:
            frame[:, :2] = rng.normal(size=(1, 2, 8))
        weight = rng.normal(size=(len(labels), dim)).astype(np.float32)
        made.append(ClusterModel(frame, weight, rng.normal(size=len(labels)).astype(np.float32), labels))
    return made


def served(lab: Lab, changes: dict[str, Any] | None = None) -> ServedModel:
    dim = lab.backbone.dim
    rng = np.random.default_rng(2)
    head = GlobalHead(rng.normal(size=(3, 16)), np.zeros(3), ["across", "down", "fourth"], 16)
    sizes = np.array([5.0, 1.0, 9.0, 2.0])
    prototypes = whole_numbers(rng, K, dim, 60)
    params = tiny_params(changes)
    clusters: list[ClusterModel | None] = [*cluster_models(dim)]
    return ServedModel(params, lab.backbone, lab.skeleton, prototypes, slot_names(K), clusters, sizes, head)


def saved(lab: Lab, folder: Path) -> Layout:
    """The same model in the files that the pipeline makes."""
    model, layout = served(lab), Layout(folder)
    layout.backbone.parent.mkdir(parents=True)
    layout.backbone.write_bytes(lab.backbone_file.read_bytes())
    save_skeleton(layout.skeleton, lab.skeleton, {})
    assert model.head is not None
    save_head(layout.head, model.head)
    clusters = []
    for index, (slot, tuned) in enumerate(zip(model.slots, cluster_models(lab.backbone.dim), strict=True)):
        members = [Member(f"{slot}-{n}", "0" * 64, "across", f"{slot}-{n}", index, "p00") for n in range(int(model.sizes[index]))]
        clusters.append(Cluster(slot, index, index, index, members, model.prototypes[index]))
        save_cluster_model(layout.tuned(slot), tuned, lab.params)
    save_clusters(layout.clusters, clusters, [*model.slots, "c99"], {})
    return layout


@pytest.mark.parametrize("nearest", [1, 2, 3, K, 99])
@pytest.mark.parametrize("size_weight", [True, False])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), temperature=st.sampled_from([1e-6, 1.0, 1e6]))
def test_routing_weights_sum_to_one_and_leave_out_all_but_the_nearest(
    lab: Lab, nearest: int, size_weight: bool, seed: int, temperature: float
) -> None:
    model = served(lab, {"serve.nearest": nearest, "serve.size_weight": size_weight, "serve.temperature": temperature})
    weight = model.routing_weights(whole_numbers(np.random.default_rng(seed), 6, lab.backbone.dim))
    assert np.allclose(weight.sum(1), 1)
    assert (weight >= 0).all()
    assert ((weight > 0).sum(1) <= nearest).all()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 8), m=st.integers(1, 12), count=st.integers(1, 14))
def test_nearest_are_those_that_a_stable_sort_puts_first(seed: int, n: int, m: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 4, (n, m)).astype(np.float64)  # many are equally near
    distance[rng.random(n) < 0.1] = np.nan
    ranks = distance.argsort(1, kind="stable").argsort(1, kind="stable")
    assert np.array_equal(nearest_of(distance, count), ranks < count)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 8), m=st.integers(1, 6), share=st.sampled_from([0.0, 0.2, 1.0]))
def test_each_cluster_is_asked_by_its_own_rows_alone(seed: int, n: int, m: int, share: float) -> None:
    wanted = np.random.default_rng(seed).random((n, m)) < share
    asked = rows_by_cluster(wanted)
    expected = {index: np.flatnonzero(wanted[:, index]).tolist() for index in range(m) if wanted[:, index].any()}
    assert list(asked) == list(expected)
    assert {index: rows.tolist() for index, rows in asked.items()} == expected


def test_nearest_cluster_alone_answers_where_one_is_asked(lab: Lab) -> None:
    model = served(lab, {"serve.nearest": 1})
    answers = model.predict(striped(9, seed=3)[1])
    assert np.array_equal(answers.clusters_soft, answers.clusters_hard)


def test_equally_near_clusters_share_by_size_or_equally(lab: Lab) -> None:
    model = served(lab, {"serve.nearest": K})
    alike = replace(model, prototypes=np.zeros_like(model.prototypes))
    weight = alike.routing_weights(np.zeros((1, lab.backbone.dim)))
    assert np.allclose(weight[0], model.sizes / model.sizes.sum())
    alike = replace(alike, params=tiny_params({"serve.nearest": K, "serve.size_weight": False}))
    assert np.allclose(alike.routing_weights(np.zeros((1, lab.backbone.dim)))[0], 1 / K)


@pytest.mark.parametrize("changes", [{}, {"serve.mix": 0.0}, {"serve.mix": 1.0}, {"serve.nearest": 2}], ids=str)
def test_every_answer_is_a_probability_over_all_labels(lab: Lab, changes: dict[str, Any]) -> None:
    model = served(lab, changes)
    answers = model.predict(striped(9, seed=3)[1])
    assert answers.labels == ["across", "down", "fourth", "other"]
    for half in (answers.served, answers.clusters_soft, answers.clusters_hard, answers.global_head):
        assert half.shape == (9, 4)
        assert np.allclose(half.sum(1), 1)
        assert (half >= 0).all()
    mix = model.params.serve.mix
    assert np.allclose(answers.served, mix * answers.clusters_soft + (1 - mix) * answers.global_head)


def test_answer_does_not_depend_on_its_neighbours(lab: Lab) -> None:
    model, images = served(lab), striped(20, seed=3)[1]
    together = model.predict(images)
    for row in (0, 7, 19):
        alone = model.predict(images[row : row + 1])
        assert alone.nearest[0] == together.nearest[row]
        assert np.allclose(alone.served[0], together.served[row], rtol=1e-5)


def test_model_reads_back_from_the_files_of_the_pipeline(lab: Lab, tmp_path: Path) -> None:
    model = ServedModel.load(saved(lab, tmp_path), lab.params)
    images = striped(9, seed=3)[1]
    assert model.slots == slot_names(K)
    assert np.array_equal(model.sizes, served(lab).sizes)
    assert np.array_equal(model.predict(images).served, served(lab).predict(images).served)


@pytest.mark.parametrize("name", ["backbone", "skeleton", "router", "head"])
def test_missing_piece_of_the_model_is_refused(lab: Lab, tmp_path: Path, name: str) -> None:
    layout = saved(lab, tmp_path)
    getattr(layout, name).unlink()
    assert "is missing" in refused(ProjectError, lambda: ServedModel.load(layout, lab.params))


def test_missing_cluster_or_table_of_sizes_is_refused(lab: Lab, tmp_path: Path) -> None:
    layout = saved(lab, tmp_path / "one")
    layout.tuned("c02").unlink()
    assert "c02.safetensors is missing" in refused(ProjectError, lambda: ServedModel.load(layout, lab.params))
    layout = saved(lab, tmp_path / "other")
    (layout.clusters / "clusters.json").write_text("CANARY")
    assert "clusters.json is missing or damaged" in refused(ProjectError, lambda: ServedModel.load(layout, lab.params))


def test_random_clusters_all_answer_by_their_size(lab: Lab) -> None:
    model = served(lab, {"cluster.method": "random", "serve.nearest": 1})
    nowhere = replace(model, prototypes=np.zeros_like(model.prototypes))
    weights = nowhere.routing_weights(np.arange(2.0 * len(lab.skeleton.mean)).reshape(2, -1))
    np.testing.assert_allclose(weights, np.broadcast_to(model.sizes / model.sizes.sum(), weights.shape))


def test_softmax_survives_large_scores() -> None:
    probabilities = softmax(np.array([[1e30, 0, -1e30], [5, 5, 5]], dtype=np.float32))
    assert np.allclose(probabilities, np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]))


def test_files_are_answered_in_order_with_both_halves(lab: Lab, tmp_path: Path) -> None:
    layout = saved(lab, tmp_path / "project")
    files = tmp_path / "images"
    files.mkdir()
    (files / "b.png").write_bytes(png(1))
    (files / "a.JPG").write_bytes(encoded(Image.fromarray(pixels(2, 30, 9, 3)), "JPEG"))
    (files / "note.txt").write_text("no image")
    answers = predict_files(layout, lab.params, [files / "b.png"], files)
    assert [Path(answer["image"]).name for answer in answers] == ["b.png", "a.JPG", "b.png"]
    assert answers[0] == answers[2]
    for answer in answers:
        assert answer["clusters"]["weight"] + answer["global_head"]["weight"] == 1
        assert 0 < answer["probability"] <= 1


@pytest.mark.parametrize("data", [None, b"", b"CANARY", png()[:30]], ids=["missing", "empty", "no image", "truncated"])
def test_file_that_is_no_image_is_refused_by_its_position(lab: Lab, tmp_path: Path, data: bytes | None) -> None:
    good, bad = tmp_path / "good.png", tmp_path / CANARY_PATH
    good.write_bytes(png())
    if data is not None:
        bad.write_bytes(data)
    message = refused(ImageError, lambda: predict_files(Layout(tmp_path), lab.params, [good, bad], None))
    assert "image 2 of 2" in message


def test_bad_file_of_a_folder_is_told_by_its_place_and_the_others_are_answered(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, files = saved(lab, tmp_path / "project"), tmp_path / "images"
    files.mkdir()
    jpeg = encoded(Image.fromarray(pixels(2, 30, 9, 3)), "JPEG")
    for name, data in (("._CANARY.png", b"\0\5\x16\7"), ("a.jfif", jpeg), ("b", jpeg), ("c.txt", b"x"), ("d.png", png())):
        (files / name).write_bytes(data)
    (files / "inner").mkdir()
    answers = predict_files(layout, lab.params, [], files)
    assert [Path(answer["image"]).name for answer in answers] == ["a.jfif", "b", "d.png"]
    printed = capsys.readouterr().err
    assert "2 of 6 files in the folder left out" in printed
    assert "image 1 of 4 in the folder, by name: " in printed
    assert "CANARY" not in printed


def test_folder_of_which_no_file_can_be_read_is_refused(lab: Lab, tmp_path: Path) -> None:
    for name in ("a.png", "b.jfif"):
        (tmp_path / name).write_bytes(b"CANARY")
    refused(BadInputError, lambda: predict_files(Layout(tmp_path), lab.params, [], tmp_path))


def test_folder_in_place_of_a_file_is_refused(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / CANARY_PATH).mkdir()
    refused(ImageError, lambda: predict_files(Layout(tmp_path), lab.params, [tmp_path / CANARY_PATH], None))


def test_no_image_and_no_folder_are_refused(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(BadInputError, lambda: predict_files(Layout(tmp_path), lab.params, [], None))
    refused(BadInputError, lambda: predict_files(Layout(tmp_path), lab.params, [], tmp_path / "CANARY"))
    refused(BadInputError, lambda: predict_files(Layout(tmp_path), lab.params, [], tmp_path / "empty"))
