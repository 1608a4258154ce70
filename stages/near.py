"""near: people or images that leave -> which images of others look like theirs, against what is usual between strangers.

No DVC stage, and it changes no artifact: `lmeraser plan --near` asks it. The question names records by their ids. The answer
takes its place, names records by their ids too and has distances; no feature and no hash is in it. What `evaluate` remembers of
test images is used where it is of this model; every other image passes the network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.clusters.skeleton import Skeleton, load_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import track
from lmeraser.data.images import open_checked, to_array
from lmeraser.data.records import Record, read_images, read_records
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic
from lmeraser.learn.environment import network_environment
from lmeraser.learn.near import SAMPLE, VIEWS, Looks, Strangers, Usual, View, in_units, near_ones, perceptual_hash, usual
from lmeraser.serve import remembered
from lmeraser.serve.remembered import PLAIN, key_of
from stages.runtime.asked import answer_in_place
from stages.runtime.entry import enter

DECODED = 64  # batches that are held decoded at once
PUBLIC = ""  # in place of a part
Known = dict[str, NDArray[np.float32]]


def near(project: Layout, _: Params, tokens: list[str]) -> None:
    for token in tokens:
        answer_in_place(project, project.near(token), partial(_answer, project))


@dataclass(frozen=True)
class Held:
    """A record and where it lies. Attributes: part: or PUBLIC."""

    record: Record
    part: str


def _held(layout: Layout, params: Params) -> list[Held]:
    """Every record, private ones first."""
    private = [Held(record, part) for part in params.parts for record in read_records(layout.part(part))]
    return private + [Held(record, PUBLIC) for record in read_records(layout.public)]


def _answer(project: Layout, layout: Layout, asked: dict[str, Any]) -> dict[str, Any]:
    """Args: asked: `leaving`, `left_out`: ids of records; `share`: of strangers that may be listed; `most`: matches told."""
    params = load_params(layout.params)
    make_deterministic(params.device)
    eyes = _Eyes(project, layout, params)
    leaving, left_out = frozenset(asked["leaving"]), frozenset(asked["left_out"])
    held = _held(layout, params)
    gone = _distinct([one for one in held if one.record.id in leaving])
    staying = [one for one in held if one.record.id not in leaving and one.record.id not in left_out]
    private = [one for one in staying if one.part != PUBLIC]
    others = _distinct(staying)
    place = {one.record.sha256: number for number, one in enumerate(others)}
    looks = eyes.looks(others)
    limits = _usual(private, looks, place, eyes, asked["share"])
    matches = near_ones([eyes.looks(gone, view) for view in VIEWS], looks, limits)
    width = looks.features.shape[1]
    told = [
        {
            "other": others[match.other].record.id,
            "leaving": gone[match.leaving].record.id,
            "distance": in_units(match.distance, width),
            "bits": match.bits,
            "by_features": match.distance == 0 or match.distance < limits.features,
            "by_hash": match.bits < limits.bits,
        }
        for match in matches[: asked["most"]]
    ]
    return {
        "usual_distance": in_units(limits.features, width),
        "usual_bits": limits.bits,
        "sampled": limits.sampled,
        "compared": len(others),
        "found": len(matches),
        "matches": told,
    }


def _distinct(held: Sequence[Held]) -> list[Held]:
    """One record of each distinct image, the first by id, in the order of the digests. A private one, if there is one."""
    first: dict[str, Held] = {}
    for one in sorted(held, key=lambda one: (one.part == PUBLIC, one.record.id)):
        first.setdefault(one.record.sha256, one)
    return [first[digest] for digest in sorted(first)]


def _usual(private: Sequence[Held], looks: Looks, place: dict[str, int], eyes: "_Eyes", share: float) -> Usual:
    """Args: looks: of the distinct images; place: of each digest there."""
    people = {subject: number for number, subject in enumerate(sorted({one.record.subject for one in private}))}
    image = np.array([place[one.record.sha256] for one in private], dtype=np.int64)
    whose = np.array([people[one.record.subject] for one in private], dtype=np.int64)
    # Record ids are hashes: the first by id are a sample that nobody chose, and the same one each time.
    first = np.array(sorted(range(len(private)), key=lambda row: private[row].record.id)[:SAMPLE], dtype=np.int64)
    sample = [private[row] for row in first]
    views = [looks.take(image[first]), *(eyes.looks(sample, view) for view in VIEWS[1:])]
    return usual(views, whose[first], image[first], Strangers(looks.take(image), whose, image), share)


class _Eyes:
    """How images look to the frozen network and to the hash."""

    def __init__(self, project: Layout, layout: Layout, params: Params) -> None:
        self._layout, self._params = layout, params
        self._backbone: Backbone = load_backbone(layout.backbone, params)
        self._skeleton: Skeleton = load_skeleton(layout.skeleton)
        self._known: Known = {}
        self._nothing = np.zeros(self._backbone.dim, dtype=np.float32)
        if params.evaluate.remember:
            rows = remembered.read(project, PLAIN, key_of(layout, params, network_environment(params.device))).rows
            if rows is not None and rows.features.shape[1] == self._backbone.dim:
                self._known = dict(zip(rows.images, rows.features, strict=True))

    def looks(self, held: Sequence[Held], view: View = VIEWS[0]) -> Looks:
        """Looks of images, in their order, by one of their views."""
        features = np.zeros((len(held), self._skeleton.dim), dtype=np.float32)
        hashes = np.zeros(len(held), dtype=np.uint64)
        known = self._known if view is VIEWS[0] else {}
        for rows, images in self._images(held):
            digests = [held[row].record.sha256 for row in rows]
            pixels = []
            for row, digest, data in zip(rows, digests, track(images, len(images), "near", "image"), strict=True):
                image = view(open_checked(data, self._params.image.max_pixels))  # one at a time: decoded photos are large
                hashes[row] = perceptual_hash(image)
                if digest not in known:
                    pixels.append(to_array(image, self._params.image))
            features[rows] = self._features(digests, pixels, known)
        return Looks(features, hashes)

    def _images(self, held: Sequence[Held]) -> Iterator[tuple[list[int], list[bytes]]]:
        """Rows and their images, some at a time, each part's by id as they lie there."""
        step = DECODED * self._params.embed.batch
        parts: dict[str, list[int]] = {}
        for row in sorted(range(len(held)), key=lambda row: held[row].record.id):
            parts.setdefault(held[row].part, []).append(row)
        for part, wanted in parts.items():
            path: Path = self._layout.part(part) if part != PUBLIC else self._layout.public
            for start in range(0, len(wanted), step):
                rows = wanted[start : start + step]
                images = read_images(path, {held[row].record.id: held[row].record.sha256 for row in rows})
                yield rows, [images[held[row].record.id] for row in rows]

    def _features(self, digests: Sequence[str], pixels: Sequence[NDArray[np.uint8]], known: Known) -> NDArray[np.float32]:
        """(n, d) whole numbers, held in float32 exactly: half the memory. Args: pixels: of those that are not known."""
        raw = np.array([known.get(digest, self._nothing) for digest in digests], dtype=np.float32)
        if pixels:
            lacking = [place for place, digest in enumerate(digests) if digest not in known]
            raw[lacking] = self._backbone.features(np.stack(pixels), self._params.embed.batch)
        finite = np.asarray(np.isfinite(raw).all(axis=1))
        return self._skeleton.quantise(np.where(finite[:, None], raw, 0)).astype(np.float32)


if __name__ == "__main__":
    enter(near)
