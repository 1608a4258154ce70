"""What a scan looks for, and what it knowingly leaves out."""

import base64
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lmeraser.prove.finder import Pattern, folded, image, text_patterns
from lmeraser.prove.traces import LENGTH, anchors

SHORTEST_NAME = 8  # characters; a shorter name stands in many files that are not about the subject
WHOLE_IMAGE = 4096  # bytes; of a larger image EXCERPTS pieces of EXCERPT bytes are looked for
EXCERPT, EXCERPTS = 64, 3


@dataclass(frozen=True)
class SearchTerms:
    """What must be found nowhere. Personal data: sent through a pipe, never in an argument, stored until a scan found none.

    Attributes: objects, run_entries: condemned digests; ids: of records; texts: looked for anywhere; names: subjects, looked for
    as whole words; images: bytes that were an image, or a part of one; shields: names of retained people that contain a name.
    shared: how many texts, names and images are not looked for, because retained records hold them too; short: how many names are
    too short to be looked for in bytes.
    """

    objects: frozenset[str] = frozenset()
    run_entries: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    images: frozenset[bytes] = frozenset()
    shields: frozenset[str] = frozenset()
    shared: int = 0
    short: int = 0

    def with_words_of(self, other: "SearchTerms") -> "SearchTerms":
        """Also what the other looks for by its bytes; what is condemned is decided anew each time."""
        joined = {name: getattr(self, name) | getattr(other, name) for name in ("ids", "texts", "names", "images", "shields")}
        return replace(self, **joined, shared=max(self.shared, other.shared), short=max(self.short, other.short))

    def to_json(self) -> dict[str, Any]:
        fields = {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in asdict(self).items()
            if name != "images"
        }
        return fields | {"images": sorted(base64.b64encode(piece).decode() for piece in self.images)}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "SearchTerms":
        """Raises: ValueError, KeyError, TypeError if it is none."""
        fields: dict[str, Any] = {
            name: frozenset(value) if isinstance(value, list) else int(value) for name, value in raw.items()
        }
        return cls(**fields | {"images": frozenset(base64.b64decode(piece) for piece in raw["images"])})

    def patterns(self) -> list[Pattern]:
        """Everything that is looked for by its bytes."""
        patterns = [image(piece) for piece in self.images]
        shields = {longer: folded(longer) for longer in self.shields}
        for name in self.names:
            patterns += text_patterns(
                name, True, [longer for longer, folded_name in shields.items() if folded(name) in folded_name]
            )
        for text in self.texts | self.ids:
            patterns += text_patterns(text, False)
        return patterns

    def exempt(self) -> list[str]:
        """What is not looked for, or does not count, in words without personal data."""
        notes = ["names count as whole words: a letter or a digit before or behind makes another word"] if self.names else []
        if self.short:
            notes.append(
                f"{self.short} names of fewer than {SHORTEST_NAME} characters: looked for in columns of Parquet files alone"
            )
        if self.shared:
            notes.append(f"{self.shared} names, digests or pieces of images that retained records hold too: not looked for")
        if self.shields:
            notes.append(
                f"{len(self.shields)} names of retained people contain a name that is looked for: there it does not count"
            )
        return notes


def containing(names: Iterable[str], retained: Iterable[str]) -> frozenset[str]:
    """The names of retained people that contain one of the names and are longer."""
    wanted = {folded(name) for name in names}
    folded_names = {longer: longer.lower() if longer.isascii() else folded(longer) for longer in retained}
    return frozenset(longer for longer, text in folded_names.items() if any(name in text and name != text for name in wanted))


def excerpts(image: bytes) -> set[bytes]:
    """A small image whole; of a large one pieces from its second half: headers and colour tables are alike in many images.

    Pieces are cut around anchors (`traces`), so that an index can tell which objects do not hold them.
    """
    if len(image) <= WHOLE_IMAGE:
        return {image}
    half = len(image) // 2
    data = np.frombuffer(image[half:], np.uint8)
    places = anchors(data, len(data) - EXCERPT)
    if not len(places):
        step = half // (EXCERPTS + 1)
        return {image[half + step * number :][:EXCERPT] for number in range(EXCERPTS)}
    # Another piece each time, also around the same anchor.
    within = [(EXCERPT - LENGTH) * number // (EXCERPTS - 1) for number in range(EXCERPTS)]
    starts = [half + max(0, int(places[len(places) * number // EXCERPTS]) - within[number]) for number in range(EXCERPTS)]
    return {image[start : start + EXCERPT] for start in starts}
