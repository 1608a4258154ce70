"""Checks of the machine: packages, processor, bits, GPU, disk. They need no project."""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.doctor.checkup import Look, fine, warn, wrong

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Results = Sequence[tuple[str, str, str]]
SPACE = 2 * 2**30  # bytes; what a build and a purge need beside the data at the least
TIMES = 3  # a build, its copy in the cache, and a drill's copy of both
INODES = 10_000
INSTALL = "pip install -c constraints.txt -e . (or `make install`)"
SHOWN = 4  # packages that a line names


def machine_checks(pins: Path | None, device: str, place: Path, built: int) -> list[tuple[str, Look]]:
    """Args: pins: constraints.txt; device: as params say; place: whose disk counts; built: bytes of what is built there."""
    return [
        ("python", _python),
        ("packages", lambda: [*_requirements(), *(_pins(pins) if pins else ())]),
        ("processor", _processor),
        ("bits", _bits),
        ("gpu", lambda: _gpu(device)),
        ("disk", lambda: _disk(place, built)),
    ]


def _python() -> Results:
    own = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    if not supported:
        return [wrong(f"{own}, expected 3.11 to 3.13", "make the environment anew with one of them")]
    return [fine(own), *_bytecode()]


def _bytecode() -> Results:
    """A package manager may install without it; where it may not be kept either, an erasure took five times as long."""
    if not sys.dont_write_bytecode or all(map(_is_compiled, ("pandas", "lmeraser"))):
        return []
    return [warn("every process compiles all that it imports, and may not keep it", "unset PYTHONDONTWRITEBYTECODE")]


def _is_compiled(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return bool(found and found.cached and Path(found.cached).exists())


def _requirements() -> Results:
    """What the package asks for against what is installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in requires("lmeraser") or ()]
    except PackageNotFoundError:
        return [warn("lmeraser itself is not installed here", f"its code runs by PYTHONPATH; else {INSTALL}")]
    own = [requirement for requirement in wanted if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    missing = [item.name for item in own if _installed(item.name) is None]
    unfit = _of_other_versions(own)
    if missing or unfit:
        what = [f"missing: {_some(missing)}"] * bool(missing) + [f"of another version than needed: {_some(unfit)}"] * bool(unfit)
        return [wrong("; ".join(what), INSTALL)]
    return [fine(f"{len(own)} needed, all there")]


def _pins(pins: Path) -> Results:
    """Versions that were tested against what is installed: others work, and have bits of their own."""
    from packaging.requirements import Requirement

    if not pins.is_file():
        return []
    lines = (line.split("#")[0].strip() for line in pins.read_text(encoding="utf-8").splitlines())
    tested = [item for item in map(Requirement, filter(None, lines)) if item.marker is None or item.marker.evaluate()]
    others = _of_other_versions(tested)
    if not others:
        return [fine("all as pinned in constraints.txt")]
    return [warn(f"{len(others)} of another version than pinned: {_some(others)}", f"for the tested set: {INSTALL}")]


def _of_other_versions(wanted: "Sequence[Requirement]") -> list[str]:
    """Names of what is installed, but not as asked for."""
    return [item.name for item in wanted if (own := _installed(item.name)) and not item.specifier.contains(own, prereleases=True)]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def _processor() -> Results:
    from lmeraser.learn.environment import network_environment

    facts = network_environment("cpu")
    cores = len(os.sched_getaffinity(0))
    return [fine(f"{cores} cores, {facts['torch_instructions']}; auto means {facts['precision']} here")]


def _bits() -> Results:
    """Known answers twice: a processor or library that answers differently the second time can keep no promise."""
    from lmeraser.core.environment import known_answers
    from lmeraser.learn.environment import network_answers

    first, again = [(known_answers.__wrapped__(), network_answers("cpu")) for _ in range(2)]
    if first != again:
        return [wrong("the same computation gave two answers", "do not train here: check memory, drivers and pinned variables")]
    return [fine(f"known answers {first[0]} (numpy), {first[1]} (torch), twice the same")]


def _gpu(device: str) -> Results:
    from lmeraser.core.environment import require_gpu
    from lmeraser.learn.environment import network_environment

    if device == "cuda":
        require_gpu()
        facts = network_environment("cuda")
        return [
            fine(
                f"{facts['gpu']}, driver {facts['gpu_driver']}; bits of a GPU are its own: audit --rebuild before you rely on it"
            )
        ]
    import torch

    seen = torch.cuda.is_available()
    return [fine("there is one; params.yaml computes on the processor" if seen else "none, and none is needed")]


def _disk(place: Path, built: int) -> Results:
    needed = max(SPACE, TIMES * built)
    results = []
    for what, folder in (("project", place), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        inodes = os.statvfs(folder)
        text = f"{what}: {free / 10**9:.1f} GB free"
        if free < needed:
            advice = f"a build and its purge may need {needed / 10**9:.1f} GB; free some"
            results.append(warn(text, advice + (", or set TMPDIR" if what != "project" else "")))
        elif inodes.f_files and inodes.f_favail < INODES:
            results.append(warn(f"{what}: {inodes.f_favail} files more fit on it", "free some inodes: delete many small files"))
        else:
            results.append(fine(text))
    return results
