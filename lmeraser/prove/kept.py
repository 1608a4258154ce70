"""Certificates that are kept elsewhere, and how they join the chain here: a restored backup has lost its newest ones.

The chain here must be the beginning of the one that is kept, or the other way round. Two certificates behind the same one are a
fork: one project would have told two stories, and no program may choose.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.core.errors import BadInputError, LmeraserError
from lmeraser.erase.erased import CORRECTED, IMAGE
from lmeraser.prove.certificate import read_chain
from lmeraser.prove.home import check_head_file
from lmeraser.prove.verify import Certificate, CertificateError, Head, check_project, verify_bytes

if TYPE_CHECKING:  # 0.2 s that only verifying needs
    from securesystemslib.signer._key import SSlibKey  # the package does not export it to mypy

NEITHER = "find out which one is true: its issuer knows, and nothing was changed"


@dataclass(frozen=True)
class Kept:
    """A certificate that was verified, with its file's bytes and what a ledger needs of it.

    Attributes: rebuild: whether public records went with it.
    """

    certificate: Certificate
    data: bytes
    received_at: str
    rebuild: bool

    @property
    def pseudonyms(self) -> tuple[str, ...]:
        """Of the people and images that it erased and the records that it corrected, as lists and the ledger name them."""
        images = (IMAGE + image for image in self.certificate.images)
        return (*self.certificate.subjects, *images, *(CORRECTED + text for text in self.certificate.rectified))

    @classmethod
    def of(cls, certificate: Certificate, data: bytes) -> "Kept":
        """Args: data: of the file, as it was verified."""
        predicate: dict[str, Any] = json.loads(base64.b64decode(json.loads(data)["payload"]))["predicate"]
        plan: dict[str, Any] = predicate["plan"]
        return cls(certificate, data, predicate["received_at"], plan["rebuild"])


def read_kept(folder: Path, keys: "Sequence[SSlibKey]", project: str | None) -> list[Kept]:
    """The whole chain of a folder, verified as anybody else would; none if the folder is empty.

    Args: project: the id of the project that it must be of. Raises: CertificateError; BadInputError if HEAD is damaged.
    """
    chain = read_chain(folder, keys)
    check_project(chain, project)
    check_head_file(folder, chain, at_home=False)
    return [Kept.of(certificate, (folder / certificate.file).read_bytes()) for certificate in chain]


def grown(chain: Sequence[Kept], loose: Iterable[tuple[str, bytes]], keys: "Sequence[SSlibKey]") -> list[Kept]:
    """A chain with what of loose files continues it, one behind the other; what does not is left alone.

    Args: loose: names and contents, as git's history has them. Raises: CertificateError where two continue it.
    """
    behind: dict[str | None, dict[str, Kept]] = {}
    for name, data in loose:
        try:
            certificate = verify_bytes(data, name, keys, name)
        except LmeraserError:
            continue  # of a key that was taken back, or no certificate
        behind.setdefault(certificate.previous, {})[certificate.digest] = Kept.of(certificate, data)
    whole = list(chain)
    while following := behind.get(whole[-1].certificate.digest if whole else None):
        if len(following) > 1:
            raise _forked(len(whole) + 1, "git's history")
        whole += following.values()
    return whole


def joined(chain: Sequence[Kept], kept: Sequence[Kept], where: str) -> list[Kept]:
    """The longer of two chains of which one is the beginning of the other.

    Args: where: the second one lies, in words. Raises: CertificateError if they part.
    """
    for here, there in zip(chain, kept, strict=False):
        if here.certificate.digest != there.certificate.digest:
            raise _forked(here.certificate.sequence, where)
    return list(kept if len(kept) > len(chain) else chain)


def require_head(chain: Sequence[Kept], head: Head | None, what: str) -> None:
    """Raise BadInputError if a head is newer than every certificate that is known; CertificateError if it is of another chain."""
    if head is None:
        return
    if head[0] > len(chain):
        raise BadInputError(
            f"{what} names certificate {head[0]}, the newest that is known here is {len(chain)}; name the folder in which you "
            "keep certificates with --certificates"
        )
    if chain[head[0] - 1].certificate.head != head:
        raise _forked(head[0], what)


def _forked(sequence: int, where: str) -> CertificateError:
    return CertificateError(
        f"certificate {sequence} here and in {where} are two different ones behind the same certificate; {NEITHER}"
    )
