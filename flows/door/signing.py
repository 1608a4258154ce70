"""What the door says is signed: the header `X-OpenDSR-Signature` holds a signature over the body's exact bytes, in base64.

By the certificate and key that the operator names: RSA (PKCS #1 v1.5) or ECDSA, over SHA-256, as the protocol asks for; or
Ed25519. Without them by the project's own Ed25519 key, the one of the erasure certificates: its id is known to those who check
these, and the X.509 certificate that carries it here is signed by itself. No text is valid in two roles: a DSSE envelope's
signed bytes begin with `DSSEv1`, a body's with `{`, an X.509 certificate's with 0x30.
"""

import base64
import ipaddress
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lmeraser.core.errors import BadInputError
from lmeraser.core.layout import Layout
from lmeraser.prove.keys import init, key_id, load_signing_key, signing_key_path

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DOMAIN, SIGNATURE = "X-OpenDSR-Processor-Domain", "X-OpenDSR-Signature"
MOST = 2**20  # bytes of a certificate or key
FROM, UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)  # fixed: the same key, the same certificate


@dataclass(frozen=True)
class Signer:
    """Attributes: base_url: of the door, as others reach it; certificate: PEM, the signing one first."""

    base_url: str
    certificate: bytes
    _sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def domain(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    def headers(self, body: bytes) -> dict[str, str]:
        return {DOMAIN: self.domain, SIGNATURE: base64.b64encode(self._sign(body)).decode()}


def own_signer(layout: Layout, base_url: str) -> Signer:
    """By the project's key, which is made if there never was one. Raises: ProjectError."""
    private, public = signing_key_path(layout.private_state), layout.public_keys
    if not public.exists():
        init(private, public, replace=False)
    key = load_signing_key(private, public)
    return Signer(base_url, _self_signed(key, urlsplit(base_url).hostname or ""), key.sign)


def named_signer(base_url: str, certificate: Path, key: Path, now: datetime) -> Signer:
    """By a certificate and its key in files (PEM).

    Raises: BadInputError if one cannot be read, is not for this domain or this key, or is not valid now.
    """
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(_read(certificate, "--certificate"))
    except ValueError as error:
        raise BadInputError("--certificate holds no X.509 certificate; expected PEM, the door's own one first") from error
    own, domain = chain[0], urlsplit(base_url).hostname or ""
    if domain not in _names(own):
        raise BadInputError(f"--certificate is not for {domain}; expected that name among its alternative names (or give --url)")
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise BadInputError("--certificate is not valid now; renew it, or check this machine's clock")
    return Signer(base_url, certificate.read_bytes(), _signing(_read(key, "--certificate-key", private=True), own))


def _read(path: Path, option: str, private: bool = False) -> bytes:
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = stream.read(MOST)
    except OSError as error:
        raise BadInputError(f"{option} cannot be read ({error.strerror}); expected a PEM file") from error
    if private and mode & 0o077:
        raise BadInputError(f"{option} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
    return data


def _names(certificate: "x509.Certificate") -> set[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _signing(pem: bytes, certificate: "x509.Certificate") -> Callable[[bytes], bytes]:
    """Sign with the certificate's key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise BadInputError(
            "--certificate-key is damaged or encrypted; expected a private key as PEM without a password"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise BadInputError("--certificate-key is of another kind; expected RSA, ECDSA or Ed25519")
    if key.public_key() != certificate.public_key():
        raise BadInputError("--certificate-key does not belong to --certificate; name the pair that was issued together")
    if isinstance(key, rsa.RSAPrivateKey):
        return lambda body: key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return lambda body: key.sign(body, ec.ECDSA(hashes.SHA256()))
    return key.sign


def _self_signed(key: "Ed25519PrivateKey", domain: str) -> bytes:
    """The project's key as an X.509 certificate: a function of key and domain."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    own = key_id(key.public_key())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"lmeraser {own[:16]}")])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(domain))
    except ValueError:
        alternative = x509.DNSName(domain)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(int(own[:30], 16) + 1).not_valid_before(FROM).not_valid_after(UNTIL)
    return (
        builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, None)
        .public_bytes(Encoding.PEM)
    )


def check_url(url: str) -> str:
    """The base of the door's own addresses, without a slash at its end. Raises: BadInputError."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = None
    if not whole or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii():
        raise BadInputError("--url is not the door's address; expected https://HOST or https://HOST/PATH, as clients reach it")
    return url.rstrip("/")
