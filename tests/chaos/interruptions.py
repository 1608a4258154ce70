"""Somebody tidies up: a request is killed at a state, git, dvc or an editor move the ground under it, and `resume` goes on.

    python tests/chaos/interruptions.py --times 30 --seed 0

After each: certified, or refused with a line whose way out leads there; never a certificate that is not true. What is true is
decided by the parts, the list, the artifacts that the certificate names, and a rebuild from the retained records. One line each,
one JSON object at the end.
"""

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pyarrow.parquet as pq
from campaign import built, copy, descendants, kill, start, states
from sandbox import Sandbox

from lmeraser.pipeline.locks import read_files

STATES = ("quarantined", "removed", "retrained", "verified", "purged")
MOVES = ("reset", "stash", "branch", "other model", "params", "rows", "list alone", "locks alone")
LATER = 4  # ways out that may be named one after the other
STOPPED = 400.0  # s that a state may take to come


def git(project: Sandbox, *arguments: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(["git", "-C", str(project.root), *author, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def prepared(folder: Path) -> Sandbox:
    """The small project, built and committed; and a branch `other` with a model of other params, also built."""
    project = built(folder)
    git(project, "checkout", "-q", "-B", "main")
    git(project, "add", "--all")
    git(project, "commit", "-q", "-m", "everybody")
    git(project, "checkout", "-q", "-b", "other")
    project.set_params(tune={"epochs": 2})
    done = project.lmeraser("build")
    assert done.returncode == 0, done.stderr
    git(project, "commit", "-q", "-a", "-m", "other params")
    git(project, "checkout", "-q", "main")
    project.dvc("checkout", "--quiet")
    return project


def stop_at(project: Sandbox, request: str, person: str, state: str) -> bool:
    """Start an erasure and kill all of it once the ledger says that it is at a state; False if it was over before."""
    process = start(project, "-m", "flows.cli", "forget", "--subject", person, "--request-id", request)
    deadline = time.monotonic() + STOPPED
    while process.poll() is None and states(project).get(request) != state:
        assert time.monotonic() < deadline, f"never at {state}"
        time.sleep(0.005)
    running = process.poll() is None
    for pid in [process.pid, *descendants(process.pid)]:
        kill(pid)
    process.wait()
    return running


def move(project: Sandbox, what: str) -> None:
    """What people do in between."""
    if what in ("reset", "stash", "branch"):
        git(
            project,
            *{"reset": ["reset", "-q", "--hard"], "stash": ["stash", "-q"], "branch": ["checkout", "-q", "-f", "main"]}[what],
        )
        project.python("-m", "dvc", "checkout", "--quiet", "--force")
    elif what == "other model":
        git(project, "checkout", "-q", "-f", "other")
        project.python("-m", "dvc", "checkout", "--quiet", "--force")
    elif what == "params":
        project.set_params(serve={"mix": 0.5})
    elif what == "rows":
        manifest = project.root / "people" / "manifest.csv"
        lines = manifest.read_text().splitlines()
        taken = [line for line in lines[1:] if ",private,train" in line][:3]
        fields = [line.split(",") for line in taken]
        for path, *_ in fields:
            copied = project.root / "people" / path.replace(".png", "-again.png")
            copied.write_bytes((project.root / "people" / path).read_bytes())
        added = [",".join([f[0].replace(".png", "-again.png"), f[1], "kanarienvogel-newcomer", *f[3:]]) for f in fields]
        manifest.write_text("\n".join([*lines, *added]) + "\n")
    elif what == "list alone":
        git(project, "checkout", "-q", "--", "data/erased.json")
    elif what == "locks alone":
        git(project, "checkout", "-q", "--", "dvc.lock")


def finish(project: Sandbox, request: str) -> tuple[int, str]:
    """`resume`, and whatever way out its line names; returns how many were taken, and the last line where it did not end well."""
    for taken in range(LATER):
        done = project.lmeraser("resume")
        if states(project).get(request) == "certified":
            return taken, ""
        line = next((line for line in done.stderr.splitlines() if line.startswith("error:")), done.stderr[-300:])
        if "dvc checkout" in line:
            project.python("-m", "dvc", "checkout", "--quiet", "--force")
        elif "dvc repro" not in line:
            return taken, line
        project.python("-m", "dvc", "repro", "--quiet")
    return LATER, line


def falsehoods(project: Sandbox, request: str, person: str, audits: Sequence[str] = ("--rebuild", "--stores")) -> Iterator[str]:
    """Why the certificate of a request is not true. Args: audits: what `lmeraser audit` is asked for."""
    path = next((project.root / "certificates").glob(f"*-{request}.json"), None)
    if path is None:
        yield "no certificate"
        return
    predicate: dict[str, Any] = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))["predicate"]
    parts = sorted((project.root / "artifacts" / "split" / "private").glob("*.parquet"))
    if not parts or any(person in pq.read_table(part, columns=["subject"])["subject"].to_pylist() for part in parts):
        yield "a part holds the person"
    if not set(predicate["subjects"]) <= set(json.loads((project.root / "data" / "erased.json").read_bytes())["subjects"]):
        yield "the list lacks the person"
    after = {path: digests["after"] for path, digests in predicate["artifacts"].items() if digests["after"]}
    if read_files(project.root, after) != after:
        yield "artifacts are not those that it names"
    if project.lmeraser("verify", *map(str, sorted(path.parent.glob("*.json")))).returncode:
        yield "it does not verify"
    audit = project.lmeraser("audit", *audits, "--json")
    if audit.returncode:
        yield f"the audit: {audit.stdout[-300:]} {audit.stderr[-300:]}"


def interruptions(times: int, seed: int, cases: list[tuple[str, str]] | None = None) -> dict[str, Any]:
    """Returns what was seen. Args: cases: state and move of each; drawn if there are none."""
    dice = random.Random(seed)
    drawn = cases or [(STATES[number % len(STATES)], dice.choice(MOVES)) for number in range(times)]
    seen: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lmeraser-moved-") as name:
        folder = Path(name)
        project = prepared(folder)
        for number, (state, what) in enumerate(drawn):
            victim = copy(project, folder / "victim")
            request, person = f"5eed0000-0000-4000-8000-{number:012}", dice.choice(victim.people())
            stopped = stop_at(victim, request, person, state)
            move(victim, what)
            taken, line = finish(victim, request)
            problem = line or "; ".join(falsehoods(victim, request, person))
            seen[f"{taken} ways out taken"] += 1
            if problem:
                problems.append(f"{state}, {what}: {problem}")
            print(f"{number + 1}: {state}{'' if stopped else ' (over before)'}, {what}: {problem or 'true'}", flush=True)
    return {"times": len(drawn), "seen": dict(seen), "problems": problems, "seed": seed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Move the ground under requests, and check that no certificate is false.")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = interruptions(options.times, options.seed)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["problems"] else 0)
