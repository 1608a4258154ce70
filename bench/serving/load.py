"""A load generator: k clients that ask one after the other over connections that stay open, in a process of its own.

    python -m bench.serving.load PORT IMAGE --clients 8 --seconds 5

Plain asyncio streams: a client library takes as long as a small network does, and both share the cores with the server. Prints
one JSON object: each answer as [begun, ended, status, version], in seconds of the system's monotonic clock.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
MOST_HEADER = 65536  # bytes
Answer = tuple[float, float, int, str]


@dataclass
class Load:
    """Attributes: answers: in the order in which they ended; versions: those that they name, by their place in this list."""

    answers: list[tuple[float, float, int, int]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def add(self, begun: float, status: int, body: bytes) -> None:
        ended = time.monotonic()
        version = str(json.loads(body).get("model_version"))
        if version not in self.versions:
            self.versions.append(version)
        self.answers.append((begun, ended, status, self.versions.index(version)))

    def named(self) -> list[Answer]:
        return [(begun, ended, status, self.versions[version]) for begun, ended, status, version in self.answers]


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one HTTP/1.1 answer that tells its length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(status.split()[1]), await reader.readexactly(int(headers["content-length"]))


async def ask(port: int, request: bytes, until: float, over: threading.Event, load: Load) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, limit=MOST_HEADER)
    while time.monotonic() < until and not over.is_set():
        begun = time.monotonic()
        writer.write(request)
        status, body = await read_answer(reader)
        load.add(begun, status, body)
    writer.close()


def request_of(image: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image


async def run(port: int, image: bytes, clients: int, seconds: float, over: threading.Event) -> Load:
    load, until = Load(), time.monotonic() + seconds
    await asyncio.gather(*(ask(port, request_of(image), until, over, load) for _ in range(clients)))
    return load


def wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving.load")
    parser.add_argument("port", type=int)
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="at most")
    parser.add_argument("--until-closed", action="store_true", help="end when the standard input is closed")
    options, over = parser.parse_args(), threading.Event()
    if options.until_closed:
        threading.Thread(target=wait_for_the_end, args=(over,), daemon=True).start()
    load = asyncio.run(run(options.port, options.image.read_bytes(), options.clients, options.seconds, over))
    json.dump(asdict(load), sys.stdout)


if __name__ == "__main__":
    main()
