"""Which near copies go along, as a human decided: a text that names images by their digests, and whose near copies they are.

    plan 0123456789abcdef0123456789abcdef
    # image 1: the same bytes, other person 1
    # 3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b

Lines that begin with # choose nothing: the page begins each choice so, and a human takes the # away. The plan is a digest of the
leaving records' ids, so that choices for one erasure are none for another, nor for the same people once their records changed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError
from lmeraser.data.columns import among
from lmeraser.erase.plan import Facts

HEADER = "plan"
PLAN = re.compile(rf"{HEADER} +([0-9a-f]{{32}})")
DIGEST = re.compile(r"[0-9a-f]{64}")
HOW = "take the text of the report that `lmeraser plan --near` wrote"


@dataclass(frozen=True)
class Leaving:
    """Whose near copies are asked for. Attributes: records: ids, sorted; plan: that names them."""

    records: tuple[str, ...]

    @classmethod
    def of(cls, facts: Facts, subjects: Sequence[str], images: Sequence[str]) -> "Leaving":
        """Every record of the subjects, and every one that has one of the images. Args: images: digests."""
        ids: list[str] = []
        for records in (facts.private, facts.public):
            theirs = among(records["subject"], subjects)
            shown = among(records["sha256"], images)
            ids += records["id"].filter(pc.or_(theirs, shown)).to_pylist()
        return cls(tuple(sorted(ids)))

    @property
    def plan(self) -> str:
        return sha256("\x1f".join(("near copies", *self.records)).encode())[:32]


@dataclass(frozen=True)
class Choices:
    """Attributes: plan: of whom the chosen ones are near copies; images: digests, each once, in the order of the file."""

    plan: str
    images: tuple[str, ...]

    @classmethod
    def read(cls, text: str, where: str) -> "Choices":
        """Args: where: begins an error. Raises: BadInputError with the number of the line, never with its content."""
        plan, images = None, dict[str, None]()
        for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
            plain = line.strip()
            if not plain or plain.startswith("#"):
                continue
            if plan is None:
                found = PLAN.fullmatch(plain)
                if not found:
                    raise BadInputError(f"{where}: line {number} is not the line of a plan (`{HEADER}` and 32 hex digits); {HOW}")
                plan = found.group(1)
            elif not DIGEST.fullmatch(plain.lower()):
                raise BadInputError(f"{where}: line {number} is no SHA-256; expected 64 hex digits, or a # before it")
            else:
                images[plain.lower()] = None
        if plan is None:
            raise BadInputError(f"{where} holds no line of a plan; {HOW}")
        if not images:
            raise BadInputError(
                f"{where} chooses no image; take the # from the lines of those that shall go, or leave {where} out"
            )
        return cls(plan, tuple(images))

    def check(self, leaving: Leaving, known: Iterable[str], where: str) -> None:
        """Raise BadInputError unless they were chosen for these records. Args: known: digests of everybody else's images."""
        if self.plan != leaving.plan:
            raise BadInputError(
                f"{where} is of another plan: other people or images, or their records changed since; "
                "look at a new report (`lmeraser plan --near`)"
            )
        there = frozenset(known)
        unknown = next((place for place, digest in enumerate(self.images, start=1) if digest not in there), None)
        if unknown:
            raise BadInputError(
                f"{where}: choice {unknown} of {len(self.images)} is in no record of anybody else who stays; "
                "look at a new report (`lmeraser plan --near`)"
            )


def offer(plan: str, images: Iterable[tuple[str, str]]) -> str:
    """The text that chooses nothing yet. Args: images: what is said of each (one line, nobody's name), and its digest."""
    lines = [f"{HEADER} {plan}"]
    for said, digest in images:
        lines += [f"# {said}", f"# {digest}"]
    return "\n".join(lines) + "\n"
