"""A project in a temporary folder whose whole pipeline runs in this process in milliseconds: no DVC, no torch, no subprocess.

    with fakes() : ...            the seam: what starts processes elsewhere is answered here, in one place
    FakePipeline.build(folder)    params, source, locks, artifacts, cache, remote, ledger and keys as the real ones have them

Stages write the files of the real ones (`split`, `cluster`, `head` are the real ones); what a network would compute is a digest
of the images and labels that it would see, so an artifact is a function of the retained records alone, as the real one is.
"""

import contextlib
import functools
import io
import json
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import TINY, Row, make_tree, raw_params, write_source
from fake_dvc import FakeDvc
from sqlalchemy.pool import SingletonThreadPool

from flows import processes
from flows.cli import main
from flows.dvc import command as dvc
from flows.project import Project, workspace
from flows.purge import scan
from flows.requests import coordinator, intake
from flows.run import warm_client
from lmeraser.clusters.files import Member, load_members, load_placements, save_placements
from lmeraser.clusters.global_head import Sums, load_sums, save_head, save_sums, solve, subtract
from lmeraser.clusters.skeleton import Skeleton, save_skeleton
from lmeraser.core import environment
from lmeraser.core.digest import number_from, readable_json, sha256, sha256_of_file
from lmeraser.core.errors import ExpectationError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.records import TEST, TRAIN, Record, read_images, read_records
from lmeraser.data.tensors import write_tensors
from lmeraser.data.units import unit_of
from lmeraser.erase import ledger_schema
from lmeraser.erase.erased import ErasedList, SuppressionList
from lmeraser.erase.requests import Request
from lmeraser.learn import same_environment
from lmeraser.pipeline.recipe import save_recipe
from lmeraser.sources import splitting
from stages.cluster import cluster
from stages.head import head
from stages.split import split

HERE = {"machine": "fake"}  # the environment that everything is made in
TREE = make_tree(0, 3)
CANARY = "kanarienvogel"  # in every private person's name
FAKE = TINY | {
    "source": {"kind": "manifest", "path": "people", "erase": False},
    "parts": ["p00", "p01"],
    "slots": ["c00", "c01", "c02"],
    "projection.dim": 3,
    "cluster.n_max": 4,
    "skeleton.leaves": 3,
}


# Stages


def embed(layout: Layout, params: Params, parts: list[str]) -> None:
    for part in parts:
        records = read_records(layout.part(part), TRAIN)
        members = [
            Member(record.id, record.sha256, record.label, unit_of(record, params.cluster.unit), _leaf_of(record), part)
            for record in records
        ]
        save_placements(layout.leaves(part), members, [True] * len(members), 3)
        save_sums(layout.sums(part), _sums_of(records, params), environment.environment())


def _leaf_of(record: Record) -> int:
    return number_from("leaf", record.subject) % TREE.n_leaves


def _sums_of(records: Sequence[Record], params: Params) -> Sums:
    """Exact sums of features that are a digest of the image."""
    labels = sorted({record.label for record in records})
    dim, levels = params.projection.dim, params.projection.levels
    gram, by_label = np.zeros((dim, dim), dtype=np.int32), np.zeros((len(labels), dim), dtype=np.int32)
    for record in records:
        values = [number_from("feature", record.sha256, axis) % (2 * levels + 1) - levels for axis in range(dim)]
        feature = np.array(values, dtype=np.int32)
        gram += np.outer(feature, feature).astype(np.int32)
        by_label[labels.index(record.label)] += feature
    return Sums(gram, by_label, labels, len(records))


def pretrain(layout: Layout, params: Params, _: list[str]) -> None:
    write_tensors(layout.backbone, {"learnt": _learnt([sha256_of_file(layout.public)])}, {"environment": HERE})


def _learnt(seen: Sequence[str]) -> Any:
    """What a network would have learnt: a digest of what it saw."""
    return np.frombuffer(bytes.fromhex(sha256("\n".join(seen).encode())), dtype=np.uint8)


def skeleton(layout: Layout, params: Params, _: list[str]) -> None:
    flat = np.ones(3, dtype=np.float32)
    save_skeleton(layout.skeleton, Skeleton(flat, flat, TREE, np.eye(3), np.zeros(3)), HERE)


def recipe(layout: Layout, params: Params, _: list[str]) -> None:
    save_recipe(layout, params)


def validate(layout: Layout, params: Params, _: list[str]) -> None:
    """The gate as far as it is about people: nobody erased, and every placed record in one cluster."""
    suppression_list = SuppressionList.of(layout)
    records = [record for part in params.parts for record in read_records(layout.part(part))]
    if any(suppression_list.is_erased(subject) for subject in {record.subject for record in records}):
        raise ExpectationError("validate: a part holds records of erased people")
    placed = sorted(member.id for part in params.parts for member in load_placements(layout.leaves(part), part))
    if placed != sorted(member.id for slot in params.slots for member in load_members(layout.members(slot))):
        raise ExpectationError("validate: the clusters do not hold the placed records")
    write_atomically(layout.validation / "report.json", readable_json({"records": len(records)}))
    write_atomically(layout.validation / "passed.json", readable_json({"records": "passed"}))


