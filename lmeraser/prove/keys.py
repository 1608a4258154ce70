"""Keys that sign certificates: Ed25519 (RFC 8032), the private one as PKCS #8 PEM, the public ones as SPKI PEM (RFC 8410).

    .lmeraser/certificate.key       private, mode 0600, not encrypted, never in git; or the file LMERASER_SIGNING_KEY_FILE names
    data/certificate-keys.pem       public, in git: every key that ever signed, oldest first; the last one signs now

A key's id is the SHA-256 of its SPKI DER, so anybody can compute it: `openssl pkey -pubin -in KEY -outform DER | sha256sum`.
A key is replaced by adding one, never by removing: old certificates stay valid.
"""

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically

if TYPE_CHECKING:  # 0.2 s that only signing and verifying need
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from securesystemslib.signer._crypto_signer import CryptoSigner  # the package does not export it to mypy
    from securesystemslib.signer._key import SSlibKey

KEY_VARIABLE = "LMERASER_SIGNING_KEY_FILE"
MAX_BYTES = 2**20
BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----\r?\n.*?-----END PUBLIC KEY-----[ \t]*(?:\r?\n|\Z)", re.DOTALL)
REPLACE = "`lmeraser keys init --replace`"


def signing_key_path(private_state: Path) -> Path:
    """Where the signing key lies: the file that LMERASER_SIGNING_KEY_FILE names, or the project's private folder."""
    named = os.environ.get(KEY_VARIABLE)
    return Path(named) if named else private_state / "certificate.key"


def key_id(public: "Ed25519PublicKey") -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo in DER, 64 hex digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def known_key(public: "Ed25519PublicKey") -> "SSlibKey":
    """The key under our id."""
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    return SSlibKey.from_crypto(public, keyid=key_id(public))


def public_pem(public: "Ed25519PublicKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(path: Path) -> "list[SSlibKey]":
    """Every public key of a file, in its order.

    Raises: ProjectError if the file is missing, holds none, one twice, or anything else; loudest for a private key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    what = "the file of public keys"
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ProjectError(f"{what} is missing; restore data/certificate-keys.pem from git, or name one with --key") from error
    except OSError as error:
        raise ProjectError(f"{what} cannot be read ({error.strerror}); expected SPKI PEM blocks") from error
    if b"PRIVATE KEY" in data:
        raise ProjectError(f"{what} holds a private key; take it out, and if others could read it run {REPLACE}")
    blocks = BLOCK.findall(data)
    if len(data) > MAX_BYTES or not blocks or BLOCK.sub(b"", data).strip():
        raise ProjectError(f"{what} is empty or damaged; expected nothing but SPKI PEM blocks, oldest first; restore it from git")
    keys: list[SSlibKey] = []
    for place, block in enumerate(blocks, start=1):
        try:
            public = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ProjectError(f"{what} is damaged at key {place} of {len(blocks)}; restore it from git") from error
        if not isinstance(public, Ed25519PublicKey):
            raise ProjectError(f"{what} has a key that is not Ed25519 at {place} of {len(blocks)}; expected Ed25519 keys only")
        keys.append(known_key(public))
    if len({key.keyid for key in keys}) != len(keys):
        raise ProjectError(f"{what} lists a key twice; expected each key once, oldest first; restore it from git")
    return keys


def _load_private(path: Path) -> "Ed25519PrivateKey":
    """Raises: ProjectError if the key is missing, readable by others, damaged, encrypted or of another kind."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    what = "the signing key"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise ProjectError(
            f"{what} is missing; restore it from your backup (or point {KEY_VARIABLE} at it); if it is lost run {REPLACE}"
        ) from error
    except OSError as error:
        raise ProjectError(f"{what} cannot be read ({error.strerror}); expected a file of mode 0600") from error
    if mode & 0o077:
        raise ProjectError(f"{what} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
    try:
        private = load_pem_private_key(data, password=None)
    except TypeError as error:  # what the library raises for a key that asks for a password
        raise ProjectError(f"{what} is encrypted; expected PKCS #8 PEM without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProjectError(f"{what} is damaged; expected an Ed25519 key as PKCS #8 PEM; restore it from your backup") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ProjectError(f"{what} is not an Ed25519 key; expected Ed25519 as PKCS #8 PEM; restore it from your backup")
    return private


def load_signing_key(private: Path, public: Path) -> "Ed25519PrivateKey":
    """The newest key.

    Raises: ProjectError if the key cannot be used, or is not the last of the public keys: nobody could check what it signs.
    """
    private_key = _load_private(private)
    key, listed = key_id(private_key.public_key()), [listed_key.keyid for listed_key in load_public(public)]
    if key not in listed:
        raise ProjectError(
            f"the signing key is {key[:16]}, which is not among the {len(listed)} public keys; restore the key that is "
            f"listed last ({listed[-1][:16]}), or run {REPLACE}"
        )
    if key != listed[-1]:
        raise ProjectError(
            f"the signing key is {key[:16]}, which was replaced by {listed[-1][:16]}; restore that one, or run {REPLACE}"
        )
    return private_key


def load_signer(private: Path, public: Path) -> "CryptoSigner":
    """The signer with the newest key. Raises: ProjectError as `load_signing_key`."""
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    private_key = load_signing_key(private, public)
    return CryptoSigner(private_key, known_key(private_key.public_key()))


def init(private: Path, public: Path, replace: bool) -> str:
    """Make a signing key and list its public key; returns the new key's id.

    Args: replace: also where there are keys. The old private key is overwritten, its public key stays listed, and the next
        certificate carries a signed break.
    Raises: ProjectError if there is a key, or was one, and `replace` is false.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    listed = load_public(public) if public.exists() else []
    if private.exists() and not listed and not replace:  # the list was lost, or we were interrupted before it was written
        public_key = _load_private(private).public_key()
        write_atomically(public, public_pem(public_key))
        return key_id(public_key)
    if private.exists() and not replace:
        raise ProjectError(f"there is a signing key already, and it was left as it is; to replace it run {REPLACE}")
    if listed and not replace:
        raise ProjectError(
            f"the signing key {listed[-1].keyid[:16]} is lost: its public key is listed, the private one is not here; restore it "
            f"from your backup, or run {REPLACE}: the chain continues with a new key, and a signed break says so"
        )
    fresh = Ed25519PrivateKey.generate()
    private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The private key first: after a crash it is not listed and is replaced again. A listed key without its private half would
    # stay listed for ever.
    write_atomically(private, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    old = public.read_bytes() if listed else b""
    write_atomically(public, old + (b"\n" if old and not old.endswith(b"\n") else b"") + public_pem(fresh.public_key()))
    return key_id(fresh.public_key())


def load_or_create_signer(private: Path, public: Path) -> "CryptoSigner":
    """The signer; its key is made on first use, and never again once a public key is listed."""
    if not public.exists():
        init(private, public, replace=False)
    return load_signer(private, public)
