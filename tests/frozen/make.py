"""Small projects as a release left them: each with a request that stands, or was killed, at one state.

    python tests/frozen/make.py --release 24f4f35 --folder /tmp/frozen                  # a project a state
    python tests/frozen/make.py --release 24f4f35 --archive tests/frozen/24f4f35.tar.xz # the small files of these alone

The release's own code, from git, builds the project and carries the request; nothing here imports it. A state that no command
leaves behind is reached by SIGKILL, at a place that the way of the request names (`KILLS`). Before that somebody was erased with
a certificate, so a chain and a memory of purged objects are there to be continued. All people are the digits' writers.
"""

import argparse
import io
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sandbox import REPOSITORY, SMALL, Sandbox, write_people

FIRST = "00000000-0000-4000-8000-000000000001"  # certified before anything is frozen
OPEN = "00000000-0000-4000-8000-000000000002"  # the request that stands at the state
OTHER = "00000000-0000-4000-8000-000000000003"
HOST = "frozen-host"  # in claims, instead of the machine's name

# Where a request is killed: (a method, or a process that is started; a word among its arguments; before or after it).
KILLS: dict[str, tuple[str, str, str]] = {
    "received": ("receive", "", "after"),
    "removed": ("move", "removed", "after"),
    "retraining": ("process", "commit", "before"),
    "recording": ("process", "commit", "half"),
    "retrained": ("move", "retrained", "after"),
    "verified": ("move", "verified", "after"),
    "clearing": ("process", "--single-item", "before"),
    "purging": ("delete", "", "half"),
    "purged": ("move", "purged", "after"),
    "signed": ("move", "certified", "before"),
    "failed": ("add_time", "verified", "fails"),
}
STATES = (*KILLS, "validated", "quarantined", "blocked", "set aside", "together", "rejected", "certified")
SMALL_FILES = (
    *(".lmeraser/ledger.db", ".lmeraser/purge/*.json", ".lmeraser/quarantine.json", ".lmeraser/erased.json"),
    *(".lmeraser/subject.key", ".lmeraser/environment.json", ".lmeraser/*.needles", ".lmeraser/*.locks/dvc.lock"),
    *("data/erased.json", "data/certificate-keys.pem", "data/project-id", "certificates/*", "dvc.lock"),
)

# Runs the project's own command with a kill in it. Only names that every release has are touched.
KILLED = """
import os, runpy, signal, socket, subprocess, sys
from pathlib import Path
method, word, when, host, *arguments = sys.argv[1:]
socket.gethostname = lambda: host
from lmeraser.core import determinism
determinism.require()
from lmeraser.core.errors import StepFailedError
from lmeraser.erase.ledger import Ledger
from lmeraser.stores.folder import FolderStore

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def hooked(original):
    def called(self, *given, **named):
        if word and word not in given:
            return original(self, *given, **named)
        if when == "before":
            die()
        if when == "fails":
            raise StepFailedError("a step failed so that a request stands at failed")
        if when == "half":
            keys = list(given[0])
            if len(keys) < 2:
                return original(self, keys)
            original(self, keys[: len(keys) // 2])
            die()
        result = original(self, *given, **named)
        die()
    return called

class Started(subprocess.Popen):
    def __init__(self, command, *given, **named):
        meant = word in command and "dvc" in command
        if meant and when == "before":
            die()
        super().__init__(command, *given, **named)
        if meant:
            self.wait()
            lock = Path("dvc.lock")  # DVC writes it in place
            lock.write_bytes(lock.read_bytes()[: lock.stat().st_size // 2])
            die()

if method == "process":
    subprocess.Popen = Started
elif method:
    holder = FolderStore if method == "delete" else Ledger
    setattr(holder, method, hooked(getattr(holder, method)))
sys.argv = ["lmeraser", *arguments]
runpy.run_module("flows.cli", run_name="__main__", alter_sys=True)
"""


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(["git", "-C", str(folder), *author, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def has_release(release: str) -> bool:
    """Whether this repository's git knows a release: a shallow clone, or an archive, does not."""
    git = ["git", "-C", str(REPOSITORY), "cat-file", "-e", f"{release}^{{commit}}"]
    known = subprocess.run(git, capture_output=True, check=False)
    return known.returncode == 0


def build(root: Path, release: str) -> Sandbox:
    """The tests' small project by a release's code, with a certificate."""
    root.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(REPOSITORY), "archive", release], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive.stdout, check=True)
    git(root, "init", "--quiet", "--initial-branch", "main")
    write_people(root / "people", 40)
    with (root / ".gitignore").open("a") as ignored:
        ignored.write("/people/\n")
    project = Sandbox(root)
    project.set_params(source={"kind": "manifest", "path": "people"})
    project.set_params(parts=["p00", "p01"], slots=["c00", "c01", "c02", "c03"], **SMALL)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "people")
    command(project, "build")
    command(project, "forget", "--subject", project.people()[0], "--request-id", FIRST)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "built")
    return project