def tune(layout: Layout, params: Params, slots: list[str]) -> None:
    for slot in slots:
        members = load_members(layout.members(slot))
        for part in {member.part for member in members}:
            read_images(layout.part(part), {member.id: member.sha256 for member in members if member.part == part})
        seen = [f"{member.sha256} {member.label}" for member in members]
        tensors = {"learnt": _learnt([sha256_of_file(layout.recipe), *seen])} if members else {}
        write_tensors(layout.tuned(slot), tensors, {"environment": HERE} if members else {"state": "empty"})


def evaluate(layout: Layout, params: Params, _: list[str]) -> None:
    tests = [record for part in params.parts for record in read_records(layout.part(part), TEST)]
    models = [sha256_of_file(layout.tuned(slot)) for slot in params.slots]
    write_atomically(
        layout.metrics / "metrics.json", readable_json({"tests": len(tests), "models": sha256(str(models).encode())})
    )
    for name in ("classes", "clusters"):
        write_atomically(layout.metrics / f"{name}.csv", b"name,records\n")


def interim_head(project: Layout, _: Params, folders: list[str]) -> None:
    for folder in folders:
        copy = Layout(project.quarantine_copies / folder)
        params = load_params(copy.params)
        without = set(json.loads((copy.root / "without.json").read_bytes()))
        records = [record for part in params.parts for record in read_records(copy.part(part), TRAIN)]
        leaving = _sums_of([record for record in records if record.id in without], params)
        labels = sorted({record.label for record in records if record.id not in without})
        gone = Sums(-leaving.gram * -1, leaving.by_label, leaving.labels, leaving.records)
        left = subtract([load_sums(copy.sums(part)) for part in params.parts], gone, labels)
        save_head(copy.root / "interim.safetensors", solve(left, params.head.ridge, params.projection.levels))


ACTIONS = {
    **{"split": split, "pretrain": pretrain, "skeleton": skeleton, "recipe": recipe, "embed": embed, "cluster": cluster},
    **{"validate": validate, "tune": tune, "head": head, "evaluate": evaluate},
    "interim_head": interim_head,
}


# The seam


def dvc_of(layout: Layout) -> FakeDvc:
    return FakeDvc(layout, ACTIONS)


def _run(layout: Layout, command: str, *arguments: str) -> None:
    names = [argument for argument in arguments if not argument.startswith("--")]
    if command == "repro":
        dvc_of(layout).repro(names, single="--single-item" in arguments)
    elif command == "checkout":
        dvc_of(layout).checkout(names)
    else:
        raise AssertionError(f"the fake knows no dvc {command}")


def _run_chains(layout: Layout, shares: Sequence[Sequence[str]], gpus: int = 0) -> dict[str, float]:
    names = [name for share in shares for name in share]
    dvc_of(layout).run_stages(names)
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


@contextlib.contextmanager
def fakes(temporary: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let the product's code run on fake projects. Args: temporary: an empty folder for temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dvc, "run", _run)
        patch.setattr(dvc, "status", lambda layout: dvc_of(layout).status())
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
        patch.setattr(yaml, "safe_load", _remembered(yaml.safe_load))
        patch.setattr(yaml, "load", _remembered(yaml.load))
        patch.setattr("tempfile.tempdir", str(temporary))
        for name in ("PREFECT_HOME", "DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR"):
            patch.setenv(name, str(temporary / "nothing"))
        yield patch


def _remembered(load: Callable[..., Any]) -> Callable[..., Any]:
    """PyYAML takes most of a fake forget's time for the same few texts."""
    known: dict[tuple[Any, ...], str] = {}

    def remembering(text: Any, *loader: Any, **named: Any) -> Any:
        key = (text, *loader, *named.values())
        if key not in known:
            known[key] = json.dumps(load(text, *loader, **named))
        return json.loads(known[key])  # a tree of its own: whoever asked may change it

    return remembering


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

    def submit(self, *people: str, request_id: str | None = None, include_public: bool = False, solved: bool = True) -> Request:
        with self.process() as project:
            request = intake.receive(project, people, request_id or str(uuid.uuid4()), include_public)
            return intake.take_effect(project, intake.validate(project, request, people), solved)

    def resume(self) -> list[Request]:
        with self.process() as project, workspace(project):
            return coordinator.run_open(project, retry_failed=True)

    def sweep(self) -> list[Request]:
        with self.process() as project, workspace(project):
            return coordinator.run_open(project)

    def forget(self, *people: str) -> Request:
        request = self.submit(*people, solved=False)
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
        told: dict[str, Any] = json.loads(output)
        return told

    def refused(self, status: int, *arguments: str) -> str:
        """The one line of a command that must be refused with this status; it names nobody."""
        found, output, complaint = self.command(*arguments)
        lines = [line for line in complaint.splitlines() if line.startswith("error: ")]
        assert (found, len(lines)) == (status, 1), complaint
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
