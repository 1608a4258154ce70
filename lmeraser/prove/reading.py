"""Which files of a store a scan reads, and what it remembers of those that it read.

    all of them              `Reading()`, as `lmeraser audit --stores` does
    what is not known        objects that are named by their content, were read whole before and surely hold nothing of what is
                             looked for are left out (`object_index`); everything else is read
    what has its turn        a share of all files, drawn by a key for each day (`turns`)

Names, condemned digests and what names them are looked at in every store, whichever files are read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from lmeraser.prove.archives import is_packed
from lmeraser.prove.finder import Finder
from lmeraser.prove.object_index import ObjectIndex, question_of
from lmeraser.prove.traces import Gathering
from lmeraser.stores.base import Entry, Store

OPEN = "{} search terms that no index can answer: every object was read"


@dataclass
class Reading:
    """Attributes:
    index: what was read before; None: nothing is known and nothing remembered.
    people: pseudonyms of everybody who is looked for. trusting: leave out what the index answers.
    has_turn: by the name of an object or file, whether it is read; None: all are.
    """

    index: ObjectIndex | None = None
    people: frozenset[str] = frozenset()
    trusting: bool = False
    has_turn: Callable[[str], bool] | None = None
    notes: list[str] = field(default_factory=list)
    _clean: frozenset[str] = frozenset()

    def begin(self, finder: Finder) -> None:
        """Ask the index what this finder looks for."""
        if self.index is None:
            return
        if self.index.problem:
            self.notes.append(self.index.problem)
        if self.trusting:
            question = question_of(self.index.key, finder, self.people)
            self._clean = self.index.clean(question)
            if question.open and self.index.size:
                self.notes.append(OPEN.format(question.open))

    def knows(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether an object need not be read: it was, and holds nothing. Args: md5: that it is named by, empty if it is not."""
        return self.index is not None and md5 in self._clean and self.index.is_known(store, entry, md5)

    def waits(self, entry: Entry, md5: str) -> bool:
        """Whether it is not a file's turn."""
        return self.has_turn is not None and not self.has_turn(md5 or entry.key)

    def gathering(self, md5: str) -> Gathering | None:
        """What gathers the traces of an object while it is read; None if it is not to be remembered."""
        return Gathering() if md5 and self.index is not None else None

    def finish(self) -> None:
        """Keep what is new. What was known of files that are gone went with `ObjectIndex.keep_only`."""
        if self.index is not None:
            problem = self.index.problem
            self.index.save()
            if self.index.problem != problem:
                self.notes.append(self.index.problem)


@dataclass
class Look:
    """What was seen of one file. Attributes: md5: of its content, empty if that is not known; people: in its columns; answerable:
    whether its traces tell all that a search of it would find."""

    md5: str = ""
    people: set[str] = field(default_factory=set)
    parquet: bool = False
    answerable: bool = False


def remember(reading: Reading, store: Store, entry: Entry, name: str, look: Look, gathering: Gathering | None) -> None:
    """Note an object that was read whole, or drop what was known of it. Args: name: the digest that it is named by."""
    if reading.index is None or not name:
        return
    if gathering is not None and look.answerable and not gathering.folded and look.md5 == name.removesuffix(".dir"):
        reading.index.note(store, entry, name, look.parquet, gathering.end(), look.people)
    else:
        reading.index.drop(store, entry.key)


def is_answerable(head: bytes, shown: bool, holes: bool) -> bool:
    """Whether traces tell all of a file. Args: shown: its values stand in its bytes; holes: some were passed over."""
    return shown and not holes and not is_packed(head)
