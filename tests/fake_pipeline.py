"""A project in a temporary folder whose whole pipeline runs in this process in milliseconds: no DVC, no torch, no subprocess.

    with fakes(folder): ...       the seam: what starts processes elsewhere is answered here, in one place
    FakePipeline.build(folder)    params, source, locks, artifacts, cache, remote, ledger and keys as the real ones have them

Stages are those of `tests/fake_stages.py`, and DVC is `tests/fake_dvc.py`. Kills: `tests/kills.py`, `tests/histories.py`.
"""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import TINY, Row, raw_params, write_source
from fake_dvc import FakeDvc
from fake_stages import ACTIONS, HERE, UPDATES
from sqlalchemy.pool import SingletonThreadPool
from told import require_told

from flows import processes
from flows.cli import main
from flows.dvc import command as dvc
from flows.project import Project, workspace
from flows.purge import scan
from flows.requests import coordinator, intake
from flows.run import warm_client
from lmeraser.core import environment
from lmeraser.core.layout import Layout
from lmeraser.erase import ledger_schema
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.requests import Request
from lmeraser.learn import same_environment
from lmeraser.pipeline.before import open_before
from lmeraser.sources import splitting

CANARY = "kanarienvogel"  # in every private person's name
REMEMBERED = 2000  # texts of YAML whose trees are kept
FAKE = TINY | {
    "source": {"kind": "manifest", "path": "people", "erase": False},
    "parts": ["p00", "p01"],
    "slots": ["c00", "c01", "c02"],
    "projection.dim": 3,
    "cluster.n_max": 4,
    "skeleton.leaves": 3,
}


# The seam


def dvc_of(layout: Layout) -> FakeDvc:
    return FakeDvc(layout, ACTIONS, UPDATES)


def _run(layout: Layout, command: str, *arguments: str) -> None:
    names = [argument for argument in arguments if not argument.startswith("--")]
    if command == "repro":
        dvc_of(layout).repro(names, single="--single-item" in arguments)
    elif command == "checkout":
        dvc_of(layout).checkout(names)
    else:
        raise AssertionError(f"the fake knows no dvc {command}")


def _run_chains(layout: Layout, shares: Sequence[Sequence[str]], gpus: int = 0, before: Path | None = None) -> dict[str, float]:
    names = [name for share in shares for name in share]
    dvc_of(layout).run_stages(names, open_before(before, layout) if before else None)
    return {}  # no time of a stage is worth a commit of the ledger


