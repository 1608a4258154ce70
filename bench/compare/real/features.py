"""Features of images by a frozen backbone, extracted once and kept in .bench/ by the images' digests.

Private to this machine, and outside git: they are of people's images. A row depends on its own image alone (constant batch
shape), so seeds and data sets share rows.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.lab import ROOT
from bench.lab import pipeline as pipe
from lmeraser.core.digest import canonical_json, sha256
from lmeraser.core.environment import fingerprint
from lmeraser.core.files import write_atomically
from lmeraser.core.params import Params
from lmeraser.data.decoding import decode_all
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.environment import network_environment

BLOCK = 512  # images in a file of features
DECODED = 64  # images that a thread decodes at a time
PROCESSES = 2

Rows = NDArray[np.float32]


class Store:
    """Files of at most BLOCK rows, each beside the digests of its images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def places(self) -> dict[str, tuple[Path, int]]:
        """The file and the row of each image that is there, by its SHA-256."""
        found = {}
        for index in sorted(self.folder.glob("*.json")):
            for row, digest in enumerate(json.loads(index.read_bytes())):
                found[digest] = (index.with_suffix(".npy"), row)
        return found

    def add(self, digests: Sequence[str], rows: Rows) -> None:
        """Rows first: an index names no row that is not there."""
        name = sha256("".join(digests).encode())[:24]

        def write(draft: Path) -> None:
            with draft.open("wb") as file:
                np.save(file, rows)

        write_atomically(self.folder / f"{name}.npy", write, mode=0o600)
        write_atomically(self.folder / f"{name}.json", json.dumps(list(digests)).encode(), mode=0o600)

    def rows(self, digests: Sequence[str]) -> Rows:
        """(n, w) float32 in the order of the digests. Raises: KeyError if one is not there."""
        places = self.places()
        by_file: dict[Path, list[tuple[int, int]]] = {}
        for target, digest in enumerate(digests):
            file, row = places[digest]
            by_file.setdefault(file, []).append((target, row))
        rows: Rows = np.zeros((0, 0), dtype=np.float32)
        for file, pairs in by_file.items():
            block = np.load(file)
            if not rows.size:
                rows = np.empty((len(digests), block.shape[1]), dtype=np.float32)
            rows[[target for target, _ in pairs]] = block[[row for _, row in pairs]]
        return rows


def store_for(params: Params) -> Store:
    """Of all that decides a feature's bits: weights, depths, image size, code libraries. The public axes come later."""
    weights = params.pretrain.weights
    made_of = [
        params.pretrain.model,
        params.pretrain.kwargs,
        weights.sha256 if weights else None,
        params.image.model_dump(mode="json"),
        list(params.features.depths),
        params.features.grid,
        params.embed.batch,
        fingerprint(network_environment(params.device)),
    ]
    return Store(ROOT / ".bench" / f"features-{sha256(canonical_json(made_of))[:24]}")


def given_backbone(params: Params) -> Backbone:
    """The backbone of a file of weights, as `pretrain` and the stages after it make it."""
    return pipe.make_backbone(pipe.Shelf([], np.zeros((0, 1, 1, 1), dtype=np.uint8)), params)


def decoded(images: Sequence[bytes], params: Params) -> NDArray[np.uint8]:
    """(n, s, s, c) of stored images, decoded by a thread a core: a GPU waits for them."""
    cores = len(os.sched_getaffinity(0))
    blocks = [images[start : start + DECODED] for start in range(0, len(images), DECODED)]
    with ThreadPoolExecutor(cores) as pool:
        return np.concatenate(list(pool.map(lambda block: decode_all(block, params, "decode"), blocks)))


def extract(
    store: Store, images: Mapping[str, bytes], compute: Callable[[Sequence[bytes]], Rows], label: str, processes: int = PROCESSES
) -> None:
    """Add what is missing. Args: images: by SHA-256; label: of the progress lines; processes: side by side, 1: none but this."""
    there = store.places()
    missing = sorted(digest for digest in images if digest not in there)
    blocks = [missing[start : start + BLOCK] for start in range(0, len(missing), BLOCK)]
    begun = time.monotonic()

    def work(block: Sequence[str]) -> int:
        store.add(block, compute([images[digest] for digest in block]))
        return len(block)

    done = 0
    for count in _side_by_side(work, blocks, processes):
        done += count
        rate = done / (time.monotonic() - begun)
        sys.stderr.write(f"{label}: features of {done:,} of {len(missing):,} images, {rate:.0f} a second\n")


_inherited: dict[str, Callable[[Sequence[str]], int]] = {}  # forked workers find their work here


def _run(block: Sequence[str]) -> int:
    return _inherited["work"](block)


def _side_by_side(work: Callable[[Sequence[str]], int], blocks: Sequence[Sequence[str]], processes: int) -> Iterable[int]:
    if processes == 1:
        yield from map(work, blocks)
        return
    if not blocks:
        return
    _inherited["work"] = work
    with multiprocessing.get_context("fork").Pool(min(processes, len(os.sched_getaffinity(0)))) as pool:
        yield from pool.imap_unordered(_run, blocks)


def extract_all(images: Mapping[str, bytes], backbone: Backbone, params: Params, label: str) -> Store:
    """The store of a backbone with every one of the images in it. Args: images: by SHA-256; label: of the progress lines."""
    store = store_for(params)

    def compute(block: Sequence[bytes]) -> Rows:
        return backbone.features(decoded(block, params), params.embed.batch)

    # A process that uses a GPU cannot be forked.
    extract(store, images, compute, label, PROCESSES if params.device == "cpu" else 1)
    return store
