"""Four processes with hundreds of requests each, on SQLite and on a real PostgreSQL; and one that is killed among them."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import preloading
import pytest

from lmeraser.erase.ledger import Ledger, sqlite_url

pytestmark = pytest.mark.slow
PROCESSES, EACH = 4, 500 if preloading.cold() else 40  # all of them in `make campaign`
WRITER = """
import sys, uuid
from lmeraser.erase.ledger import Ledger
url, start, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ledger = Ledger.open(url)
for number in range(start, start + each):
    shared = number % 5 == 0  # every fifth comes to all processes
    identity = uuid.UUID(int=(number % each if shared else number) + (10**9 if shared else 0))
    _, new = ledger.receive(str(identity), [str(identity)], False, 30)
    print(identity, int(new), flush=True)
"""
MOVER = """
import sys
from lmeraser.erase.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
while claim := ledger.claim(sys.argv[2], 60, ["received"], limit=25):
    if not claim.requests:
        break
    for request in claim.requests:
        ledger.move([request.request_id], "validated", claim)
        print(request.request_id, flush=True)
    ledger.release(claim)
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own on a socket in a temporary folder; skipped where PostgreSQL is not installed (docs/operations.md)."""
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path(shutil.which("initdb") or "/x").parent]
    programs = next((folder for folder in candidates if (folder / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed here (apt install postgresql)")
    # PostgreSQL refuses to run as root; its socket's path must be short.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/lmpg-XXXXXX"], text=True).strip())
    user: list[str] = []
    if os.getuid() == 0:
        if subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres here")
        shutil.chown(folder, "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    run = [*user, str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "ledger"]
    subprocess.run(run, check=True, capture_output=True, cwd=folder)
    server = subprocess.Popen(
        [*user, str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses="],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".s.PGSQL.*")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(1)
        yield f"postgresql+psycopg://ledger@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(sqlite_url(tmp_path / "ledger.db"))
    address: str = request.getfixturevalue("postgres")
    import sqlalchemy as sa

    name = f"ledger_{uuid.uuid4().hex[:8]}"
    with sa.create_engine(address, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return address.replace("/postgres?", f"/{name}?")


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_nothing_is_lost_or_doubled_by_four_processes_at_once(url: str) -> None:
    writers = [start(WRITER, url, number * EACH, EACH) for number in range(PROCESSES)]
    acknowledged = [line.split() for writer in writers for line in (writer.communicate(timeout=600)[0]).splitlines()]
    assert len(acknowledged) == PROCESSES * EACH
    news = [identity for identity, new in acknowledged if new == "1"]
    assert len(news) == len(set(news)), "one of them was new twice"
    ledger = Ledger.open(url)
    assert {request.request_id for request in ledger.all()} == {identity for identity, _ in acknowledged} == set(news)
    assert ledger.verify_chain() == len(news)
    movers = [start(MOVER, url, f"mover {number}") for number in range(PROCESSES)]
    moved = [line for mover in movers for line in mover.communicate(timeout=600)[0].splitlines()]
    assert sorted(moved) == sorted(news), "each was worked on by exactly one"
    assert ledger.verify_chain() == 2 * len(news)


def test_what_a_killed_process_was_told_is_there(url: str) -> None:
    Ledger.open(url).close()
    for kill in range(6):
        writer = start(WRITER, url, 100_000 * (kill + 1), 10_000)
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(3 + 7 * kill)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
        writer.wait()
        ledger = Ledger.open(url)
        known = {request.request_id for request in ledger.all()}
        assert {line.split()[0] for line in acknowledged if line.endswith("\n")} <= known
        assert ledger.verify_chain() == len(known)
        ledger.close()
