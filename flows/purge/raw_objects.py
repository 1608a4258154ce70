"""Which stored objects hold records of the erased people, decided by what is in them (`marks` says how they are known), or by
what is known of them since they were read (`known`).
"""

from collections.abc import Container, Sequence

from flows.purge.known import NOTHING, Known
from flows.purge.lineage import IsErased, Lineage
from flows.purge.marks import NO_IMAGES, NO_OLD_VALUES, Marks, OldValues, marks_of
from flows.purge.search_terms import search_terms_of
from lmeraser.erase.erased import ErasedImages
from lmeraser.erase.taint import FOLDER
from lmeraser.prove.finder import Finder
from lmeraser.prove.parquet import UNREADABLE, is_parquet, parquet_hits
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.stores.base import Entry, Store

HELD, CLEAN, UNTOLD = "held", "clean", "untold"  # of a copy: whether it holds a record of theirs


def _at_paths(lineage: Lineage) -> dict[str, set[str]]:
    """Every MD5 that any version names at or below the folder of the split: path to MD5s."""
    root = lineage.layout.root
    split = lineage.layout.public.parent.relative_to(root).as_posix()
    at_paths: dict[str, set[str]] = {}
    for run in lineage.stage_runs:
        for path, md5 in (*run.deps, *run.outs):
            if path == split or path.startswith(split + "/"):
                if md5.endswith(FOLDER):
                    for member, content in lineage.manifests.get(md5, {}).items():
                        at_paths.setdefault(f"{path}/{member}", set()).add(content)
                else:
                    at_paths.setdefault(path, set()).add(md5)
    return at_paths


class _Holders:
    """Tells which objects hold a record of theirs. Args: search_terms: what other files are searched for too."""

    def __init__(self, lineage: Lineage, marks: Marks, search_terms: SearchTerms, known: Known) -> None:
        self._lineage, self._marks, self._known = lineage, marks, known
        self._records = marks.ids | marks.digests
        self._finder = Finder(search_terms.patterns())
        self._without_records = known.clean(SearchTerms(texts=frozenset(self._records)), marks.aliases)
        self._without_traces = known.clean(search_terms, marks.aliases)

    def holds(self, md5: str, bytes_too: bool = False) -> bool | None:
        """Whether an object holds a record of theirs; None if nothing can tell. Args: bytes_too: search other files by bytes."""
        answer = None
        clean = [self._without_records, self._without_traces] if bytes_too else [self._without_records]
        for store, entry in self._lineage.copies.get(md5, ()):
            seen = self._known_answer(store, entry, md5, clean) or self._look(store, entry, bytes_too)
            if seen == HELD:
                return True
            answer = False if seen == CLEAN else answer
        return answer

    def _known_answer(self, store: Store, entry: Entry, md5: str, clean: Sequence[Container[str]]) -> str:
        """What the index says of a copy; empty if it must be read."""
        if any(md5 not in answer for answer in clean) or not self._known.is_whole(store, entry, md5):
            return ""
        return CLEAN if self._known.is_parquet(md5) else UNTOLD

    def _look(self, store: Store, entry: Entry, bytes_too: bool) -> str:
        try:
            with store.open(entry.key) as stream:
                search = self._finder.count_values if bytes_too else None
                hits = parquet_hits(stream, self._marks.knows, self._records, search)
                if any(kind != UNREADABLE for kind in hits):
                    return HELD
                answer = CLEAN if is_parquet(stream) and not hits else UNTOLD
                stream.seek(0)
                return HELD if bytes_too and self._finder.count(stream) else answer
        except (FileNotFoundError, OSError):
            return UNTOLD


def raw_objects(
    lineage: Lineage,
    is_erased: IsErased,
    known: Known = NOTHING,
    erased_images: ErasedImages = NO_IMAGES,
    old_values: OldValues = NO_OLD_VALUES,
) -> tuple[frozenset[str], SearchTerms]:
    """MD5s of the objects that hold a record of an erased subject, an erased image or an old value, by content; and what those
    are known by.

    What lay at an affected path and can be read nowhere is condemned by its name: nothing shows that it was clean. Objects that
    nothing names are looked into as well; what other pipelines of the project made is judged by its lineage alone.
    """
    raw: set[str] = set()
    paths = [md5s - lineage.live for md5s in _at_paths(lineage).values()]
    loose = {md5 for md5 in lineage.orphans if not md5.endswith(FOLDER)}
    # Every object that holds a record of theirs is among these, so the marks are those of the raw objects too.
    marks = marks_of(lineage, {md5 for md5s in paths for md5 in md5s} | loose, is_erased, known, erased_images, old_values)
    search_terms = search_terms_of(lineage, marks, known)
    holders = _Holders(lineage, marks, search_terms, known)
    seen: dict[str, bool | None] = {}
    for md5s in paths:
        answers = {md5: seen[md5] if md5 in seen else seen.setdefault(md5, holders.holds(md5)) for md5 in md5s}
        if any(answers.values()):
            raw |= {md5 for md5, holds in answers.items() if holds is not False}
    shared = {md5 for _, contents in lineage.outside() for md5 in contents.objects}
    # In the own cache they go anyway; elsewhere only what is seen to hold the people.
    raw |= {md5 for md5 in loose if holders.holds(md5, bytes_too=md5 in shared)}
    if old_values.corrections:
        # A corrected record may have come into a file whose folder is gone since: what was made of it is seen by content alone.
        others = (md5 for md5 in lineage.copies if md5 not in lineage.live and not md5.endswith(FOLDER))
        raw |= {md5 for md5 in others if md5 not in raw and holders.holds(md5)}
    return frozenset(raw), search_terms
