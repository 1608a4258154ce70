"""What must hold of a correction before it is taken in: the record is there with the old value, and nothing contradicts it."""

from flows.project import Project
from lmeraser.core.errors import RequestError, UnknownSubjectError
from lmeraser.erase.corrections import Correction, Corrections, contradicting
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.plan import Facts
from lmeraser.erase.requests import Request
from lmeraser.erase.retained import rows_of


def check_corrections(project: Project, request: Request, facts: Facts, key: SubjectKey) -> None:
    """Raise RequestError if a correction cannot be carried out: unknown, done already, of a public record, or contradicting."""
    asked = Corrections(request.pseudonyms, key)
    if not asked:
        return
    total, listed = len(asked.all), project.erased.pseudonyms
    there = {correction.row for _, correction in asked.old_rows(facts.private)}
    right = rows_of(facts.private, key, {correction.to_subject for correction in asked.all})
    # Of one that the source had already nothing is left but in stores.
    missing = [each for each in asked.all if each.row not in there and (each.to_row not in right or each.pseudonym in listed)]
    done = sum(correction.pseudonym in listed for correction in missing)
    if asked.old_rows(facts.public):
        raise RequestError(
            f"{len(asked.old_rows(facts.public))} of the records are public ones, from which the frozen backbone learnt, and "
            "cannot be corrected by a request; correct the source and run `lmeraser build`, which makes everything anew"
        )
    if len(missing) > done:
        raise UnknownSubjectError(f"{len(missing) - done} of {total} records are unknown: none has this image with the old value")
    if done:
        raise RequestError(f"{done} of {total} records are already corrected; send the others alone")
    against = contradicting(asked.all, Corrections(listed, key).all, _waiting(project, request, key))
    if against:
        raise RequestError(
            f"{against} of {total} corrections contradict another one: of the same record to another value, back to a value that "
            "was corrected, or of what an open request corrects; let that be done (`lmeraser status`), or cancel it, and send "
            "only what is right"
        )


def _waiting(project: Project, request: Request, key: SubjectKey) -> list[Correction]:
    """The corrections of other open requests that were accepted."""
    others = (other for other in project.ledger.all(open_only=True) if other.request_id != request.request_id)
    return [each for other in others if other.state != "received" for each in Corrections(other.pseudonyms, key).all]
