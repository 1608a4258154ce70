"""Which stored objects hold records of the erased people, decided by what is in them (`marks` says how they are known)."""

from flows.purge.lineage import IsErased, Lineage
from flows.purge.marks import Marks, marks_of
from flows.purge.search_terms import search_terms_of
from lmeraser.erase.taint import FOLDER
from lmeraser.prove.finder import Finder
from lmeraser.prove.parquet import UNREADABLE, is_parquet, parquet_hits
from lmeraser.prove.search_terms import SearchTerms


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


def _holds(lineage: Lineage, md5: str, marks: Marks, finder: Finder | None = None) -> bool | None:
    """Whether an object holds a record of theirs; None if nothing can tell. Args: finder: search other files by bytes too."""
    records, answer = marks.ids | marks.digests, None
    for store, key in lineage.copies.get(md5, ()):
        try:
            with store.open(key) as stream:
                hits = parquet_hits(stream, marks.knows, records, finder.count_values if finder else None)
                if any(kind != UNREADABLE for kind in hits):
                    return True
                if is_parquet(stream) and not hits:
                    answer = False
                if finder:
                    stream.seek(0)
                    if finder.count(stream):
                        return True
        except (FileNotFoundError, OSError):
            continue
    return answer


def raw_objects(lineage: Lineage, is_erased: IsErased) -> tuple[frozenset[str], SearchTerms]:
    """MD5s of the objects that hold a record of an erased subject, decided by their content; and what those are known by.

    What lay at an affected path and can be read nowhere is condemned by its name: nothing shows that it was clean. Objects that
    nothing names are looked into as well; what other pipelines of the project made is judged by its lineage alone.
    """
    raw: set[str] = set()
    paths = [md5s - lineage.live for md5s in _at_paths(lineage).values()]
    loose = {md5 for md5 in lineage.orphans if not md5.endswith(FOLDER)}
    # Every object that holds a record of theirs is among these, so the marks are those of the raw objects too.
    marks = marks_of(lineage, {md5 for md5s in paths for md5 in md5s} | loose, is_erased)
    search_terms = search_terms_of(lineage.layout, marks)
    seen: dict[str, bool | None] = {}
    for md5s in paths:
        answers = {md5: seen[md5] if md5 in seen else seen.setdefault(md5, _holds(lineage, md5, marks)) for md5 in md5s}
        if any(answers.values()):
            raw |= {md5 for md5, holds in answers.items() if holds is not False}
    shared = {md5 for _, contents in lineage.outside() for md5 in contents.objects}
    finder = Finder(search_terms.patterns()) if loose & shared else None
    # In the own cache they go anyway; elsewhere only what is seen to hold the people.
    raw |= {md5 for md5 in loose if _holds(lineage, md5, marks, finder if md5 in shared else None)}
    return frozenset(raw), search_terms
