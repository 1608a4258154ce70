"""Answers of the live model: the bits of each are the same alone and in any batch; what is no image is refused by its place."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import Lab, encoded, png, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from served import ServedProject, photos, version_of

from lmeraser.core.errors import ImageError
from lmeraser.core.params import load_params
from lmeraser.learn.cluster_model import load_cluster_model, save_cluster_model
from lmeraser.serve.live import LiveModel
from lmeraser.serve.serving import ServedModel

SHARED_FIXTURE = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


# the same answer whatever the batch


@SHARED_FIXTURE
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), data=st.data())
def test_bits_of_an_answer_do_not_depend_on_the_batch(steady: LiveModel, seed: int, n: int, data: st.DataObject) -> None:
    images = photos(n, seed)
    together = steady.predict(images)
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=12))
    chosen = steady.predict(images[rows])
    for place, row in enumerate(rows):
        assert chosen.labels[place] == together.labels[row]
        assert chosen.parts.nearest[place] == together.parts.nearest[row]
        for some, every in ((chosen, together), (steady.predict(images[row : row + 1]), together)):
            at = place if some is chosen else 0
            assert some.probabilities[at].tobytes() == every.probabilities[row].tobytes()
            assert some.parts.clusters[at].tobytes() == every.parts.clusters[row].tobytes()
            assert some.parts.global_head[at].tobytes() == every.parts.global_head[row].tobytes()


CLOSED = {"tune.kind": "closed", "projection.kind": "plain", "projection.levels": 127, "head.kind": "discriminant"}
FIXED = {"head.shrinkage": 10.0, "head.evenness": 0.5, "head.temperature": 0.25}


@pytest.mark.parametrize(
    "changes",
    [{"tune.kind": "none", "serve.mix": 0.0}, {"serve.nearest": 99, "serve.mix": 1.0}, CLOSED | FIXED | {"serve.mix": 0.5}],
    ids=["head alone", "all clusters", "closed heads"],
)
def test_bits_do_not_depend_on_the_batch_under_other_params(lab: Lab, tmp_path: Path, changes: dict[str, object]) -> None:
    model = ServedProject.build(tmp_path / "project", lab, changes).live()
    images = photos(21)
    together = model.predict(images)
    alone = [model.predict(images[row : row + 1]).probabilities[0] for row in range(21)]
    assert np.stack(alone).tobytes() == together.probabilities.tobytes()
    whole = ServedModel.load(model.watch.layout, model.current().model.params).predict(images[..., None])
    np.testing.assert_allclose(together.probabilities, whole.served, rtol=1e-5)


def test_threads_that_share_passes_get_the_bits_that_they_get_alone(steady: LiveModel) -> None:
    batches = [photos(n, seed=n) for n in (1, 2, 3, 5, 9, 17, 1, 30)]
    alone = [steady.predict(images).probabilities.tobytes() for images in batches]
    wrong: list[int] = []

    def ask(number: int) -> None:
        answers = [steady.predict(batches[number]).probabilities.tobytes() for _ in range(5)]
        wrong.extend(number for answer in answers if answer != alone[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_answers_are_those_of_the_model_that_was_evaluated(steady: LiveModel) -> None:
    layout = steady.watch.layout
    whole = ServedModel.load(layout, load_params(layout.params)).predict(photos(20)[..., None])
    prediction = steady.predict(photos(20))
    assert prediction.parts.labels == whole.labels
    np.testing.assert_allclose(prediction.probabilities, whole.served, rtol=1e-5)
    np.testing.assert_allclose(prediction.parts.clusters, whole.clusters_soft, rtol=1e-5)


def test_one_pass_is_the_global_head_alone_and_another_version(served_template: ServedProject, steady: LiveModel) -> None:
    model = served_template.live(one_pass=True)
    prediction = model.predict(photos(7))
    assert prediction.parts.weight == 0
    assert prediction.probabilities.tobytes() == steady.predict(photos(7)).parts.global_head.tobytes()
    assert prediction.parts.left_out.by_one_pass == len(served_template.slots)
    assert model.current().passes.passed == 7
    assert prediction.parts.model_version != version_of(steady)


def test_one_pass_keeps_clusters_that_need_no_pass_of_their_own(served_project: ServedProject) -> None:
    layout, slot = served_project.layout, served_project.slots[0]
    tuned = load_cluster_model(layout.tuned(slot))
    assert tuned is not None
    save_cluster_model(layout.tuned(slot), replace(tuned, frame=np.zeros_like(tuned.frame)), load_params(layout.params))
    served_project.record()
    model = served_project.live(one_pass=True)
    assert model.current().model.slots == [slot]
    assert model.predict(photos(5)).parts.weight > 0
    assert model.current().passes.passed == 5


# what images are


def test_arrays_tensors_pictures_and_files_are_the_same_images(steady: LiveModel) -> None:
    images = photos(4)
    expected = steady.predict(images).probabilities.tobytes()
    pictures = [Image.fromarray(image) for image in images]
    for same in (
        images[..., None],
        torch.from_numpy(images),
        [*images],
        pictures,
        [encoded(picture) for picture in pictures],
        [images[0], torch.from_numpy(images[1]), pictures[2], encoded(pictures[3])],
    ):
        assert steady.predict(same).probabilities.tobytes() == expected


def test_image_of_another_size_and_mode_is_answered_as_its_file_is(steady: LiveModel) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (30, 11, 3), dtype=np.uint8)
    expected = steady.predict([encoded(Image.fromarray(colours))]).probabilities
    assert np.array_equal(steady.predict(colours[None]).probabilities, expected)
    assert np.array_equal(steady.predict([colours]).probabilities, expected)


def test_empty_batch_has_no_answers_and_a_version(steady: LiveModel) -> None:
    prediction = steady.predict(np.zeros((0, 8, 8), dtype=np.uint8))
    assert prediction.labels == []
    assert prediction.probabilities.shape == (0, len(prediction.parts.labels))
    assert prediction.parts.model_version == version_of(steady)
    assert steady.predict([]).labels == []


@pytest.mark.parametrize(
    "bad",
    [
        np.full((2, 8, 8), np.nan),
        photos(2).astype(np.float32),
        photos(2)[0],
        np.zeros((1, 8, 8, 4), dtype=np.uint8),
        np.zeros((1, 0, 8), dtype=np.uint8),
        b"CANARY",
        "CANARY",
        7,
        [png(), b"CANARY"],
        [png(), "CANARY"],
        [png(), photos(1)[0].astype(float)],
        [Image.new("F", (4, 4))],
        np.lib.stride_tricks.as_strided(np.zeros(1, dtype=np.uint8), (1, 10**5, 10**5), (0, 0, 0)),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_image_is_refused_by_its_place(steady: LiveModel, bad: object) -> None:
    message = refused(ImageError, lambda: steady.predict(bad))
    if isinstance(bad, list) and len(bad) == 2:
        assert "image 2 of 2" in message
