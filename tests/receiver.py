"""A server of this machine that is told things: callbacks and webhooks."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Attributes: got: headers and body of each POST; answers: what the next ones are answered with: status, headers, bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], int, float]] = []

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/told"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        code, headers, size, delay = self.server.answers.pop(0) if self.server.answers else (204, {}, 0, 0.0)
        time.sleep(delay)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for _ in range(size // 1024):
                self.wfile.write(b"a" * 1024)
        except OSError:
            self.server.answers.append((-1, {}, 0, 0.0))  # the other side had read enough

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def listening() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
