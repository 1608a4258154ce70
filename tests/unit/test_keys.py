"""Signing keys: for their owner alone, never replaced by accident, never forgotten; and only Ed25519."""

import os
from pathlib import Path

import pytest
from builders import refused
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.prove import keys
from lmeraser.prove.keys import init, load_or_create_signer, load_public, load_signer, signing_key_path


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "state" / "certificate.key"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "data" / "certificate-keys.pem"


def ids(public: Path) -> list[str]:
    return [key.keyid for key in load_public(public)]


def test_key_is_made_for_its_owner_alone_and_its_public_half_is_listed(private: Path, public: Path) -> None:
    made = init(private, public, replace=False)
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700
    assert ids(public) == [made]
    assert load_signer(private, public).public_key.keyid == made
    assert b"PRIVATE" not in public.read_bytes()


def test_key_is_not_replaced_by_accident(private: Path, public: Path) -> None:
    init(private, public, replace=False)
    before = private.read_bytes(), public.read_bytes()
    assert "--replace" in refused(ProjectError, lambda: init(private, public, replace=False))
    assert (private.read_bytes(), public.read_bytes()) == before


def test_replaced_key_stays_listed_before_the_new_one(private: Path, public: Path) -> None:
    first = init(private, public, replace=False)
    second = init(private, public, replace=True)
    assert ids(public) == [first, second]
    assert load_signer(private, public).public_key.keyid == second


def test_lost_key_is_not_made_anew_silently(private: Path, public: Path) -> None:
    first = init(private, public, replace=False)
    private.unlink()
    assert "lost" in refused(ProjectError, lambda: init(private, public, replace=False))
    assert "missing" in refused(ProjectError, lambda: load_or_create_signer(private, public))
    assert not private.exists()
    second = init(private, public, replace=True)
    assert ids(public) == [first, second]


def test_interrupted_making_of_the_first_key_is_finished(private: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def dies_at_the_second(path: Path, data: bytes, mode: int = 0o644) -> None:
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_atomically(path, data, mode)

    monkeypatch.setattr(keys, "write_atomically", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        init(private, public, replace=False)
    monkeypatch.undo()
    assert private.exists()
    assert not public.exists()
    assert load_or_create_signer(private, public).public_key.keyid == ids(public)[0]


def test_signer_is_made_once(private: Path, public: Path) -> None:
    made = load_or_create_signer(private, public).public_key.keyid
    assert load_or_create_signer(private, public).public_key.keyid == made
    assert ids(public) == [made]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_key_that_others_can_read_or_write_is_refused(private: Path, public: Path, mode: int) -> None:
    init(private, public, replace=False)
    private.chmod(mode)
    assert f"mode {mode:04o}, expected 0600" in refused(ProjectError, lambda: load_signer(private, public))


def pem(key: object, password: bytes | None = None) -> bytes:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "damaged"),
        (b"CANARY", "damaged"),
        (pem(Ed25519PrivateKey.generate())[:60], "damaged"),
        (pem(generate_private_key(SECP256R1())), "not an Ed25519 key"),
        (pem(Ed25519PrivateKey.generate(), b"CANARY"), "encrypted"),
        (pem(Ed25519PrivateKey.generate()), "not among the 1 public keys"),
    ],
    ids=["empty", "text", "cut", "ecdsa", "encrypted", "not listed"],
)
def test_unusable_signing_key_is_refused(private: Path, public: Path, data: bytes, line: str) -> None:
    init(private, public, replace=False)
    private.write_bytes(data)
    assert line in refused(ProjectError, lambda: load_signer(private, public))


def test_key_that_was_replaced_signs_nothing_more(private: Path, public: Path) -> None:
    init(private, public, replace=False)
    old = private.read_bytes()
    init(private, public, replace=True)
    private.write_bytes(old)
    assert "was replaced by" in refused(ProjectError, lambda: load_signer(private, public))


def block(key: object) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


ONE = block(Ed25519PrivateKey.from_private_bytes(b"1" * 32))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "empty or damaged"),
        (b"CANARY\n" + ONE, "empty or damaged"),
        (ONE[:-10], "empty or damaged"),
        (ONE + ONE, "lists a key twice"),
        (ONE + block(generate_private_key(SECP256R1())), "a key that is not Ed25519 at 2 of 2"),
        (ONE.replace(b"MCow", b"MCoz"), "damaged at key 1 of 1"),
        (ONE + pem(Ed25519PrivateKey.from_private_bytes(b"2" * 32)), "holds a private key"),
        (ONE + b" " * 2**20, "empty or damaged"),
    ],
    ids=["empty", "text", "cut", "twice", "ecdsa", "changed", "private", "large"],
)
def test_public_keys_that_are_not_only_public_keys_are_refused(public: Path, data: bytes, line: str) -> None:
    public.parent.mkdir()
    public.write_bytes(data)
    assert line in refused(ProjectError, lambda: load_public(public))


def test_missing_public_keys_are_refused(public: Path) -> None:
    assert "missing" in refused(ProjectError, lambda: load_public(public))
    assert "cannot be read" in refused(ProjectError, lambda: load_public(public.parent.parent))


def test_signing_key_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.KEY_VARIABLE, raising=False)
    assert signing_key_path(tmp_path) == tmp_path / "certificate.key"
    monkeypatch.setenv(keys.KEY_VARIABLE, "/elsewhere/key")
    assert signing_key_path(tmp_path) == Path("/elsewhere/key")


def test_key_id_is_what_openssl_computes(private: Path, public: Path, tmp_path: Path) -> None:
    import subprocess

    made = init(private, public, replace=False)
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"], capture_output=True, check=True).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True, cwd=os.sep).stdout
    assert digest.split()[0].decode() == made
