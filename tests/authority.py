"""A time-stamp authority of this machine: OpenSSL's `ts -reply` behind a small HTTP server, with certificates made here.

OpenSSL is another implementation than the one that is tested. It is started by `Popen`, which the fake project does not answer.
"""

import contextlib
import datetime
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HAS_OPENSSL = shutil.which("openssl") is not None
REASON = "openssl is not installed; it plays the time-stamp authority"
DAY = datetime.timedelta(days=1)
CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, is_root: bool, ends: int
) -> x509.Certificate:
    """Args: ends: days from now; it began a hundred days before that."""
    until = datetime.datetime.now(datetime.UTC) + ends * DAY
    name, issued_by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issued_by).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(until - 100 * DAY).not_valid_after(until)
    builder = builder.add_extension(x509.BasicConstraints(is_root, None), critical=True)
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
    return builder.sign(by, hashes.SHA256())


@dataclass(frozen=True)
class Authority:
    """Its files. Attributes: folder: roots.pem is what people trust."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str = "Clock", ends: int = 50) -> "Authority":
        """Args: ends: days from now until its certificate ends."""
        folder.mkdir(parents=True)
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = _certificate(f"{name} root", root_key, f"{name} root", root_key, True, 90)
        signer = _certificate(name, key, f"{name} root", root_key, False, ends)
        (folder / "roots.pem").write_bytes(root.public_bytes(Encoding.PEM))
        (folder / "signer.pem").write_bytes(signer.public_bytes(Encoding.PEM))
        (folder / "signer.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
        return cls(folder)

    @property
    def roots(self) -> Path:
        return self.folder / "roots.pem"

    def reply(self, query: bytes) -> bytes:
        """What OpenSSL answers."""
        asked, told = self.folder / "query.tsq", self.folder / "reply.tsr"
        asked.write_bytes(query)
        command = ["ts", "-reply", "-config", str(self.folder / "openssl.cnf"), "-queryfile", str(asked), "-out", str(told)]
        openssl(*command)
        return told.read_bytes()


def openssl(*arguments: str) -> tuple[int, str]:
    """Exit status and what it said."""
    with subprocess.Popen(["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.communicate(timeout=60)[0].decode(errors="replace")
    return process.returncode, said


Answer = Callable[[bytes], tuple[int, bytes]]  # of a query: status and body


class Desk(ThreadingHTTPServer):
    """An authority that can be reached. Attributes: asked: headers and body of each query; answer: what is said to the next ones;
    delay: s before it."""

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority = authority
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.delay = 0.0
        self.answer: Answer = self.rightly

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/tsr"

    def rightly(self, query: bytes) -> tuple[int, bytes]:
        return 200, self.authority.reply(query)


class _Handler(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        query = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((dict(self.headers), query))
        time.sleep(self.server.delay)
        status, body = self.server.answer(query)
        with contextlib.suppress(OSError):  # the other side had read enough
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def open_desk(authority: Authority) -> Iterator[Desk]:
    with Desk(authority) as desk:
        threading.Thread(target=desk.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield desk
        desk.shutdown()
