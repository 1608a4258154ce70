"""Which files of a store a scan reads, and what it remembers of those that it read.

    all of them              `Reading()`, as `lmeraser audit --stores` does
    what is not known        objects that are named by their content, were read whole before and surely hold nothing of what is
                             looked for are left out (`object_index`), and files with the digest of such an object, of one
                             that this very scan read, or of a file that an earlier one read; everything else is read
    what has its turn        a share of all files, drawn by a key for each day (`turns`)

Names, condemned digests and what names them are looked at in every store, whichever files are read.
"""

import hashlib
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from lmeraser.prove.archives import is_packed
from lmeraser.prove.finder import Finder
from lmeraser.prove.object_index import Clean, ObjectIndex, question_of
from lmeraser.prove.traces import Gathering
from lmeraser.stores.base import Entry, Store

LEAST = 1 << 10  # bytes of a file from which on its digest is worth its while
PIECE = 1 << 20  # bytes read at once for it
WRITTEN_ONCE = (".safetensors", ".parquet")  # files that are replaced and never added to: worth remembering also outside stores
OPEN = "{} search terms that no index can answer: every object was read"


@dataclass
class Reading:
    """Attributes:
    index: what was read before; None: nothing is known and nothing remembered.
    clean: MD5s of the objects that this scan read whole and found nothing in.
    people: pseudonyms of everybody who is looked for. trusting: leave out what the index answers.
    has_turn: by the name of an object or file, whether it is read; None: all are.
    """

    index: ObjectIndex | None = None
    people: frozenset[str] = frozenset()
    trusting: bool = False
    has_turn: Callable[[str], bool] | None = None
    notes: list[str] = field(default_factory=list)
    clean: set[str] = field(default_factory=set)
    _sizes: set[int] = field(default_factory=set)  # in bytes, of the objects whose digest may answer for a file
    _clean: Clean | None = None

    def begin(self, finder: Finder) -> None:
        """Ask the index what this finder looks for."""
        if self.index is not None and self.trusting:
            question = question_of(self.index.key, finder, self.people)
            self._clean = self.index.clean(question)
            self._sizes |= self.index.sizes
            if question.open and self.index.size:
                self.notes.append(OPEN.format(question.open))

    def knows(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether an object need not be searched: its bytes were, and hold nothing.

        Where the file is not the one that was read, as when DVC sets its mode once more, its digest says whether its bytes are.
        Args: md5: that it is named by. Raises: whatever reading raises.
        """
        if self.index is None or self._clean is None or md5 not in self._clean:
            return False
        if self.index.is_known(store, entry, md5):
            self.index.keep(store, entry)
            return True
        same = entry.kind == "file" and _digest(store, entry) == md5.removesuffix(".dir")
        if same:
            self.index.note_again(store, entry, md5)
        return same

    def knows_bytes(self, store: Store, entry: Entry, condemned: Set[str]) -> bool:
        """Whether a file that no digest names holds, byte for byte by its digest, what was read whole and has nothing in it: as
        artifacts do, of which the cache has a copy. Raises: whatever reading raises."""
        if self.index is None or self._clean is None:
            return False
        if entry.kind != "file" or entry.size < LEAST or entry.size not in self._sizes:
            return False
        md5 = _digest(store, entry)
        known = md5 not in condemned and (md5 in self.clean or md5 in self._clean)
        if known:
            self.index.keep_bytes(md5)
        return known

    def found_nothing(self, md5: str, size: int) -> None:
        """An object was read whole by this scan, and holds nothing of what is looked for."""
        self.clean.add(md5)
        self._sizes.add(size)

    def waits(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether it is not a file's turn: what is known of it stays."""
        waits = self.has_turn is not None and not self.has_turn(md5 or entry.key)
        if waits and self.index is not None:
            if not md5:
                self.index.keep_all_bytes()
            elif self.index.is_known(store, entry, md5):
                self.index.keep(store, entry)
        return waits

    def gathering(self, entry: Entry, md5: str) -> Gathering | None:
        """What gathers the traces of a file while it is read; None if it is not to be remembered."""
        worthy = md5 or (entry.kind == "file" and entry.size >= LEAST and entry.key.endswith(WRITTEN_ONCE))
        return Gathering() if worthy and self.index is not None else None

    def finish(self) -> None:
        """Keep what is known and forget the rest: what is gone, and what was read and cannot be remembered."""
        if self.index is not None:
            problem = self.index.problem()
            told = self.index.save() or problem
            self.notes += [told] if told else []


def _digest(store: Store, entry: Entry) -> str:
    """MD5 of a file. Raises: whatever reading raises."""
    digest = hashlib.md5(usedforsecurity=False)
    with store.open(entry.key) as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


@dataclass
class Look:
    """What was seen of one file. Attributes: md5: of its content, empty if that is not known; people: in its columns; answerable:
    whether its traces tell all that a search of it would find."""

    md5: str = ""
    people: set[str] = field(default_factory=set)
    parquet: bool = False
    answerable: bool = False


def remember(
    reading: Reading, store: Store, entry: Entry, name: str, look: Look, gathering: Gathering | None, clean: bool
) -> None:
    """Note a file that was read whole, if its traces tell all of it.

    Args: name: the digest that it is named by, empty if it is not; clean: nothing was found in it.
    """
    if reading.index is None or gathering is None or not look.answerable or (name and look.md5 != name.removesuffix(".dir")):
        return
    if clean:
        reading.found_nothing(look.md5, entry.size)
    if gathering.folded:
        return
    if name:
        reading.index.note(store, entry, name, look.parquet, gathering.end(), look.people)
    else:
        reading.index.note_bytes(entry.size, look.md5, look.parquet, gathering.end(), look.people)


def is_answerable(head: bytes, shown: bool, holes: bool) -> bool:
    """Whether traces tell all of a file. Args: shown: its values stand in its bytes; holes: some were passed over."""
    return shown and not holes and not is_packed(head)