def _subprocess(command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """What programs answer: there is no git repository, and the scan runs in this process."""
    if command[0] == "git":
        return subprocess.CompletedProcess(command, 128, b"", b"fatal: not a git repository")
    if command[1:3] == ["-m", "flows.purge.scan"]:
        answer, complaint = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(answer), contextlib.redirect_stderr(complaint):
            patch.setattr(sys, "argv", list(command[2:]))
            patch.setattr(sys, "stdin", io.StringIO(options["input"].decode()))
            status = scan.main()
        return subprocess.CompletedProcess(command, status, answer.getvalue().encode(), complaint.getvalue().encode())
    raise AssertionError(f"the fake starts no process: {command[0]}")


class _Started:
    """A process that has ended well."""

    def wait(self) -> int:
        return 0


def _faked() -> dict[str, object]:
    """Some of what fakes replace, as it is now."""
    return {"dvc.run": dvc.run, "processes.start": processes.start, "subprocess.run": subprocess.run, "os.fsync": os.fsync}


REAL = _faked()


def still_faked() -> list[str]:
    """What is not as it was: nothing, when no test runs."""
    return [name for name, now in _faked().items() if now is not REAL[name]]


@contextlib.contextmanager
def fakes(temporary: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let the product's code run on fake projects. Args: temporary: an empty folder for temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        replace(patch, temporary)
        yield patch


def replace(patch: pytest.MonkeyPatch, temporary: Path) -> None:
    """As `fakes`, by the patch that a test replaces things with itself: two would have to be undone in the right order."""
    patch.setattr(dvc, "run", _run)
    patch.setattr(dvc, "ask", lambda *_: (0, "{}", ""))
    patch.setattr(dvc, "status", lambda layout, **_: dvc_of(layout).status())
    patch.setattr(dvc, "status_and_unchanged", lambda layout, **_: (dvc_of(layout).status(), 0))
    patch.setattr(dvc, "commit", lambda layout, names: dvc_of(layout).commit(names))
    patch.setattr(processes, "start", lambda *_, **__: _Started())
    patch.setattr(subprocess, "run", _subprocess)
    real = warm_client.run_chains
    for name, module in list(sys.modules.items()):
        if name.startswith("flows.") and getattr(module, "run_chains", None) is real:  # whoever imported it by name
            patch.setattr(module, "run_chains", _run_chains)
    patch.setattr(splitting, "check_table", lambda *_: 0)  # Great Expectations takes seconds to import
    patch.setattr(environment, "_own", lambda: tuple(HERE.items()))
    patch.setattr(same_environment, "network_environment", lambda _: HERE)
    # The same run twice makes the same writes.
    dice = random.Random(0)
    patch.setattr("secrets.token_bytes", dice.randbytes)
    patch.setattr("secrets.token_hex", lambda size: dice.randbytes(size).hex())
    patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
    # A power cut is none of this: no disk is waited for, and one connection a thread serves.
    patch.setattr("os.fsync", lambda _: None)
    patch.setattr(ledger_schema, "NullPool", SingletonThreadPool)
    patch.setattr(ledger_schema, "_configure", _unsynchronised(ledger_schema._configure))
    patch.setattr(ledger_schema, "_engine", functools.cache(ledger_schema._engine))  # it keeps what SQL it compiled
    patch.setattr(yaml, "safe_load", _remembered_safe_load)
    patch.setattr(yaml, "load", _remembered_load)
    patch.setattr("tempfile.tempdir", str(temporary))
    for name in ("PREFECT_HOME", "DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR"):
        patch.setenv(name, str(temporary / "nothing"))


def _remembered(load: Callable[..., Any]) -> Callable[..., Any]:
    """PyYAML takes most of a fake forget's time for the same few texts."""
    known: dict[tuple[Any, ...], str] = {}

    def remembering(text: Any, *loader: Any, **named: Any) -> Any:
        key = (text, *loader, *named.values())
        if key not in known:
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = json.dumps(load(text, *loader, **named))
        return json.loads(known[key])  # a tree of its own: whoever asked may change it

    return remembering


_remembered_safe_load = _remembered(yaml.safe_load)  # for all fakes of this process: most texts are the same in each
_remembered_load = _remembered(yaml.load)


def _unsynchronised(configure: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def configured(connection: Any, record: Any) -> None:
        configure(connection, record)
        connection.execute("PRAGMA synchronous = OFF")

    return configured


# The project


@functools.cache
def everybody() -> tuple[Row, ...]:
    """Six private people, one of them with a label that nobody else has, four public ones, and one who only tests."""
    rows = [Row(f"stock-{number}", ("one", "two")[number % 2], "public", seed=100 + number) for number in range(4)]
    for number in range(6):
        labels = ("one", "two") if number else ("rare", "two")
        rows += [Row(f"{CANARY}-{number}", label, seed=10 * number + place) for place, label in enumerate(labels)]
    rows += [Row(f"{CANARY}-0", "one", split="test", seed=7), Row(f"{CANARY}-test", "two", split="test", seed=8)]
    return tuple(rows)


@dataclass(frozen=True)
class FakePipeline:
    """A fake project and its remote beside it. Every method acts as a process of its own: nothing is kept between two."""

    root: Path

    @classmethod
    def build(cls, folder: Path, rows: Sequence[Row] | None = None, remote: bool = True, **changes: Any) -> "FakePipeline":
        """A built project in `folder/project`. Args: changes: of params, as `service={"approval": True}`."""
        root = folder / "project"
        root.mkdir(parents=True)
        raw = raw_params(FAKE)
        for section, change in changes.items():
            raw[section] = raw[section] | change if isinstance(raw[section], dict) else change
        (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        shutil.copy(Path(__file__).resolve().parents[1] / "dvc.yaml", root)
        (root / ".dvc").mkdir()
        ErasedList(None, frozenset()).write(root / "data" / "erased.json")
        write_source(root / "people", rows if rows is not None else everybody())
        place = "['remote \"disk\"']\n    url = ../../remote\n" if remote else ""
        (root / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n{place}")
        (folder / "remote").mkdir()
        made = cls(root)
        made.repro()
        if remote:
            made.push()
        with made.process() as project:
            project.ensure_subject_key()
            project.ledger.head()
        return made

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def remote(self) -> Path:
        return self.root.parent / "remote"

    def repro(self) -> None:
        dvc_of(self.layout).repro()

    def status(self) -> dict[str, Any]:
        return dvc_of(self.layout).status()

    def push(self) -> None:
        """Copy the cache to the remote, run entries too."""
        shutil.copytree(self.root / ".dvc" / "cache", self.remote, dirs_exist_ok=True)

    def copy(self, folder: Path) -> "FakePipeline":
        shutil.copytree(self.root.parent, folder)
        return FakePipeline(folder / "project")

    @contextlib.contextmanager
    def process(self) -> Iterator[Project]:
        """The project as a new process sees it."""
        project = Project(self.layout)
        try:
            yield project
        finally:
            if "ledger" in project.__dict__:
                project.ledger.close()

    # As the commands do it

    def submit(
        self,
        *people: str,
        request_id: str | None = None,
        include_public: bool = False,
        solved: bool = True,
        images: Sequence[str] = (),
    ) -> Request:
        with self.process() as project:
            request = intake.receive(project, people, request_id or str(uuid.uuid4()), include_public, images)
            return intake.take_effect(project, intake.validate(project, request, people, images), solved)

    def resume(self) -> list[Request]:
        with self.process() as project, workspace(project):
            return coordinator.run_open(project, retry_failed=True)

    def sweep(self) -> list[Request]:
        with self.process() as project, workspace(project):
            return coordinator.run_open(project)

    def forget(self, *people: str, images: Sequence[str] = ()) -> Request:
        request = self.submit(*people, solved=False, images=images)
        intake.refuse(request)
        self.sweep()
        return self.request(request.request_id)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """`lmeraser` with these arguments: exit status, standard output and error."""
        output, complaint = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            patch.setenv("LMERASER_PROJECT", str(self.root))
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        return int(str(ended.value)), output.getvalue(), complaint.getvalue()

    def json(self, *arguments: str) -> dict[str, Any]:
        """What a command that must succeed prints with --json."""
        status, output, complaint = self.command(*arguments, "--json")
        assert status == 0, complaint
        answer: dict[str, Any] = json.loads(output)
        require_told(arguments[0], answer)
        return answer

    def refused(self, status: int, *arguments: str) -> str:
        """The one line of a command that must be refused with this status; it names nobody."""
        exit_status, output, complaint = self.command(*arguments)
        lines = [line for line in complaint.splitlines() if line.startswith("error: ")]
        assert (exit_status, len(lines)) == (status, 1), complaint
        assert CANARY not in output + complaint
        return lines[0]

    def cancel(self, request_id: str) -> Request:
        with self.process() as project:
            return intake.cancel(project, request_id)

    def request(self, request_id: str) -> Request:
        with self.process() as project:
            return project.ledger.get(request_id)

    def requests(self) -> list[Request]:
        with self.process() as project:
            return project.ledger.all()
