"""The door and the model server behind nginx, by the configuration that docs/operations.md shows, and the door's own TLS."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from authority import openssl
from sandbox import Sandbox
from servers import running

from flows.door.tokens import FAILURES

pytestmark = pytest.mark.slow

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
DOOR, MODEL = "erase.example.org", "model.example.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of both hosts: PEM, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    names, files = f"subjectAltName=DNS:{DOOR},DNS:{MODEL}", (folder / "here.pem", folder / "here.key")
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={DOOR}", "-addext", names]
    status, said = openssl(*request, "-out", str(files[0]), "-keyout", str(files[1]))
    assert status == 0, said
    return files


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def nginx(folder: Path, certificate: tuple[Path, Path], door: str, model: str) -> Iterator[str]:
    """A proxy as the page has it, but for its port, its certificate and where the servers are."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx on PATH: the proxy of docs/operations.md is tried nowhere")
    (shown,) = re.findall(r"```nginx\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    port = free_port()
    here = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/example.org.pem": str(certificate[0]),
        "/etc/ssl/private/example.org.key": str(certificate[1]),
        "http://127.0.0.1:8090": door,
        "http://127.0.0.1:8080": model,
    }
    for of_the_page, tried in here.items():
        assert of_the_page in shown
        shown = shown.replace(of_the_page, tried)
    folder.mkdir()
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    whole = f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\nhttp {{\n{paths}{shown}}}\n"
    (folder / "nginx.conf").write_text(("user root;\n" if os.geteuid() == 0 else "") + whole)
    process = subprocess.Popen([program, "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "error.log")])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


class Caller:
    """A client of one of the hosts. Args: address: where it calls from."""

    def __init__(self, url: str, host: str, certificate: Path, address: str = "127.0.0.1") -> None:
        transport = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(certificate)), local_address=address)
        self.web = httpx.Client(base_url=url, headers={"Host": host}, transport=transport, timeout=60)
        self.extensions = {"sni_hostname": host}

    def ask(self, method: str, path: str, token: str = "", content: bytes | None = None, kind: str = "") -> httpx.Response:
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | ({"Content-Type": kind} if kind else {})
        return self.web.request(method, path, headers=headers, content=content, extensions=self.extensions)


def test_proxy_of_the_page_hands_on_who_asks_and_keeps_what_is_the_operators(
    project: Sandbox, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    token = project.json("token", "create", "--name", "acme", "--scope", "submit", "read")["token"]
    image = next((project.root / "people").rglob("*.png")).read_bytes()
    door = ("door", "--behind-proxy", "--url", f"https://{DOOR}")
    with (
        running(project, tmp_path / "door.log", *door) as opened,
        running(project, tmp_path / "serve.log", "serve", "--behind-proxy", "--rate", "3") as served,
        nginx(tmp_path / "nginx", certificate, opened, served) as url,
    ):
        one, other = (Caller(url, DOOR, certificate[0], address) for address in ("127.0.0.2", "127.0.0.3"))
        found = one.ask("GET", "/v2/discovery")
        assert found.headers["X-OpenDSR-Processor-Domain"] == DOOR
        assert found.json()["processor_certificate"] == f"https://{DOOR}/certificate.pem"
        assert one.ask("GET", "/v2/requests/b9b7a3a4-8a3c-4c0b-9a52-9f0f6a3b2d11", token).status_code == 404, "the token came in"
        assert one.ask("POST", "/v2/requests", token, b" " * 70_000, "application/json").status_code == 413
        tries = [one.ask("POST", "/v2/requests", "guessed").status_code for _ in range(FAILURES + 1)]
        assert (tries[0], tries[-1]) == (401, 429), "who guesses tokens waits"
        assert other.ask("POST", "/v2/requests", "guessed").status_code == 401, "and nobody else does"
        asking, calm = (Caller(url, MODEL, certificate[0], address) for address in ("127.0.0.4", "127.0.0.5"))
        asked = [asking.ask("POST", "/predict", content=image, kind="image/png").status_code for _ in range(12)]
        assert (asked[0], set(asked)) == (200, {200, 429}), "a rate is a client's own"
        assert calm.ask("POST", "/predict", content=image, kind="image/png").status_code == 200
        for path in ("/metrics", "/"):
            assert calm.ask("GET", path).status_code == 404
    assert "127.0.0.2" not in (tmp_path / "door.log").read_text()


def test_door_does_tls_itself_by_its_two_files(project: Sandbox, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    files = ("--tls-certificate", str(certificate[0]), "--tls-key", str(certificate[1]))
    with running(project, tmp_path / "door.log", "door", "--url", f"https://{DOOR}", *files) as url:
        assert url.startswith("https://")
        assert Caller(url, DOOR, certificate[0]).ask("GET", "/v2/discovery").status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/v2/discovery", timeout=20)
