"""Results as Markdown for people and JSON for programs, each with the command, the revision and the environment."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from bench.lab import RESULTS, ROOT
from lmeraser.core.code import code_digest
from lmeraser.core.digest import readable_json
from lmeraser.core.files import write_atomically
from lmeraser.learn.environment import network_environment


def revision() -> str:
    """The commit, and whether tracked files of the measured code differ from it."""
    if not (ROOT / ".git").exists():
        return "unknown (no git folder)"
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown (git does not answer)"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "lmeraser", "params.yaml"], cwd=ROOT, check=False)
    return head.stdout.strip() + (" with local changes" if changed.returncode else "")


def processor() -> str:
    """The processor's name, for people: bits depend on what the libraries use of it, which the environment says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command_line() -> str:
    """The command that runs, as people write it: `python -m bench.compare`, not the room's `bench.compare.__main__`."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else "?"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


class Provenance(TypedDict):
    command: str
    revision: str
    code: str
    processor: str
    cores: int
    environment: Mapping[str, str]


def provenance() -> Provenance:
    """What a reader needs to run it again."""
    return {
        "command": command_line(),
        "revision": STARTED[0],
        "code": STARTED[1],
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "environment": network_environment("cpu"),
    }


# Taken when the bench starts: the tree may change while it runs, the code that it has loaded does not.
STARTED = (revision(), code_digest(ROOT)[:12])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers are the caller's to format."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_report(name: str, title: str, body: Sequence[str], facts: Mapping[str, object]) -> Path:
    """Write bench/results/NAME.md and NAME.json.

    Args: body: Markdown paragraphs and tables; facts: every number behind them.
    """
    made = provenance()
    where = made["environment"]
    versions = ", ".join(f"{key} {where[key]}" for key in ("torch", "timm", "numpy", "scikit-learn"))
    origin = (
        f"`{made['command']}` at revision {made['revision']} (when it started; files of lmeraser and stages: {made['code']}); "
        f"{processor()}, {made['cores']} cores, Python {where['python']}, {versions}."
    )
    text = "\n\n".join([f"# {title}", origin, *body]) + "\n"
    write_atomically(RESULTS / f"{name}.json", readable_json({**made, "results": facts}))
    write_atomically(RESULTS / f"{name}.md", text.encode())
    print(text)
    return RESULTS / f"{name}.md"
