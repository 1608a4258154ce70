"""What a scan must not find after a purge: gathered before the deletes, while the records can still be read.

The terms are personal data. They are kept in `.lmeraser` from before the first delete until a scan found none of them: afterwards
nobody could tell them any more, and a second try would look for less.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.purge.known import NOTHING, Known
from flows.purge.lineage import Lineage
from flows.purge.marks import Marks, retained_files, retained_values
from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.data.records import Part
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.finder import Finder
from lmeraser.prove.search_terms import SHORTEST_NAME, SearchTerms, containing

KEPT = ".needles"  # the suffix of what a batch's scan looks for
DRAFT = f"{KEPT}.draft"
ROWS = f"{KEPT}.rows"  # of the source, which a batch began to delete


def _unknown_files(lineage: Lineage, search_terms: SearchTerms, known: Known) -> list[Path]:
    """The files of retained records that may hold one of the terms: all but those that are known by the locks' digests."""
    layout = lineage.layout
    clean, digests = known.clean(search_terms), dict(read_outs(layout.lock))
    for folder, md5 in list(digests.items()):
        digests |= {f"{folder}/{member}": content for member, content in lineage.manifests.get(md5, {}).items()}
    paths = [file for path in retained_files(layout) for file in Part.of(path).files]
    return [path for path in paths if digests.get(path.relative_to(layout.root).as_posix()) not in clean]


def search_terms_of(lineage: Lineage, marks: Marks, known: Known = NOTHING) -> SearchTerms:
    """What to look for in bytes, without what retained records hold too (an identical image, a name within a name)."""
    layout = lineage.layout
    names = marks.names | marks.aliases
    long = {name for name in names if len(name) >= SHORTEST_NAME}
    drafted = SearchTerms(
        ids=frozenset(marks.ids),
        texts=frozenset(marks.digests),
        names=frozenset(long),
        images=frozenset(marks.images),
        shields=containing(long, retained_values(layout, "subject")),
        short=len(names - long),
    )
    finder = Finder(drafted.patterns())
    files = _unknown_files(lineage, drafted, known)
    hits = (pattern for path in files for _, pattern in finder.matches(path.read_bytes()))
    shared = {pattern.term for pattern in hits} - marks.ids
    texts, words, images = drafted.texts - shared, drafted.names - shared, drafted.images - shared
    lost = len(drafted.texts) + len(drafted.names) + len(drafted.images) - len(texts) - len(words) - len(images)
    return replace(drafted, texts=texts, names=words, images=images, shared=lost)


def kept_files(layout: Layout) -> list[Path]:
    """The files in which open requests keep their terms, drafts of killed writes among them."""
    return sorted(layout.private_state.glob(f"*{KEPT}*"))


def keep_search_terms(layout: Layout, batch_id: str, search_terms: SearchTerms) -> None:
    """Store what to look for, for its owner alone; `drop_search_terms` once nothing of it is found."""
    _keep(layout, batch_id, KEPT, search_terms.to_json())


def _keep(layout: Layout, batch_id: str, suffix: str, value: Any) -> None:
    draft = layout.private_state / f"{batch_id}{DRAFT}"  # a name of its own: what a kill leaves of it goes with the rest
    with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(canonical_json(value))
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(layout.private_state / f"{batch_id}{suffix}")


def keep_rows(layout: Layout, batch_id: str, paths: Iterable[str]) -> None:
    """Store which rows of the source go with their images: once an image is deleted, nothing else tells its row."""
    _keep(layout, batch_id, ROWS, sorted(paths))


def kept_rows(layout: Layout, batch_id: str) -> list[str] | None:
    """The paths of rows that an earlier try began to delete; None if there was none. Raises: ProjectError if damaged."""
    path = layout.private_state / f"{batch_id}{ROWS}"
    if not path.exists():
        return None
    try:
        rows = json.loads(path.read_bytes())
        if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
            raise ValueError("no list of paths")
    except ValueError as error:
        raise ProjectError(
            "the file of rows that the source loses (.needles.rows in .lmeraser) is damaged; delete it, and from the manifest "
            "the rows whose image is gone"
        ) from error
    return rows


def drop_rows(layout: Layout, batch_id: str) -> None:
    (layout.private_state / f"{batch_id}{ROWS}").unlink(missing_ok=True)


def kept_search_terms(layout: Layout, batch_id: str) -> SearchTerms | None:
    """What an earlier try looked for; None if there was none. Raises: ProjectError if the file is damaged."""
    path = layout.private_state / f"{batch_id}{KEPT}"
    return _read(path) if path.exists() else None


def words_of_open_requests(layout: Layout) -> SearchTerms:
    """What the scans of all open requests look for by its bytes. Raises: ProjectError if a file is damaged."""
    terms = SearchTerms()
    for path in sorted(layout.private_state.glob(f"*{KEPT}")):
        terms = terms.with_words_of(_read(path))
    return terms


def _read(path: Path) -> SearchTerms:
    try:
        return SearchTerms.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(
            "the file of what must not be found (.needles in .lmeraser) is damaged; delete it: the scan goes by digests then"
        ) from error


def drop_search_terms(layout: Layout, batch_id: str) -> None:
    for suffix in (DRAFT, KEPT, ROWS):
        (layout.private_state / f"{batch_id}{suffix}").unlink(missing_ok=True)
