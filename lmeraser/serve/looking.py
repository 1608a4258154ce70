"""Private test images before the network: read, decoded and passed only where nothing is remembered of them (`remembered`)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TEST, Record, images_of, read_records
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.environment import network_environment
from lmeraser.serve import remembered
from lmeraser.serve.remembered import PLAIN, Key, Rows, frame_digest, key_of
from lmeraser.serve.serving import Look

DECODED = 64  # batches that go to the network at once
Features = NDArray[np.float32]


class AskedImages:
    """The n private test records, sorted by id, and their images, each read and decoded when it is first needed."""

    def __init__(self, layout: Layout, params: Params) -> None:
        """Raises: ProjectError if a part is absent or broken."""
        self._layout, self._params = layout, params
        pairs = [(record, part) for part in params.parts for record in read_records(layout.part(part), TEST)]
        pairs.sort(key=lambda pair: (pair[0].id, pair))  # as pairs sort; comparing ids alone first is ten times as fast
        self.records: list[Record] = [record for record, _ in pairs]
        self._part = np.array([part for _, part in pairs], dtype=object)
        self._decoded = np.zeros(len(pairs), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        size, channels = self._params.image.size, self._params.image.channels
        return np.empty((len(self), size, size, channels), dtype=np.uint8)  # takes memory where it is written alone

    def decode(self, rows: NDArray[np.int64]) -> None:
        """Decode what is not yet, each part read once. Raises: DigestMismatchError if an image is not the promised one."""
        missing = rows[~self._decoded[rows]]
        for part in self._params.parts:
            here = missing[self._part[missing] == part]
            if not len(here):
                continue
            wanted = [self.records[row] for row in here]
            self._pixels[here] = decode_all(images_of(self._layout.part(part), wanted), self._params, f"decode {TEST}")
        self._decoded[missing] = True

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, s, s, c) of decoded ones."""
        return self._pixels[rows]


class RememberedLooks:
    """`Looks` at images that pass the network only where the memory lacks them, and that bring the memory up to date.

    An image that several records have is one. `finish` must follow: until then what is superseded is still there.

    Attributes: passed: how many images went through the network, each time counted.
    """

    def __init__(self, images: AskedImages, backbone: Backbone, layout: Layout, params: Params) -> None:
        self._images, self._backbone, self._layout, self._batch = images, backbone, layout, params.embed.batch
        digests = np.array([record.sha256 for record in images.records], dtype="U64")
        self._digests, self._row, self._image = np.unique(digests, return_index=True, return_inverse=True)
        self._key = key_of(layout, params, network_environment(params.device)) if params.evaluate.remember else None
        self._current: list[str] = []  # files that hold just what was asked for
        self._unused: Counter[str] = Counter()  # files that could not be used, by why
        self.passed = 0

    def plain(self) -> NDArray[np.float32]:
        return self._plain

    @cached_property
    def _plain(self) -> NDArray[np.float32]:
        return self._features(PLAIN, self._key, np.arange(len(self._digests)), None)[self._image]

    def framed(self, looks: Sequence[Look]) -> Iterator[NDArray[np.float32]]:
        keys = [replace(self._key, frame=frame_digest(look.frame)) if self._key else None for look in looks]
        images = [np.unique(self._image[look.rows], return_inverse=True) for look in looks]
        lacking = [np.zeros(0, dtype=np.int64)]  # of all frames before the first pass: each part is read once
        for look, key, (wanted, _) in zip(looks, keys, images, strict=True):
            listed = remembered.listed(self._layout, look.slot, key) if key else []
            if listed != self._digests[wanted].tolist():
                lacking.append(np.setdiff1d(wanted, self._numbers(listed)))
        self._images.decode(self._row[np.unique(np.concatenate(lacking))])
        for look, key, (wanted, place) in zip(looks, keys, images, strict=True):
            yield self._features(look.slot, key, wanted, look.frame)[place]

    def _numbers(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Which image each digest is of; -1: of none that is asked about."""
        found = np.array(digests, dtype="U64")
        place = np.searchsorted(self._digests, found)
        place[place == len(self._digests)] = -1
        return np.where(self._digests[place] == found, place, -1) if len(self._digests) else np.full(len(found), -1)

    def _features(self, slot: str, key: Key | None, wanted: NDArray[np.int64], frame: NDArray[np.float32] | None) -> Features:
        """(m, d) of images, remembered or not, and the slot's file made to hold just these. Args: wanted: (m,) sorted."""
        known, images = self._known(slot, key), self._digests[wanted].tolist()
        if images and images == known.images:  # nearly always: an erasure changes few clusters
            self._current.append(slot)
            return known.features
        numbers = self._numbers(known.images)
        features = np.empty((len(wanted), self._backbone.dim), dtype=np.float32)
        there = np.isin(wanted, numbers)
        if there.any():
            order = np.argsort(numbers, kind="stable")
            features[there] = known.features[order[np.searchsorted(numbers[order], wanted[there])]]
        features[~there] = self._pass(self._row[wanted[~there]], frame)
        if key is not None and len(wanted):
            self._keep(slot, key, Rows(images, features))
        return features

    def _known(self, slot: str, key: Key | None) -> Rows:
        nothing = Rows([], np.zeros((0, self._backbone.dim), dtype=np.float32))
        if key is None:
            return nothing
        found = remembered.read(self._layout, slot, key)
        rows, why = found.rows, found.why
        if rows is not None and rows.features.shape[1] != self._backbone.dim:
            rows, why = None, "damaged"
        if why:
            self._unused[why] += 1
        return rows if rows is not None else nothing

    def _pass(self, rows: NDArray[np.int64], frame: NDArray[np.float32] | None) -> Features:
        """(m, d) by passes of the network. A row's bits do not depend on its neighbours (`Backbone.features`)."""
        self._images.decode(rows)
        self.passed += len(rows)
        given = None if frame is None else torch.from_numpy(frame).to(self._backbone.device)
        made = [np.zeros((0, self._backbone.dim), dtype=np.float32)]
        step = DECODED * self._batch
        for start in range(0, len(rows), step):
            pixels = self._images.pixels(rows[start : start + step])
            made.append(self._backbone.features(pixels, self._batch, given))
        return np.concatenate(made)

    def _keep(self, slot: str, key: Key, rows: Rows) -> None:
        try:
            remembered.write(self._layout, slot, key, rows)
            self._current.append(slot)
        except OSError as error:  # a memory that cannot be kept must not keep anybody from being forgotten
            self._unused[f"not kept ({error.strerror})"] += 1

    def finish(self) -> None:
        """Delete what is superseded, or all of it where nothing is to be remembered; tell what could not be used."""
        try:
            remembered.keep_only(self._layout, self._current)
        except OSError as error:
            self._unused[f"not deleted ({error.strerror})"] += 1
        if self._unused:
            counted = ", ".join(f"{count} {why}" for why, count in sorted(self._unused.items()))
            say(f"evaluate: files of remembered features: {counted}; what they lack was computed")
