"""How large the files of the parts are, what an erasure rewrites of them, and how many a part should have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digest import number_of_shard
from lmeraser.core.layout import Layout
from lmeraser.core.params import MOST_SHARDS, Params
from lmeraser.data.records import Part, read_table

SMALL, LARGE = 4 * 2**20, 64 * 2**20  # bytes of a file: as wanted, and at most
MANY = 1024  # files of all parts, above which files may be larger than SMALL
RULE = (
    f"the least power of two with which no file has more than {SMALL >> 20} MiB; or {LARGE >> 20} MiB, where that takes "
    f"more than {MANY:,} files"
)


@dataclass(frozen=True)
class PartSize:
    """One part (f files, u people).

    Attributes: path: of its largest file, in the folder of the parts; records; files: (f,) bytes of each; people: (f,) how many
        each holds; numbers: (u,) the number from which a person's shard follows; weights: (u,) bytes of their records, about.
    """

    path: str
    records: int
    files: NDArray[np.int64]
    people: NDArray[np.int64]
    numbers: NDArray[np.uint64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, layout: Layout, name: str) -> "PartSize":
        """Raises: ProjectError if it is absent or broken."""
        part = Part.of(layout.part(name))
        subjects = read_table(part, ("subject",))["subject"].combine_chunks().dictionary_encode()
        files = np.array([file.stat().st_size for file in part.files], dtype=np.int64)
        numbers = np.array([number_of_shard(subject) for subject in subjects.dictionary.to_pylist()], dtype=np.uint64)
        records = np.bincount(subjects.indices.to_numpy(), minlength=len(numbers))
        people = np.bincount((numbers % np.uint64(part.count)).astype(np.int64), minlength=part.count)
        weights = records * (files.sum() / max(len(subjects), 1))
        largest = part.files[int(files.argmax())]
        return cls(largest.relative_to(layout.private).as_posix(), len(subjects), files, people, numbers, weights)

    def largest_of(self, shards: int) -> float:
        """Bytes of its largest file with so many shards, if all records are of one size."""
        place = (self.numbers % np.uint64(shards)).astype(np.int64)
        return float(np.bincount(place, weights=self.weights, minlength=1).max(initial=0))


def part_sizes(layout: Layout, params: Params) -> list[PartSize]:
    """Raises: ProjectError if a part is absent or broken."""
    return [PartSize.of(layout, name) for name in params.parts]


def rewritten(sizes: Sequence[PartSize]) -> tuple[int, int]:
    """Bytes of the file that one person's erasure rewrites: of the largest, and on average over people."""
    people = sum(int(size.people.sum()) for size in sizes)
    total = sum(int(size.people @ size.files) for size in sizes)
    return max(int(size.files.max()) for size in sizes), total // max(people, 1)


def advised(sizes: Sequence[PartSize]) -> int:
    """How many shards a part should have: RULE.

    An erasure of one person rewrites one file; DVC hashes it, copies it to the cache and pushes it; a purge and a scan read what
    is new: about a tenth of a second of processor a megabyte. So files should be small. But each costs a stat whenever DVC or a
    stage looks, a line of some 80 bytes in DVC's manifest of the folder, which an erasure writes anew, and requests to a bucket.
    A power of two, because every change of the number rewrites everything. Where one person's records alone are larger than
    LARGE, more shards do not help: then it is the least number with the smallest largest file.
    """
    largest: dict[int, float] = {}
    shards = 1
    while shards <= MOST_SHARDS:
        largest[shards] = max(size.largest_of(shards) for size in sizes)
        most = SMALL if 2 * shards * len(sizes) <= MANY else LARGE
        if largest[shards] <= most:
            return shards
        shards *= 2
    return min(largest, key=lambda shards: (largest[shards], shards))
