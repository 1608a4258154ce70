"""Gather what a plan needs from the files that the pipeline made: without torch, without changing anything."""

from collections.abc import Sequence

import pyarrow as pa

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.skeleton import load_hierarchy
from lmeraser.core.errors import ProjectError, RequestError, UnknownSubjectError
from lmeraser.core.layout import Layout
from lmeraser.core.names import MAX_LENGTH, normalise_name, unseen
from lmeraser.core.params import Params
from lmeraser.data.columns import among
from lmeraser.data.records import FACTS, Part, read_table
from lmeraser.erase.erased import ErasedList, SubjectKey
from lmeraser.erase.plan import PLACED, Facts
from lmeraser.erase.requests import MAX_SUBJECTS


def gather_facts(layout: Layout, params: Params) -> Facts:
    """Read the built project. Raises: ProjectError if something is missing."""
    return Facts(
        params=params,
        public=read_table(layout.public, FACTS),
        private=pa.concat_tables([read_table(layout.part(part), FACTS) for part in params.parts]),
        placements=pa.concat_tables([read_table(layout.leaves(part), PLACED) for part in params.parts]),
        tree=load_hierarchy(layout.skeleton),
        used_slots=[size.slot for size in load_sizes(layout.clusters)],
    )


def identity_of(layout: Layout, params: Params) -> tuple[tuple[int, ...], ...] | None:
    """What tells one state of the files that `gather_facts` reads from another; None if one is missing.

    The pipeline replaces files and never writes into them, so a hard link of a file is the same content, and another inode,
    size or time is another one. Of a folder each file counts: no two folders are links of each other.
    """
    try:
        parts = [file for part in params.parts for file in (*Part.of(layout.part(part)).files, layout.leaves(part))]
        files = (layout.params, layout.public, *parts, layout.skeleton, layout.sizes)
        states = [file.stat() for file in files]
    except (FileNotFoundError, ProjectError):
        return None
    return tuple((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) for state in states)


def normalise_subjects(given: Sequence[str]) -> list[str]:
    """Subjects by the manifest's rule (`core/names.py`), each once.

    Raises: RequestError naming the position, never the subject.
    """
    if len(given) > MAX_SUBJECTS:
        raise RequestError(f"{len(given)} subjects, expected at most {MAX_SUBJECTS} in one request; split it")
    subjects: dict[str, None] = {}  # in order, each once
    for place, text in enumerate(given, start=1):
        subject = normalise_name(text)
        if not subject:
            raise RequestError(f"subject {place} of {len(given)} is empty; name the person as the manifest does")
        if len(subject) > MAX_LENGTH:
            raise RequestError(f"subject {place} of {len(given)} has more than {MAX_LENGTH} characters; name the person alone")
        if letter := unseen(subject):
            raise RequestError(
                f"subject {place} of {len(given)} has a control or invisible character ({letter}); type the name again, "
                "as the manifest has it"
            )
        subjects[subject] = None
    if not subjects:
        raise RequestError(
            "no subject was named, and no image; give at least one with --subject, or with --image, --path or --sha256"
        )
    return list(subjects)


def subjects_of(facts: Facts) -> list[str]:
    """Everybody of whom a record is there, each once."""
    column = pa.chunked_array([*facts.private["subject"].chunks, *facts.public["subject"].chunks])
    subjects: list[str] = column.unique().to_pylist()
    return subjects


def digests_of(facts: Facts) -> list[str]:
    """The images of all records, by their digests, each once."""
    column = pa.chunked_array([*facts.private["sha256"].chunks, *facts.public["sha256"].chunks], pa.string())
    digests: list[str] = column.unique().to_pylist()
    return digests


def check_images(digests: Sequence[str], facts: Facts, erased: ErasedList, key: SubjectKey) -> None:
    """Raise RequestError if an image is already erased or no record has it; tells positions, never digests."""
    known: set[str] = set()
    for records in (facts.private, facts.public):
        known |= set(records["sha256"].filter(among(records["sha256"], digests)).unique().to_pylist())
    for place, digest in enumerate(digests, start=1):
        where = f"image {place} of {len(digests)}"
        if key.image_pseudonym(digest) in erased.pseudonyms:
            raise RequestError(f"{where} is already erased; nothing is left to do (`lmeraser status` lists the requests)")
        if digest not in known:
            raise UnknownSubjectError(
                f"{where} is unknown: no record has these bytes; another size or encoding of a picture is another image"
            )


def check_known(subjects: Sequence[str], facts: Facts, erased: ErasedList, key: SubjectKey) -> None:
    """Raise RequestError if a subject is already erased or not known; tells positions, never names."""
    known: set[str] = set()
    for records in (facts.private, facts.public):
        known |= set(records["subject"].filter(among(records["subject"], subjects)).unique().to_pylist())
    for place, subject in enumerate(subjects, start=1):
        where = f"subject {place} of {len(subjects)}"
        if key.pseudonym(subject) in erased.pseudonyms:
            raise RequestError(f"{where} is already erased; nothing is left to do (`lmeraser status` lists the requests)")
        if subject not in known:
            raise UnknownSubjectError(f"{where} is unknown: no record has it; check the spelling against the manifest")
