"""Whether the people in the records are those that the last certificate stands for: the root of their tree, computed again."""

from dataclasses import dataclass

from flows.project import Project
from lmeraser.core.errors import VerificationError
from lmeraser.erase.retained import retained_pseudonyms
from lmeraser.prove.absence import Tree
from lmeraser.prove.certificate import read_chain, read_head
from lmeraser.prove.keys import load_public


@dataclass(frozen=True)
class PeopleCheck:
    """Attributes: certificate: sequence of the last one; same: whether its root is that of the people in the records now."""

    certificate: int
    same: bool


def check_people(project: Project) -> PeopleCheck | None:
    """None where no certificate tells a root, or the last one's was made with another subject key.

    Raises: VerificationError if the chain is not whole.
    """
    layout = project.layout
    if not layout.certificates.exists() or not layout.public_keys.exists():
        return None
    chain = read_chain(layout.certificates, load_public(layout.public_keys))
    head = read_head(layout.certificates)
    if head and head not in {certificate.head for certificate in chain}:
        raise VerificationError(
            f"certificates/HEAD names certificate {head[0]}, which is missing; restore certificates/ from git"
        )
    if not chain or chain[-1].retained is None:
        return None
    key = project.subject_key()
    if chain[-1].subject_key != key.id:
        return None
    root = Tree(retained_pseudonyms(layout, project.params, key)).root()
    return PeopleCheck(chain[-1].sequence, root == chain[-1].retained)
