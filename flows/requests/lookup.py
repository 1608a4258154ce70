"""Is a person, or an image, in the model that is served? By the pseudonym alone, and of nobody else."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from flows.project import Project
from flows.requests.quarantine import whole_layout
from lmeraser.data.columns import among
from lmeraser.data.records import TRAIN
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.facts import gather_facts, normalise_subjects
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED
from lmeraser.prove.home import load_or_create_project_id
from lmeraser.prove.keys import load_or_create_signer, signing_key_path
from lmeraser.prove.lookup import Answer, Context, sign_answer

NO_KEY = SubjectKey(b"\0" * 32)  # while there is none, nobody was ever erased, and a question must not make one


def look_up(project: Project, subject: str | None, digest: str | None) -> Answer:
    """Args: one of a subject as the manifest names it, and the SHA-256 of an image. Changes nothing. Raises: BadInputError."""
    facts = gather_facts(whole_layout(project), project.params)
    key = project.subject_key() if project.key_file.exists() or project.erased.pseudonyms else NO_KEY
    project.erased.check_key(key)
    if subject is not None:
        (name,) = normalise_subjects([subject])
        column, value, pseudonym = "subject", name, key.pseudonym(name)
    else:
        column, value, pseudonym = "sha256", str(digest), key.image_pseudonym(str(digest))

    def rows(table: pa.Table) -> pa.Table:
        return table.filter(among(table[column], [value]))

    private, public = rows(facts.private), rows(facts.public)
    train = int(pc.sum(among(private["split"], [TRAIN])).as_py() or 0)
    about = [request for request in project.ledger.all() if pseudonym in request.pseudonyms]
    done = next((request for request in reversed(about) if request.state == CERTIFIED), None)
    return Answer(
        pseudonym,
        train,
        private.num_rows - train,
        public.num_rows,
        pseudonym in project.erased.pseudonyms,
        done.request_id if done else None,
        _certified_at(project, done) if done else None,
        done.certificate if done else None,
        next((request.request_id for request in about if request.is_open), None),
    )


def _certified_at(project: Project, request: Request) -> str | None:
    return next((event.at for event in project.ledger.events(request.request_id) if event.kind == CERTIFIED), None)


def signed_answer(project: Project, answer: Answer) -> bytes:
    """A DSSE envelope by the key of the certificates. Raises: ProjectError, VerificationError."""
    layout = project.layout
    context = Context(
        load_or_create_project_id(layout.project_id),
        project.subject_key().id,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    signer = load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
    return sign_answer(answer, context, signer)
