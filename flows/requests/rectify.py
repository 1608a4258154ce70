"""A label or a subject that is wrong (GDPR, article 16): which records are meant, and the request in the ledger.

The old values are erased like a person's records; the records stay with the right ones. Which value is the right one is told to
the pipeline by keyed hashes alone (`lmeraser/erase/corrections.py`), so it must be one that the records have.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from flows.dvc import command as dvc
from flows.project import Project
from flows.purge import step as purging
from flows.requests import intake
from flows.requests.quarantine import whole_layout
from lmeraser.core.errors import ParamsError, RequestError
from lmeraser.core.names import MAX_LENGTH, normalise_name, unseen
from lmeraser.data.columns import among
from lmeraser.data.records import Record
from lmeraser.erase.corrections import Change, Correction, Corrections, Values, as_corrected
from lmeraser.erase.erased import SubjectKey, load_key
from lmeraser.erase.facts import check_images, check_known, gather_facts, normalise_subjects
from lmeraser.erase.plan import Facts, Plan, make_plan
from lmeraser.erase.requests import Request, check_request_id


@dataclass(frozen=True)
class Wanted:
    """What somebody asks for.

    Attributes: digests: of the images; label, subject: the right ones, None: it stays; of: whose records alone are meant, None:
        everybody's; was: the old value, where the source has the right one already.
    """

    digests: Sequence[str]
    label: str | None
    subject: str | None
    of: str | None = None
    was: str | None = None

    def checked(self) -> "Wanted":
        """By the manifest's rules. Raises: RequestError, without a value."""
        if not self.digests:
            raise RequestError("no image was named; name the record with --image, --path or --sha256")
        if (self.label is None) == (self.subject is None):
            raise RequestError("expected one of --label and --subject: the right value; correct one after the other")
        named = {"--label": self.label, "--subject": self.subject, "--of": self.of, "--was": self.was}
        label, subject, of, was = (None if text is None else _name(text, option) for option, text in named.items())
        return replace(self, label=label, subject=subject, of=of, was=was)

    def new(self, record: Record) -> Values:
        """The right values of a record."""
        return Values(self.label or record.label, self.subject or record.subject)

    def old(self, record: Record, was: str) -> Values:
        """The old values of a record that has the right ones already."""
        return Values(was if self.label else record.label, was if self.subject else record.subject)


def _name(text: str, option: str) -> str:
    name = normalise_name(text)
    if not 1 <= len(name) <= MAX_LENGTH:
        raise RequestError(f"{option} has {len(name)} characters, expected 1 to {MAX_LENGTH}; write it as the manifest does")
    if letter := unseen(name):
        raise RequestError(f"{option} has a control or invisible character ({letter}); type it again")
    return name


def draft_plan(project: Project, wanted: Wanted) -> Plan:
    """What the correction would touch. Changes nothing. Raises: BadInputError."""
    wanted = wanted.checked()
    facts, changes = _changes(project, wanted)
    return make_plan([], facts, False, changes=() if wanted.was else changes)


def receive(project: Project, wanted: Wanted, request_id: str | None) -> Request:
    """Commit a correction to the ledger, or recognise it. Raises: RequestError, without a trace, if it cannot be carried out."""
    wanted = wanted.checked()
    known = project.ledger.find(check_request_id(request_id)) if request_id else None
    if known is not None:
        return _recognised(project, wanted, known)
    _, changes = _changes(project, wanted)
    key = project.ensure_subject_key()
    corrections = {
        Correction.of(key, old.sha256, Values(old.label, old.subject), Values(new.label, new.subject)) for old, new in changes
    }
    if wanted.was:
        _require_stored(project, corrections, key)
    return intake.receive(project, [], request_id, False, corrections=sorted(corrections))


def _require_stored(project: Project, corrections: Collection[Correction], key: SubjectKey) -> None:
    """Raise RequestError unless stores hold the old values: nothing is certified as gone that never was."""
    fresh = [each.pseudonym for each in corrections if each.pseudonym not in project.erased.pseudonyms]
    if not fresh:
        return  # what is done already is told where the request is validated
    asked = Corrections(fresh, key)
    planned = purging.plan(project.layout, lambda _: False, old_values=purging.OldValues(asked, frozenset()))
    if not planned.search_terms.ids:
        raise RequestError(
            "no store holds the value that --was names for this image; check its spelling, or nothing is left of it"
        )


