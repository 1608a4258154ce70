"""The door under 100,000 requests drawn from its OpenAPI document: no status above 499, no name back, memory flat.

    python -m bench.door
    python -m bench.door --requests 2000 --project DIR      on a built project, which it copies

The digits project is built in a temporary folder, with approval asked for, so that requests wait and nothing is erased. Requests
go through the application in this process, by the ASGI protocol: routes, tokens, ledger, signatures and log are the real ones, a
socket is not. Names of real people of the data and of nobody are sent; each is a canary that no answer and no line of the log may
hold.

Takes: about ten minutes on two cores.
"""

import contextlib
import itertools
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml
from starlette.testclient import TestClient

from bench.door.fuzz import Fuzzer, fault
from bench.lab import ROOT
from bench.lab.commands import bench_parser
from bench.lab.report import table, write_report
from flows.audit.rebuild import copy_code
from flows.door import signing, tokens
from flows.door.asgi import make_door
from flows.door.guard import Door
from flows.door.tokens import WINDOW, Failures
from flows.project import Project
from lmeraser.core.digest import sha256
from lmeraser.core.layout import Layout
from lmeraser.sources import open_source

URL = "https://door.example"
CANARY = "writer-"  # begins every name of the digits
POINTS = 10  # how often memory is looked at


@dataclass
class Outcome:
    codes: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    seconds: float = 0.0
    in_ledger: int = 0  # requests, at the end


async def public(host: str, _: int) -> list[str]:
    """No name is asked for outside: what begins with `public` is public."""
    if host.startswith("public"):
        return ["93.184.215.14"]
    return ["10.0.0.1"]


def build(folder: Path) -> Path:
    folder.mkdir()
    copy_code(ROOT, folder)
    subprocess.run([sys.executable, "-m", "flows.cli", "build"], cwd=folder, check=True, stdout=sys.stderr)
    return folder


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def fuzz(root: Path, count: int, seed: int) -> Outcome:
    """Send them all. Args: root: a built project, which is changed."""
    params = root / "params.yaml"
    raw = yaml.safe_load(params.read_text())
    raw["service"]["approval"] = True
    params.write_text(yaml.safe_dump(raw, sort_keys=False))
    project = Project(Layout(root))
    source = open_source(project.params.source, root)
    table = source.table()
    subjects = sorted(table["subject"].unique())[:20]
    images = [sha256(source.image(path)) for path in table["path"][:20]]
    labels = sorted(table["label"].unique())
    door = Door(project, signing.own_signer(project.layout, URL), resolver=public)
    door.failures = Failures(itertools.count(0.0, WINDOW / 5).__next__)  # else most answers were 429
    now = datetime.now(UTC)
    scopes = (["submit", "read"], ["submit"], ["read"], ["approve"], ["audit"])
    valid = [tokens.create(door.store, f"client-{place}", chosen, 1, now)[1] for place, chosen in enumerate(scopes)]
    ids = [f"5eed0000-0000-4000-8000-{number:012d}" for number in range(200)]
    outcome = Outcome()
    log = (root.parent / "log").open("w+")  # a file: stages write into it too
    with log, contextlib.redirect_stderr(log), TestClient(make_door(project, door, courier=False), base_url=URL) as web:
        document = web.get("/openapi.json").json()
        fuzzer = Fuzzer(document, seed, CANARY, ids, [*valid, "nonsense"], [*subjects, f"{CANARY}nobody"], images, labels)
        began = time.monotonic()
        for number in range(count):
            sent = fuzzer.draw()
            answer = web.request(sent.method, sent.path, headers=sent.headers, content=sent.content)
            outcome.codes[answer.status_code] += 1
            log.seek(0)
            lines = log.read()
            log.seek(0)
            log.truncate()
            problem = fault(sent, answer, CANARY) or ("a canary in the log" if CANARY in lines else None)
            outcome.faults += [problem] if problem else []
            if (number + 1) % max(count // POINTS, 1) == 0:
                outcome.mebibytes.append(round(resident(), 1))
        outcome.seconds = round(time.monotonic() - began, 1)
    outcome.in_ledger = len(project.ledger.all())
    if CANARY.encode() in door.store.path.read_bytes():
        outcome.faults.append("a canary in door.db")
    return outcome


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("door", __doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path, help="a built project to copy, instead of building one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lmeraser-door-") as folder:
        root = Path(folder) / "project"
        if options.project:
            shutil.copytree(options.project, root, symlinks=True)
        else:
            build(root)
        outcome = fuzz(root, options.requests, options.seed)
    facts = {"requests": options.requests, "seed": options.seed} | vars(outcome)
    facts["codes"] = {str(code): count for code, count in sorted(outcome.codes.items())}
    body = [
        f"{options.requests:,} requests in {outcome.seconds} s; faults: {len(outcome.faults)} "
        f"({', '.join(sorted(set(outcome.faults))) or 'none'}). {outcome.in_ledger} requests are in the ledger.",
        table(("status", "answers"), sorted(outcome.codes.items())),
        f"Memory of the process after each tenth, MiB: {', '.join(map(str, outcome.mebibytes))}.",
    ]
    print("\n\n".join(body))
    write_report("door", "The door, fuzzed", body, facts)
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