def command(project: Sandbox, *arguments: str, kill: str = "", code: int = 0) -> None:
    """Run a command of the project's own release; `kill`: a key of `KILLS`. Raises: RuntimeError if it ends otherwise."""
    method, word, when = KILLS.get(kill, ("", "", ""))
    done = project.python("-c", KILLED, method, word, when, HOST, *arguments)
    expected = -signal.SIGKILL if method and when != "fails" else code
    if done.returncode != expected:
        raise RuntimeError(f"{arguments[0]} at {kill or 'no kill'} ended with {done.returncode}: {done.stderr[-2000:]}")


def settle(project: Sandbox) -> None:
    """Record changed params as the project's own state, so that they are not what a later release finds changed."""
    command(project, "build")
    git(project.root, "commit", "--quiet", "--all", "--allow-empty", "--message", "params")


def _killed(project: Sandbox, state: str) -> None:
    if state == "clearing":  # only a source that may be cleared is
        project.set_params(source={"erase": True})
        settle(project)
    if state == "failed":
        project.set_params(service={"attempts": 1})
    command(project, "forget", "--subject", project.people()[1], "--request-id", OPEN, kill=state, code=1)


def _validated(project: Sandbox) -> None:
    project.set_params(service={"approval": True})
    command(project, "submit", "--subject", project.people()[1], "--request-id", OPEN)


def _quarantined(project: Sandbox) -> None:
    command(project, "submit", "--subject", project.people()[1], "--request-id", OPEN)


def _blocked(project: Sandbox) -> None:
    command(project, "submit", "--subject", project.people("public")[0], "--request-id", OPEN, code=3)


def _set_aside(project: Sandbox) -> None:
    """Each half of the people can be erased; not both."""
    people = project.people()[1:]
    command(project, "submit", "--subject", *people[::2], "--request-id", OTHER)
    command(project, "submit", "--subject", *people[1::2], "--request-id", OPEN, code=3)


def _together(project: Sandbox) -> None:
    """Two requests share a batch; the first is certified, the second not yet."""
    command(project, "submit", "--subject", project.people()[2], "--request-id", OTHER)
    command(project, "submit", "--subject", project.people()[1], "--request-id", OPEN)
    command(project, "resume", kill="together")


def _rejected(project: Sandbox) -> None:
    command(project, "submit", "--subject", "nobody-whom-it-knows", "--request-id", OPEN, code=2)


def _certified(project: Sandbox) -> None:
    command(project, "forget", "--subject", project.people()[1], "--request-id", OPEN)


KILLS["together"] = ("move", "certified", "after")
MAKERS: dict[str, Callable[[Sandbox], None]] = {
    "validated": _validated,
    "quarantined": _quarantined,
    "blocked": _blocked,
    "set aside": _set_aside,
    "together": _together,
    "rejected": _rejected,
    "certified": _certified,
}


def freeze(base: Sandbox, state: str, folder: Path) -> Sandbox:
    """A copy of a built project, whose request is left at a state."""
    shutil.copytree(base.root, folder, symlinks=True)
    project = Sandbox(folder)
    maker = MAKERS.get(state)
    if maker:
        maker(project)
    else:
        _killed(project, state)
    return project


def ledger_states(project: Sandbox) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{project.root}/.lmeraser/ledger.db?mode=ro", uri=True)) as ledger:
        return dict(ledger.execute("SELECT request_id, state FROM requests").fetchall())


def pack(projects: Sequence[Sandbox], archive: Path) -> None:
    """Keep what state is kept in: ledger, journals, lists, locks, certificates; no artifact, and of the keys only the subjects'.

    Raises: RuntimeError if something of the machine is in it.
    """
    machine = [
        text.encode() for text in (str(projects[0].root.parent), str(REPOSITORY), tempfile.gettempdir(), socket.gethostname())
    ]
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for project in projects:
            with closing(sqlite3.connect(project.root / ".lmeraser" / "ledger.db")) as ledger:
                ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for file in sorted(file for pattern in SMALL_FILES for file in project.root.glob(pattern)):
                content = file.read_bytes()
                if any(text in content for text in machine):
                    raise RuntimeError(f"{file.name} of {project.root.name} holds a path or the name of this machine")
                entry = tarfile.TarInfo(file.relative_to(project.root.parent).as_posix())
                entry.size, entry.mode = len(content), 0o600
                packed.addfile(entry, io.BytesIO(content))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the small project of a release, with a request at each state.")
    parser.add_argument("--release", default="24f4f35", metavar="REV", help="whose code makes it")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the projects here")
    parser.add_argument("--archive", type=Path, metavar="FILE.tar.xz", help="keep the small files of all of them here")
    parser.add_argument("--states", nargs="+", default=list(STATES), choices=STATES, metavar="STATE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmeraser-frozen-") as name:
        folder: Path = options.folder or Path(name)
        base = Sandbox(folder / "base")
        if not base.root.exists():
            base = build(folder / "base", options.release)
        projects = []
        for state in options.states:
            projects.append(freeze(base, state, folder / state.replace(" ", "-")))
            print(f"{state}: {ledger_states(projects[-1]).get(OPEN)}", flush=True)
        if options.archive:
            pack(projects, options.archive)


if __name__ == "__main__":
    main()
