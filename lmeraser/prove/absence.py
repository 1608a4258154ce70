"""Proofs that people are not among those who are retained: a sparse Merkle tree over the retained people's pseudonyms.

    position      SHA-256(03 ‖ pseudonym), 256 bits: where a person stands, most significant bit first, 0 to the left
    nobody        SHA-256(02), at any depth
    one person    SHA-256(00 ‖ depth ‖ position), as soon as nobody else stands below the node
    several       SHA-256(01 ‖ depth ‖ left ‖ right)

Depth has two bytes, 0 at the root. The root is a function of the set of people alone: neither an order nor a history enters. A
proof of absence leads from the root to where the person would stand: nobody is there, or somebody else alone, whose position is
told (a hash of a keyed hash, so nobody is named). Siblings that are nobody are not listed; a bitmap tells which are. With n
people a path has about log2(n) siblings. A proof says that the root's people do not include the person; whether the root is that
of the people in the records only somebody with the records can tell (`lmeraser audit`).

Sources: Dahlberg, Pulls and Peeters 2016, Efficient Sparse Merkle Trees (ePrint 2016/683): a tree over all keys, its proofs of
absence. Melara et al. 2015, CONIKS (USENIX Security): a leaf stands where its prefix becomes its own, and binds its depth.
RFC 6962, section 2.1: leaves and nodes are hashed apart.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from lmeraser.core.errors import VerificationError

BITS = 256
BITMAP = re.compile("[01]{0,256}")
NOBODY = sha256(b"\x02").digest()
MOST_PEOPLE = 2**32  # of whom a tree is; for the size of a proof alone


@dataclass(frozen=True)
class Proof:
    """That one person is not in the tree.

    Attributes:
        subject: the person's pseudonym.
        bitmap: for each level from the root on, 1 if the sibling there is somebody. It ends where the person would stand.
        siblings: hashes, 64 hex digits each, from the root on, one for each 1 of the bitmap.
        neighbour: the position of the only person there; None: nobody is there.
    """

    subject: str
    bitmap: str
    siblings: tuple[str, ...]
    neighbour: str | None


@dataclass(frozen=True)
class Absence:
    """Attributes: root: of the tree over everybody retained, 64 hex digits; proofs: by pseudonym, in order."""

    root: str
    proofs: tuple[Proof, ...]

    def of(self, pseudonyms: Collection[str]) -> "Absence":
        """The proofs of some of the people."""
        return Absence(self.root, tuple(proof for proof in self.proofs if proof.subject in pseudonyms))

    def to_json(self) -> dict[str, Any]:
        return {"root": self.root, "proofs": [asdict(proof) | {"siblings": list(proof.siblings)} for proof in self.proofs]}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Absence":
        """Raises: KeyError, TypeError if it is not what `to_json` gives."""
        return cls(raw["root"], tuple(Proof(**proof | {"siblings": tuple(proof["siblings"])}) for proof in raw["proofs"]))


def position_of(pseudonym: str) -> int:
    """Where a person stands. Args: pseudonym: 64 hex digits."""
    return int.from_bytes(sha256(b"\x03" + bytes.fromhex(pseudonym)).digest(), "big")


def _person(depth: int, position: int) -> bytes:
    return sha256(b"\x00" + depth.to_bytes(2, "big") + position.to_bytes(32, "big")).digest()


def _several(depth: int, left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + depth.to_bytes(2, "big") + left + right).digest()


def _bit(position: int, depth: int) -> int:
    return position >> (BITS - 1 - depth) & 1


class Tree:
    """The tree over some people. Args: pseudonyms: of everybody retained, in any order, some perhaps twice."""

    def __init__(self, pseudonyms: Iterable[str]) -> None:
        self._positions = sorted(set(map(position_of, pseudonyms)))

    def root(self) -> str:
        return self._node(0, len(self._positions), 0).hex()

    def absence(self, pseudonyms: Collection[str]) -> Absence:
        """The root, and a proof for each of the people. Raises: VerificationError if one of them is in the tree."""
        asked = {position_of(pseudonym): pseudonym for pseudonym in sorted(pseudonyms)}
        paths: dict[int, list[bytes]] = {position: [] for position in asked}
        ends: dict[int, int | None] = {}
        root = self._prove((0, len(self._positions)), 0, list(asked), paths, ends)
        proofs = [_proof(asked[position], path[::-1], ends[position]) for position, path in paths.items()]
        return Absence(root.hex(), tuple(proofs))

    def _middle(self, low: int, high: int, depth: int) -> int:
        """Where those begin whose bit at this depth is 1, among people whose bits before are the same."""
        free = BITS - depth
        first = (self._positions[low] >> free << free) | 1 << (free - 1)
        return bisect_left(self._positions, first, low, high)

    def _node(self, low: int, high: int, depth: int) -> bytes:
        """The hash of the node at this depth that holds the people from `low` up to `high`."""
        if low == high:
            return NOBODY
        if high - low == 1:
            return _person(depth, self._positions[low])
        middle = self._middle(low, high, depth)
        return _several(depth, self._node(low, middle, depth + 1), self._node(middle, high, depth + 1))

    def _prove(
        self, people: tuple[int, int], depth: int, asked: list[int], paths: dict[int, list[bytes]], ends: dict[int, int | None]
    ) -> bytes:
        """As `_node`; notes the way to each position that is asked for. Args: paths: siblings from below; ends: see `Proof`."""
        low, high = people
        if not asked:
            return self._node(low, high, depth)
        if high - low < 2:
            end = self._positions[low] if low < high else None
            if end in asked:
                raise VerificationError(
                    "records of the request's subjects are still among the retained ones; run `dvc repro`, then `lmeraser resume`"
                )
            ends.update(dict.fromkeys(asked, end))
            return self._node(low, high, depth)
        middle = self._middle(low, high, depth)
        to_left = [position for position in asked if not _bit(position, depth)]
        to_right = [position for position in asked if _bit(position, depth)]
        left = self._prove((low, middle), depth + 1, to_left, paths, ends)
        right = self._prove((middle, high), depth + 1, to_right, paths, ends)
        for others, sibling in ((to_left, right), (to_right, left)):
            for position in others:
                paths[position].append(sibling)
        return _several(depth, left, right)


def _proof(pseudonym: str, path: Sequence[bytes], end: int | None) -> Proof:
    bitmap = "".join("0" if sibling == NOBODY else "1" for sibling in path)
    siblings = tuple(sibling.hex() for sibling in path if sibling != NOBODY)
    return Proof(pseudonym, bitmap, siblings, None if end is None else f"{end:064x}")


def _root_by(proof: Proof) -> str:
    """The root that a proof leads to. Raises: VerificationError if it could not have been made."""
    depth, position = len(proof.bitmap), position_of(proof.subject)
    if not BITMAP.fullmatch(proof.bitmap) or proof.bitmap.count("1") != len(proof.siblings):
        raise VerificationError("its bitmap does not fit its siblings")
    if proof.bitmap.endswith("0"):
        raise VerificationError("it goes on where at most one person is left")
    if NOBODY.hex() in proof.siblings:
        raise VerificationError("it lists a sibling that is nobody")
    node = NOBODY
    if proof.neighbour is not None:
        neighbour = int(proof.neighbour, 16)
        if neighbour == position:
            raise VerificationError("it ends at the person")
        if (neighbour ^ position) >> (BITS - depth):
            raise VerificationError("its neighbour stands elsewhere")
        node = _person(depth, neighbour)
    siblings = list(proof.siblings)
    for level in reversed(range(depth)):
        sibling = bytes.fromhex(siblings.pop()) if proof.bitmap[level] == "1" else NOBODY
        node = _several(level, sibling, node) if _bit(position, level) else _several(level, node, sibling)
    return node.hex()


def check_absence(absence: Absence, pseudonyms: Sequence[str]) -> None:
    """Check that there is a proof for each of the people, in order, and that each leads to the root.

    Args: absence: of which every field is well formed (`FORMATS` in `lmeraser/prove/statement.py`).
    Raises: VerificationError; it tells a place, never a value.
    """
    if [proof.subject for proof in absence.proofs] != list(pseudonyms):
        raise VerificationError("its people are not those of predicate.subjects, each once and in the same order")
    for place, proof in enumerate(absence.proofs, start=1):
        try:
            root = _root_by(proof)
        except VerificationError as error:
            raise VerificationError(f"proof {place} of {len(absence.proofs)} shows nothing: {error}") from None
        if root != absence.root:
            raise VerificationError(f"proof {place} of {len(absence.proofs)} does not lead to the root")


def largest_proof() -> int:
    """At most how many bytes a proof has in canonical JSON, but for an accident of less than 2^-64.

    A person shares so many bits with somebody else, and below log2(n) levels hardly any sibling is somebody.
    """
    levels = MOST_PEOPLE.bit_length()
    return 300 + (levels + 2 * 64) + 67 * (levels + 12)
