"""What earlier requests cost a new one: each left versions of the locks in git, and a purge reads all of them.

Synthetic: the locks of a project of many slots, committed once for each earlier request, of which one part and one slot changed.
What is measured is what a plan of a purge does with them (`gather` and both questions of `condemn`), in a process of its own.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.lab.report import table
from lmeraser.core.params import slot_name
from lmeraser.pipeline.files import LOCK, ROOT_FILE, SLOTS_A_FILE, slots_file
from lmeraser.pipeline.locks import SCHEMA

CODE = 40  # files of code that a stage of the root file reads
PARTS = 4
PLAN = """
import json, resource, sys, time
from pathlib import Path
from flows.purge.lineage import gather
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import condemn
def spent():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
before, start = spent(), time.perf_counter()
lineage = gather(Layout(Path(sys.argv[1])))
for trusted in (True, False):
    condemned = condemn(lineage.stage_runs, lineage.manifests, [sys.argv[2]], lineage.live, trusted=trusted)
assert condemned.objects
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"cpu": spent() - before, "wall": time.perf_counter() - start, "peak_gib": peak}))
"""


@dataclass(frozen=True)
class Run:
    """Attributes: requests: earlier ones; cpu, wall: seconds; peak_gib: of memory."""

    requests: int
    slots: int
    cpu: float
    wall: float
    peak_gib: float


def md5(*names: object) -> str:
    return hashlib.md5(" ".join(map(str, names)).encode(), usedforsecurity=False).hexdigest()


def _item(path: str, content: str) -> str:
    return f"    - path: {path}\n      hash: md5\n      md5: {content}\n      size: {len(path)}\n"


def _stage(name: str, command: str, deps: Sequence[tuple[str, str]], outs: Sequence[tuple[str, str]]) -> str:
    sides = "".join(
        f"    {side}:\n" + "".join(_item(*pair) for pair in pairs) for side, pairs in (("deps", deps), ("outs", outs))
    )
    return f"  {name}:\n    cmd: python -m stages.{command}\n{''.join(sides)}"


def root_lock(version: int) -> str:
    """Args: version: how many requests there were: each changed one part."""
    code = [(f"lmeraser/room/file{number}.py", md5("code", number)) for number in range(CODE)]
    # How often each part was changed by then.
    times = [(version + PARTS - 1 - part) // PARTS for part in range(PARTS)]
    records = [(f"artifacts/split/p{part:02d}.parquet", md5("records", part, count)) for part, count in enumerate(times)]
    placed = [(f"artifacts/embed/p{part:02d}/leaves.parquet", md5("leaves", part, count)) for part, count in enumerate(times)]
    stages = [_stage("split", "split", [("data/erased.json", md5("erased", version)), *code], records)]
    stages += [
        _stage(f"embed@p{part:02d}", f"embed p{part:02d}", [records[part], *code], [placed[part]]) for part in range(PARTS)
    ]
    clusters = ("artifacts/cluster/clusters.json", md5("clusters", version))
    tuned = ("artifacts/tune", md5("all tuned", version) + ".dir")
    stages.append(_stage("cluster", "cluster now", [("artifacts/embed", md5("all", version) + ".dir"), *code], [clusters]))
    stages.append(_stage("evaluate", "evaluate now", [clusters, tuned, *code], [("metrics/metrics.json", md5("m", version))]))
    return SCHEMA + "".join(stages)


def slots_lock(number: int, slots: int, changed: Sequence[int]) -> str:
    """Of one file of slots. Args: changed: how often each slot was."""
    stages = []
    for slot in range(number * SLOTS_A_FILE, min((number + 1) * SLOTS_A_FILE, slots)):
        name, count = slot_name(slot), changed[slot]
        deps = [(f"artifacts/cluster/members/{name}.parquet", md5("members", slot, count))]
        stages.append(
            _stage(f"tune@{name}", f"tune {name}", deps, [(f"artifacts/tune/{name}.safetensors", md5("t", slot, count))])
        )
    return SCHEMA + "".join(stages)


def _states(requests: int, slots: int) -> Iterator[dict[str, str]]:
    """The locks that each request changed, by path; first all."""
    changed = [0] * slots
    files = -(-slots // SLOTS_A_FILE)
    locks = [slots_file(number).replace(ROOT_FILE, LOCK) for number in range(files)]
    yield {LOCK: root_lock(0)} | {locks[number]: slots_lock(number, slots, changed) for number in range(files)}
    for request in range(1, requests + 1):
        slot = request * 7919 % slots  # a prime: they are spread
        changed[slot] += 1
        number = slot // SLOTS_A_FILE
        yield {LOCK: root_lock(request), locks[number]: slots_lock(number, slots, changed)}


def write(root: Path, requests: int, slots: int) -> None:
    """A repository with a commit for each request. Args: root: an empty folder."""
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    stream = bytearray()
    for version, locks in enumerate(_states(requests, slots)):
        pipelines = {path.replace(LOCK, ROOT_FILE): "stages: {}\n" for path in locks} if version == 0 else {}
        stream += f"commit refs/heads/main\ncommitter bench <bench@localhost> {version} +0000\ndata 1\nx\n".encode()
        for path, text in (locks | pipelines).items():
            stream += f"M 100644 inline {path}\ndata {len(text)}\n{text}\n".encode()
    subprocess.run([*git, "fast-import", "--quiet"], input=bytes(stream), check=True)
    subprocess.run([*git, "reset", "--quiet", "--hard", "main"], check=True)
    (root / ".dvc" / "cache").mkdir(parents=True)


def measure(requests: int, slots: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="lmeraser-history-") as name:
        root = Path(name)
        write(root, requests, slots)
        # What lay in a part before its last change: it and what was made of it must go.
        script = [sys.executable, "-c", PLAN, name, md5("records", 0, 0)]
        told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        return Run(requests, slots, **{what: round(value, 2) for what, value in json.loads(told).items()})


def markdown(runs: Sequence[Run]) -> list[str]:
    header = ["earlier requests", "slots", "processor s", "wall s", "GiB"]
    return [__doc__ or "", table(header, [list(asdict(run).values()) for run in runs])]
