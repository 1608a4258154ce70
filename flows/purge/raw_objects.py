"""Which stored objects hold records of the erased people, decided by what is in them, and what a scan must look for afterwards.

People are known by the name on the list, and by what their records in earlier parts show: ids, digests and bytes of images. A
name that was corrected since (`writer-9` to `Writer-9`) is no other person: parts from before hold the same images. What a
retained record holds as well (the same image) is no sign of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flows.purge.lineage import IsErased, Lineage, tables
from lmeraser.core.layout import Layout
from lmeraser.data.records import read_table
from lmeraser.erase.taint import FOLDER
from lmeraser.prove.finder import Finder
from lmeraser.prove.parquet import UNREADABLE, is_parquet, parquet_hits
from lmeraser.prove.search_terms import SHORTEST_NAME, SearchTerms, containing, excerpts

KNOWN_BY = ("id", "sha256", "subject")


@dataclass
class Marks:
    """What the erased people's records are known by. Attributes: aliases: earlier names; images: bytes, or pieces of them."""

    is_erased: IsErased
    ids: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    images: set[bytes] = field(default_factory=set)

    def knows(self, subject: str) -> bool:
        return subject in self.aliases or self.is_erased(subject)


def retained_files(layout: Layout) -> list[Path]:
    return [path for path in (layout.public, *sorted(layout.private.glob("*.parquet"))) if path.is_file()]


def _column(layout: Layout, name: str) -> set[str]:
    """A column of all retained records."""
    return {one for path in retained_files(layout) for one in pc.unique(read_table(path, (name,))[name]).to_pylist()}


def _records(lineage: Lineage, md5s: Iterable[str], images: bool = False) -> Iterator[pa.Table]:
    """The records of parts, as far as they have the columns and types of ours."""
    for table in tables(lineage, md5s, [*KNOWN_BY, *(["image"] if images else [])]):
        if set(KNOWN_BY) <= set(table.column_names) and all(pa.types.is_string(table[name].type) for name in KNOWN_BY):
            yield table


def _rows(table: pa.Table, marks: Marks) -> pa.Table:
    """The erased people's records: under their name or an earlier one, or with an image of theirs."""
    subjects = [one for one in pc.unique(table["subject"]).to_pylist() if one is not None and marks.knows(one)]
    theirs = pc.is_in(table["subject"], value_set=pa.array(subjects, pa.string()))
    same = pc.is_in(table["sha256"], value_set=pa.array(sorted(marks.digests), pa.string()))
    return table.filter(pc.or_(theirs, same))


def marks_of(lineage: Lineage, md5s: Iterable[str], is_erased: IsErased) -> Marks:
    """What the records in these objects tell of the erased people; personal data."""
    parts, marks = sorted(md5s), Marks(is_erased)
    kept, retained = _column(lineage.layout, "sha256"), _column(lineage.layout, "subject")
    for table in _records(lineage, parts):
        marks.digests |= set(_rows(table, marks)["sha256"].to_pylist()) - kept
    for table in _records(lineage, parts):
        named = set(_rows(table, marks)["subject"].to_pylist())
        marks.names |= {one for one in named if is_erased(one)}
        marks.aliases |= {one for one in named if not is_erased(one)} - retained
    for table in _records(lineage, parts, images=True):
        rows = _rows(table, marks)
        marks.ids |= set(rows["id"].to_pylist())
        marks.digests |= set(rows["sha256"].to_pylist()) - kept
        if "image" in rows.column_names:
            marks.images |= {piece for image in rows["image"].to_pylist() if image for piece in excerpts(image)}
    return marks


def search_terms_of(layout: Layout, marks: Marks) -> SearchTerms:
    """What to look for in bytes, without what retained records hold too."""
    names = marks.names | marks.aliases
    long = {one for one in names if len(one) >= SHORTEST_NAME}
    shields = containing(long, _column(layout, "subject"))
    drafted = SearchTerms(
        ids=frozenset(marks.ids),
        texts=frozenset(marks.digests),
        names=frozenset(long),
        images=frozenset(marks.images),
        shields=shields,
        short=len(names - long),
    )
    finder = Finder(drafted.patterns())
    shared = {one.term for path in retained_files(layout) for _, one in finder.found(path.read_bytes())} - marks.ids
    texts, words, images = drafted.texts - shared, drafted.names - shared, drafted.images - shared
    lost = len(drafted.texts) + len(drafted.names) + len(drafted.images) - len(texts) - len(words) - len(images)
    return replace(drafted, texts=texts, names=words, images=images, shared=lost)


def _at_paths(lineage: Lineage) -> dict[str, set[str]]:
    """Every MD5 that any version names at or below the folder of the split: path to MD5s."""
    root = lineage.layout.root
    split = lineage.layout.public.parent.relative_to(root).as_posix()
    found: dict[str, set[str]] = {}
    for one in lineage.stage_runs:
        for path, md5 in (*one.deps, *one.outs):
            if path == split or path.startswith(split + "/"):
                if md5.endswith(FOLDER):
                    for member, content in lineage.manifests.get(md5, {}).items():
                        found.setdefault(f"{path}/{member}", set()).add(content)
                else:
                    found.setdefault(path, set()).add(md5)
    return found


def _holds(lineage: Lineage, md5: str, marks: Marks, finder: Finder | None = None) -> bool | None:
    """Whether an object holds a record of theirs; None if nothing can tell. Args: finder: search other files by bytes too."""
    records, told = marks.ids | marks.digests, None
    for store, key in lineage.places.get(md5, ()):
        try:
            with store.open(key) as stream:
                found = parquet_hits(stream, marks.knows, records, finder.values if finder else None)
                if any(kind != UNREADABLE for kind in found):
                    return True
                if is_parquet(stream) and not found:
                    told = False
                if finder:
                    stream.seek(0)
                    if finder.count(stream):
                        return True
        except (FileNotFoundError, OSError):
            continue
    return told


def raw_objects(lineage: Lineage, is_erased: IsErased) -> frozenset[str]:
    """MD5s of the objects that hold a record of an erased subject, decided by their content.

    What lay at an affected path and can be read nowhere is condemned by its name: nothing shows that it was clean. Objects that
    nothing names are looked into as well; what other pipelines of the project made is judged by its lineage alone.
    """
    raw: set[str] = set()
    paths = [md5s - lineage.live for md5s in _at_paths(lineage).values()]
    loose = {md5 for md5 in lineage.orphans if not md5.endswith(FOLDER)}
    marks = marks_of(lineage, {md5 for md5s in paths for md5 in md5s} | loose, is_erased)
    seen: dict[str, bool | None] = {}
    for md5s in paths:
        told = {md5: seen[md5] if md5 in seen else seen.setdefault(md5, _holds(lineage, md5, marks)) for md5 in md5s}
        if any(told.values()):
            raw |= {md5 for md5, holds in told.items() if holds is not False}
    shared = {md5 for _, held in lineage.outside() for md5 in held.objects}
    finder = Finder(search_terms_of(lineage.layout, marks).patterns()) if loose & shared else None
    # In the own cache they go anyway; elsewhere only what is seen to hold the people.
    raw |= {md5 for md5 in loose if _holds(lineage, md5, marks, finder if md5 in shared else None)}
    return frozenset(raw)
