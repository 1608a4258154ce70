"""Answers are signed by the key that the operator names, or by the project's own; and a pair that does not fit is refused."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from flows.door.signing import SIGNATURE, Signer, check_url, named_signer, own_signer
from lmeraser.core.errors import BadInputError
from lmeraser.core.layout import Layout
from lmeraser.prove.keys import init, key_id, load_signing_key, signing_key_path

NOW = datetime(2026, 5, 1, tzinfo=UTC)
URL = "https://door.example/opendsr"
BODY = b'{"a":1}\n'
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pair(folder: Path, key: Key, domain: str = "door.example", days: int = 30) -> tuple[Path, Path]:
    """A certificate and its key in files."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a controller's authority")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(NOW - timedelta(days=60)).not_valid_after(NOW + timedelta(days=days))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
    certificate, file = folder / "certificate.pem", folder / "key.pem"
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate.write_bytes(made.sign(key, digest).public_bytes(Encoding.PEM))
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    return certificate, file


def signature_of(signer: Signer) -> bytes:
    headers = signer.headers(BODY)
    assert headers["X-OpenDSR-Processor-Domain"] == "door.example"
    return base64.b64decode(headers[SIGNATURE])


def test_rsa_ecdsa_and_ed25519_sign_the_bodys_bytes(tmp_path: Path) -> None:
    first = rsa_key()
    first.public_key().verify(
        signature_of(named_signer(URL, *pair(tmp_path, first), NOW)), BODY, padding.PKCS1v15(), hashes.SHA256()
    )
    second = ec.generate_private_key(ec.SECP256R1())
    second.public_key().verify(signature_of(named_signer(URL, *pair(tmp_path, second), NOW)), BODY, ec.ECDSA(hashes.SHA256()))
    third = ed25519.Ed25519PrivateKey.generate()
    third.public_key().verify(signature_of(named_signer(URL, *pair(tmp_path, third), NOW)), BODY)


def test_projects_key_signs_where_none_is_named_and_its_certificate_is_the_same_each_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "data").mkdir()
    first, second = own_signer(layout, URL), own_signer(layout, URL)
    assert first.certificate == second.certificate
    certificate = x509.load_pem_x509_certificate(first.certificate)
    key = load_signing_key(signing_key_path(layout.private_state), layout.public_keys)
    key.public_key().verify(signature_of(first), BODY)
    assert certificate.public_key() == key.public_key()
    assert key_id(key.public_key())[:16] in certificate.subject.rfc4514_string()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["door.example"]
    init(signing_key_path(layout.private_state), layout.public_keys, replace=True)
    assert own_signer(layout, URL).certificate != first.certificate


def expired(folder: Path) -> tuple[Path, Path]:
    return pair(folder, ec.generate_private_key(ec.SECP256R1()), days=-1)


def elsewhere(folder: Path) -> tuple[Path, Path]:
    return pair(folder, ec.generate_private_key(ec.SECP256R1()), domain="other.example")


def of_two(folder: Path) -> tuple[Path, Path]:
    (folder / "other").mkdir()
    _, key = pair(folder / "other", ec.generate_private_key(ec.SECP256R1()))
    return pair(folder, ec.generate_private_key(ec.SECP256R1()))[0], key


def readable(folder: Path) -> tuple[Path, Path]:
    certificate, key = pair(folder, ec.generate_private_key(ec.SECP256R1()))
    key.chmod(0o644)
    return certificate, key


def locked(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate, file = pair(folder, key)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return certificate, file


def swapped(folder: Path) -> tuple[Path, Path]:
    certificate, key = pair(folder, ec.generate_private_key(ec.SECP256R1()))
    return key, certificate


def missing(folder: Path) -> tuple[Path, Path]:
    return folder / "none.pem", folder / "none.pem"


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (expired, "not valid now"),
        (elsewhere, "not for door.example"),
        (of_two, "does not belong"),
        (readable, "mode 0644"),
        (locked, "encrypted"),
        (swapped, "no X.509 certificate"),
        (missing, "cannot be read"),
    ],
)
def test_pair_that_nobody_could_check_is_refused(tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], part: str) -> None:
    with pytest.raises(BadInputError, match=part) as refused:
        named_signer(URL, *make(tmp_path), NOW)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "door.example", "ftp://door.example", "https://", "https://a@b", "https://a/?b", "https://a/#b", "https://ä"]
)
def test_address_of_the_door_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInputError, match="--url"):
        check_url(url)
    assert check_url("https://door.example/a/") == "https://door.example/a"
