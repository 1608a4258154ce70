"""Who of the erased people is back: in records that the model may have learnt from, or in a source that erasures clear."""

from collections.abc import Set
from dataclasses import dataclass

from flows.project import Project
from flows.requests.quarantine import whole_layout
from lmeraser.core.digest import sha256
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.data.records import Part
from lmeraser.erase.corrections import Corrections
from lmeraser.erase.erased import images_among
from lmeraser.erase.retained import pseudonyms_in, record_files
from lmeraser.pipeline.locks import md5_of_file
from lmeraser.sources import open_source


@dataclass(frozen=True)
class Back:
    """Pseudonyms of those who are there. Attributes: copy: in the copy of artifacts that is served while requests are open."""

    records: frozenset[str]
    source: frozenset[str]
    copy: frozenset[str]

    @property
    def everybody(self) -> frozenset[str]:
        return self.records | self.source


def people_back(project: Project, erased: Set[str]) -> Back:
    """Changes nothing. Raises: BadInputError where the source cannot be read: nobody can tell who is in it."""
    if not erased:
        return Back(frozenset(), frozenset(), frozenset())
    try:
        served = whole_layout(project)
    except LmeraserError:
        served = project.layout  # its pointer is damaged; it is made again
    in_copy = _in_records(project, served, erased) if served != project.layout else set()
    in_records, in_source = _in_records(project, project.layout, erased), _in_source(project, erased)
    return Back(*(frozenset(people & erased) for people in (in_records, in_source, in_copy)))


def condemned_files(project: Project, people: Set[str]) -> tuple[str, ...]:
    """MD5s of the files of records that hold a record of these people, sorted: wherever such content lies, it must go."""
    if not people:
        return ()
    key, condemned = project.subject_key(), set[str]()
    for path in record_files(project.layout, project.params):
        try:
            for file in Part.of(path).files:
                if not people.isdisjoint(pseudonyms_in(file, key, bool(images_among(people)), Corrections(people, key))):
                    condemned.add(md5_of_file(file))
        except LmeraserError:
            continue
    return tuple(sorted(condemned))


def _in_records(project: Project, layout: Layout, erased: Set[str]) -> set[str]:
    """Everybody in the records of a built state, as far as its files are there."""
    key, people = project.subject_key(), set[str]()
    for file in record_files(layout, load_params(layout.params)):
        try:
            people |= pseudonyms_in(file, key, bool(images_among(erased)), Corrections(erased, key))
        except LmeraserError:
            continue  # half restored: the build makes it again, from records without them
    return people


def _in_source(project: Project, erased: Set[str]) -> set[str]:
    """Everybody in a source that erasures clear; of any other one nobody is promised to be gone."""
    if not project.params.source.erase:
        return set()
    key, source = project.subject_key(), open_source(project.params.source, project.layout.root)
    table = source.table()
    named = {key.pseudonym(str(subject)) for subject in table["subject"].unique()}
    if images_among(erased):
        named |= {key.image_pseudonym(sha256(source.image(str(path)))) for path in table["path"]}
    return named
