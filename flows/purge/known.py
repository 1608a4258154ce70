"""What is known of the objects of the stores since they were read whole, for who plans a purge: which of them surely hold nobody
of those who go, so that they need not be read for that. Without the index, or where it knows nothing, everything is read.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedList, key_path, load_key, people_among
from lmeraser.prove.finder import Finder
from lmeraser.prove.object_index import ObjectIndex, question_of
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.base import Entry, Store


@dataclass(frozen=True)
class Known:
    """Attributes: people: pseudonyms of everybody who is on a list."""

    index: ObjectIndex | None
    people: frozenset[str]

    def clean(self, search_terms: SearchTerms, names: Iterable[str] = ()) -> Container[str]:
        """MD5s of contents that surely hold none of the terms, nobody on the lists and none of these people in a column."""
        if self.index is None:
            return frozenset()
        return self.index.clean(question_of(self.index.key, Finder(search_terms.patterns()), self.people, names))

    def is_whole(self, store: Store, entry: Entry, md5: str) -> bool:
        """Whether this file was read whole, and is the content that its name says."""
        return self.index is not None and self.index.is_known(store, entry, md5)

    def is_parquet(self, md5: str) -> bool:
        return self.index is not None and self.index.is_parquet(md5)


NOTHING = Known(None, frozenset())


def open_index(layout: Layout) -> ObjectIndex | None:
    """None while there is no subject key, by which the index is kept: nobody was ever erased. Raises: ProjectError."""
    key_file = key_path(layout.private_state)
    return ObjectIndex(layout.object_index, load_key(key_file)) if key_file.exists() else None


def known_objects(layout: Layout) -> Known:
    """Raises: ProjectError if a list or the key is damaged."""
    return Known(open_index(layout), people_among(ErasedList.known(layout).pseudonyms))