def _changes(project: Project, wanted: Wanted) -> tuple[Facts, list[Change]]:
    """The records that are meant, as they are and as they will be."""
    params = project.params
    if params.source.erase and not wanted.was:
        raise ParamsError(
            "params.yaml: source.erase is true, and the source would keep the old value; write the right value into the source, "
            "run `lmeraser build`, and then this command with --was OLD-VALUE"
        )
    layout = whole_layout(project)
    if layout == project.layout:
        dvc.require_current(layout)
    facts = gather_facts(layout, params)
    # Without a key file nobody can be on the list; a plan must not create one.
    key = load_key(project.key_file) if project.erased.pseudonyms else SubjectKey(b"\0" * 32)
    check_images(wanted.digests, facts, project.erased, key)
    _check_values(wanted, facts, project, key)
    changes = []
    for place, digest in enumerate(wanted.digests, start=1):
        where = f"image {place} of {len(wanted.digests)}"
        if wanted.was:
            changes += _made_before(facts, digest, wanted, wanted.was, where)
        else:
            records = _meant(facts, digest, wanted.of, where)
            changes += [Change(record, as_corrected(record, wanted.new(record))) for record in records]
    changes = [change for change in changes if change.old != change.new]
    if not changes:
        raise RequestError("the records have this value already; nothing is to be corrected")
    return facts, changes


def _check_values(wanted: Wanted, facts: Facts, project: Project, key: SubjectKey) -> None:
    if wanted.label is not None and not pc.any(among(facts.private["label"], [wanted.label])).as_py():
        raise RequestError(
            "no private record has the label that is to be the right one; check its spelling, or add records of a new class to "
            "the source first"
        )
    for option, name in (("--subject", wanted.subject), ("--of", wanted.of)):
        try:
            check_known(normalise_subjects([name]) if name is not None else [], facts, project.erased, key)
        except RequestError as error:
            raise type(error)(f"{option}: {error}") from None


def _meant(facts: Facts, digest: str, of: str | None, where: str) -> list[Record]:
    """The private records of an image. Raises: RequestError if it is not clear which are meant, or public ones are."""
    rows = [_records(table, digest, of) for table in (facts.private, facts.public)]
    private, public = rows
    if public:
        raise RequestError(
            f"{where} is in public records, from which the frozen backbone learnt; a request corrects private records alone: "
            "correct the source and run `lmeraser build`, which makes everything anew"
        )
    if not private:
        raise RequestError(f"{where} is in no record of the person whom --of names; leave --of out, or name whose it is now")
    if of is None and len({(record.label, record.subject) for record in private}) > 1:
        raise RequestError(f"{where} is in {len(private)} records of several people or labels; say whose is wrong with --of")
    return private


def _made_before(facts: Facts, digest: str, wanted: Wanted, was: str, where: str) -> list[Change]:
    """Changes that the source had already when it was read last. Raises: RequestError if it did not."""
    records = [
        record for record in _records(facts.private, digest, wanted.of) if (record.label, record.subject) == wanted.new(record)
    ]
    changes = [Change(as_corrected(record, wanted.old(record, was)), record) for record in records]
    there = {record.id for record in _records(facts.private, digest, None)}
    if not changes:
        raise RequestError(f"{where} has no record with the right value yet; leave --was out, or build first (`lmeraser build`)")
    if any(change.old.id in there for change in changes):
        raise RequestError(f"{where} has a record with the old value too; leave --was out, and name whose is wrong with --of")
    return changes


def _records(table: pa.Table, digest: str, of: str | None) -> list[Record]:
    theirs = among(table["sha256"], [digest])
    if of is not None:
        theirs = pc.and_(theirs, among(table["subject"], [of]))
    return [Record(**row) for row in table.filter(theirs).to_pylist()]


def _recognised(project: Project, wanted: Wanted, request: Request) -> Request:
    """A request that came before, if it is about the same. Raises: RequestError if it is about something else."""
    key, asked = project.subject_key(), Corrections(request.pseudonyms, project.subject_key()).all
    facts = project.roster(whole_layout(project)).facts
    records = [record for digest in wanted.digests for record in _records(facts.private, digest, None)]
    rows = {key.row_pseudonym(record.sha256, record.label, record.subject) for record in records}
    label = key.label_pseudonym(wanted.label) if wanted.label is not None else None
    subject = key.pseudonym(wanted.subject) if wanted.subject is not None else None
    same = asked and all(
        label in (None, each.label) and subject in (None, each.to_subject) and rows & {each.row, each.to_row} for each in asked
    )
    if not same:
        raise RequestError(
            f"request {request.request_id} was already received for something else; use a new id for a new request"
        )
    return request
