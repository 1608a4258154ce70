"""The chain of certificates after a restore: what is here, what git's history has, what was kept elsewhere; and what of it the
ledger does not know."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows import git
from flows.project import Project
from flows.requests.certify import known_head
from lmeraser.core.errors import BadInputError, LmeraserError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.requests import Restored
from lmeraser.erase.states import CERTIFIED
from lmeraser.prove.certificate import read_head
from lmeraser.prove.home import HEAD_FILE, read_project_id
from lmeraser.prove.kept import Kept, grown, joined, read_kept, require_head
from lmeraser.prove.keys import load_public
from lmeraser.prove.verify import NAME, Head

ELSEWHERE = "the folder of --certificates"
REAPPLY = "run `lmeraser reapply`"


@dataclass(frozen=True)
class Chain:
    """Attributes: kept: every certificate that is known, from the first on; here: how many of them lie in certificates/."""

    kept: tuple[Kept, ...]
    here: int

    @property
    def head(self) -> Head | None:
        return self.kept[-1].certificate.head if self.kept else None


def known_chain(project: Project, elsewhere: Path | None, head: Head | None) -> Chain:
    """Every certificate of the project that is known, verified. Changes nothing.

    Args: elsewhere: a folder in which certificates are kept; head: of the chain, as somebody kept it.
    Raises: ProjectError where what they are checked with is of another state or project; CertificateError for a fork, or a
    certificate that is not valid; BadInputError where a head is newer than all of them.
    """
    layout = project.layout
    if elsewhere is not None and not elsewhere.is_dir():
        raise BadInputError("--certificates: there is no such folder; name the one in which you keep copies of certificates/")
    names = [path.name for folder in (layout.certificates, elsewhere) if folder for path in folder.glob("*.json")]
    known = known_head(project)
    if not names and known is None and head is None:
        return Chain((), 0)
    keys, identity = load_public(layout.public_keys), read_project_id(layout.project_id)
    if identity is None and elsewhere is not None:
        raise ProjectError(
            "data/project-id is missing, so nobody can tell whether the certificates are of this project: the backup is from "
            "before its first certificate; restore data/project-id and data/certificate-keys.pem from git"
        )
    here = read_kept(layout.certificates, keys, identity)
    loose = [(os.path.basename(name), data) for name, data in git.versions_of(layout.root, layout.certificates.name)]  # noqa: PTH119
    chain = grown(here, loose, keys)
    if elsewhere is not None:
        chain = joined(chain, read_kept(elsewhere, keys, identity), ELSEWHERE)
    require_head(chain, read_head(layout.certificates), f"certificates/{HEAD_FILE}")
    require_head(chain, known, "the ledger")
    require_head(chain, head, "the head")
    return Chain(tuple(chain), len(here))


def require_subject_key(chain: Chain, key: SubjectKey) -> None:
    """Raise ProjectError unless all pseudonyms were made with this key: with another one nobody is recognised."""
    others = {kept.certificate.subject_key for kept in chain.kept} - {key.id}
    if others:
        raise ProjectError(
            f"the subject key is {key.id}, but certificates were made with {min(others)}: erased people could not be recognised; "
            "restore that key from your backup"
        )


def take_in(project: Project, chain: Chain) -> tuple[int, list[str]]:
    """Bring the certificates that are missing here, then let the ledger know of their requests: it goes on behind the newest.

    Safe to repeat after a kill. Returns: how many certificates came, and the ids of requests that the ledger did not know.
    """
    layout = project.layout
    for kept in chain.kept[chain.here :]:
        write_atomically(layout.certificates / kept.certificate.file, kept.data)
    if chain.head is None:
        return 0, []
    if read_head(layout.certificates) != chain.head:
        write_atomically(layout.certificates / HEAD_FILE, f"{chain.head[0]} {chain.head[1]}\n".encode())
    folder = layout.certificates.name
    restored = [
        Restored(
            kept.certificate.request_id,
            kept.received_at,
            kept.pseudonyms,
            kept.rebuild,
            f"{folder}/{kept.certificate.file}",
        )
        for kept in chain.kept
    ]
    return len(chain.kept) - chain.here, project.ledger.restore(restored, chain.head)


def older_line(project: Project) -> str | None:
    """Whether ledger and certificates here are of different ages, and what to do; None if not. Reads names and HEAD alone."""
    layout = project.layout
    names = [match for path in layout.certificates.glob("*.json") if (match := NAME.fullmatch(path.name))]
    try:
        head, known = read_head(layout.certificates), known_head(project)
    except LmeraserError:
        return None  # `verify` tells of a damaged HEAD
    newest = max([int(match["sequence"]) for match in names] + [head[0] if head else 0])
    last = known[0] if known else 0
    later = [match["request_id"] for match in names if int(match["sequence"]) > last]
    if newest > last and not (len(later) == newest - last and _being_certified(project, later)):
        return f"the ledger is older than the certificates ({last} of {newest}), so it was restored from a backup: {REAPPLY}"
    if newest < last:
        return f"certificates/ is older than the ledger ({newest} of {last}), so it was restored from a backup: {REAPPLY}"
    return None


def _being_certified(project: Project, request_ids: Sequence[str]) -> bool:
    """Whether their coordinator was killed between the certificate and the ledger's word: `lmeraser resume` goes on there."""
    requests = {request.request_id: request for request in project.ledger.all()}
    return all(identity in requests and requests[identity].reached in ("purged", CERTIFIED) for identity in request_ids)
