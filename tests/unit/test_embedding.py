"""Embedding: a unit's leaf depends on its own records; sums of parts add up; no number is never taken for one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import MAX_PIXELS, Lab, encoded, make_record, pixels, png, refused, striped, tiny_params
from PIL import Image

from lmeraser.core.errors import ImageError
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import Record
from lmeraser.data.units import group_units, unit_of
from lmeraser.learn import embedding, features
from lmeraser.learn.embedding import PartEmbedding, embed_part, leaf_of_units


def people(n: int = 20) -> tuple[list[Record], np.ndarray]:
    """Records of five people, sorted by id, with their pixels in the same order."""
    _, images, labels = striped(n, seed=4)
    pairs = [(make_record(f"p{i % 5}", labels[i], image=b"%d" % i), images[i]) for i in range(n)]
    pairs.sort(key=lambda pair: pair[0].id)
    return [record for record, _ in pairs], np.stack([image for _, image in pairs])


def embedded(lab: Lab, records: list[Record], images: np.ndarray, unit: str = "subject") -> PartEmbedding:
    return embed_part(records, images, lab.backbone, lab.skeleton, tiny_params({"cluster.unit": unit}))


@pytest.mark.parametrize("unit", ["subject", "record"])
def test_leaf_of_a_unit_does_not_depend_on_other_units(lab: Lab, unit: str) -> None:
    records, images = people()
    together = dict(zip([r.id for r in records], embedded(lab, records, images, unit).leaf.tolist(), strict=True))
    for person in ("p0", "p3"):
        own = [row for row, record in enumerate(records) if record.subject == person]
        alone = embedded(lab, [records[row] for row in own], images[own], unit)
        assert alone.leaf.tolist() == [together[records[row].id] for row in own]


def test_random_clusters_are_even_and_a_function_of_the_unit_alone(lab: Lab) -> None:
    tree = lab.skeleton.hierarchy
    names = [f"unit {number}" for number in range(400)]
    nothing = np.zeros((400, len(lab.skeleton.mean)))
    leaf = leaf_of_units(names, nothing, np.arange(400), tree, "random")
    counts = np.bincount(leaf, minlength=tree.n_leaves)
    assert counts.min() > 0.5 * 400 / tree.n_leaves
    assert counts.max() < 2 * 400 / tree.n_leaves
    assert leaf_of_units(names[7:8], nothing[:1] + 5, np.arange(1), tree, "random") == leaf[7]


def test_records_of_a_subject_stand_on_one_leaf(lab: Lab) -> None:
    records, images = people()
    part = embedded(lab, records, images)
    assert len({(record.subject, leaf) for record, leaf in zip(records, part.leaf, strict=True)}) == 5
    assert len(set(part.units)) == 5


def test_sums_of_parts_add_up_to_the_sums_of_all(lab: Lab) -> None:
    records, images = people()
    whole = embedded(lab, records, images).sums
    gram = np.zeros_like(whole.gram)
    by_label = {label: np.zeros_like(whole.by_label[0]) for label in whole.labels}
    counts = dict.fromkeys(whole.labels, 0)
    for place in range(3):
        rows = [row for row in range(len(records)) if row % 3 == place]
        part = embedded(lab, [records[row] for row in rows], images[rows]).sums
        gram += part.gram
        for label, sums, count in zip(part.labels, part.by_label, part.counts, strict=True):
            by_label[label] += sums
            counts[label] += int(count)
    assert np.array_equal(gram, whole.gram)
    assert all(np.array_equal(by_label[label], sums) for label, sums in zip(whole.labels, whole.by_label, strict=True))
    assert list(counts.values()) == whole.counts.tolist()


def test_part_without_training_records_is_embedded(lab: Lab) -> None:
    part = embedded(lab, [], people()[1][:0])
    assert (part.units, part.sums.labels, part.sums.records, part.leaf.shape) == ([], [], 0, (0,))
    assert not part.sums.gram.any()


class NoNumberForDarkImages(torch.nn.Module):
    """A network that gives NaN for every image that is all black."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        dark = inputs.amax((1, 2, 3)) <= inputs.amin()
        values = inputs.mean((1, 2, 3))[:, None].repeat(1, self.dim)
        return torch.where(dark[:, None], torch.nan, values)


def test_record_whose_features_are_no_numbers_is_marked_and_disturbs_no_sum(lab: Lab) -> None:
    records, images = people()
    images[2] = 0
    broken = replace(lab.backbone, model=NoNumberForDarkImages(lab.backbone.dim))
    part = embed_part(records, images, broken, lab.skeleton, lab.params)
    assert np.flatnonzero(~part.finite).tolist() == [2]
    assert np.isfinite(part.sums.gram.astype(float)).all()


def test_unit_is_the_subject_or_the_record_and_tells_no_name() -> None:
    first, other = make_record("CANARY-anna", image=b"1"), make_record("CANARY-anna", image=b"2")
    assert unit_of(first, "subject") == unit_of(other, "subject")
    assert (unit_of(first, "record"), unit_of(other, "record")) == (first.id, other.id)
    assert "CANARY" not in unit_of(first, "subject")
    names, index = group_units([first, other, make_record("ben")], "subject")
    assert names == sorted(names)
    assert index[0] == index[1] != index[2]


def test_images_are_decoded_in_order_and_a_broken_one_is_refused() -> None:
    params = tiny_params()
    files = [encoded(Image.fromarray(pixels(seed, 8, 8, 1))) for seed in range(3)]
    decoded = decode_all(files, params, "decode")
    assert all(np.array_equal(decoded[seed, ..., 0], pixels(seed, 8, 8, 1)) for seed in range(3))
    assert params.image.max_pixels == MAX_PIXELS
    refused(ImageError, lambda: decode_all([files[0], b"CANARY"], params, "decode"))


def test_features_of_many_images_are_those_of_all_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [png(seed) for seed in range(21)]
    whole = lab.backbone.features(decode_all(files, lab.params, "all"), lab.params.embed.batch)
    monkeypatch.setattr(features, "DECODED", 1)
    assert np.array_equal(features.features_of(files, lab.backbone, lab.params, "some"), whole)
    assert features.features_of([], lab.backbone, lab.params, "none").shape == (0, lab.backbone.dim)


def test_sums_do_not_depend_on_how_many_records_are_in_memory_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    records, images = people()
    whole = embedded(lab, records, images).sums
    for block in (1, 3, 20):
        monkeypatch.setattr(embedding, "BLOCK", block)
        part = embedded(lab, records, images).sums
        assert np.array_equal(part.gram, whole.gram)
        assert np.array_equal(part.by_label, whole.by_label)
        assert np.array_equal(part.counts, whole.counts)
        assert part.labels == whole.labels
    assert whole.gram.any()
