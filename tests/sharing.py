"""What is built once: by the first worker that needs it, for all of them, and for later sessions while nothing has changed."""

import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

import preloading
import pytest
from sandbox import REPOSITORY

from lmeraser.core.determinism import PINS
from lmeraser.core.digest import sha256, sha256_of_file

PARTS = ("lmeraser", "flows", "stages", "data", "params.yaml", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore")
MAKERS = ("tests/pipeline/conftest.py", *(f"tests/{name}.py" for name in ("sandbox", "scene", "sharing")))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def key(makers: tuple[Path, ...]) -> str:
    """Digest of what decides a built project: code, params, sources; who makes it; libraries; the processor and its pins."""
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS, *MAKERS],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    files = [REPOSITORY / name for name in sorted({*listed} - {""})] + [*makers]
    code = [f"{path.relative_to(REPOSITORY)} {sha256_of_file(path)}" for path in files if path.is_file()]
    libraries = sorted(f"{each.metadata['Name']} {each.version}" for each in distributions())
    processor = Path("/proc/cpuinfo")
    flags = [line for line in processor.read_text().splitlines() if line.startswith(("flags", "model name"))][:2]
    pins = [f"{name}={os.environ.get(name)}" for name in PINS] + [f"cold={preloading.cold()}"]
    return sha256("\n".join([*code, *libraries, platform.python_version(), *flags, *pins]).encode())[:24]


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None], *makers: Path) -> Path:
    """A folder that `make` fills, in this session's temporary files. Never change it.

    Made once a session, whichever worker comes first, and copied from the machine's temporary files where an earlier session
    made the same. Not in `.pytest_cache`: the scan of an erasure in the repository itself would find its people there.

    Args: makers: more files that decide what it is.
    """
    base = factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, kept = root / f"shared-{name}", Path(tempfile.gettempdir()) / f"lmeraser-tests-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    with locked(root / f"{name}.lock"), locked(kept / f"{name}.lock"):
        if folder.exists():
            return folder
        stored = kept / f"{name}-{key(makers)}"
        if not stored.exists():
            draft = root / f"draft-{name}"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            make(draft)
            for old in (*kept.glob(f"{name}-*"), kept / f".{name}"):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(draft, kept / f".{name}", symlinks=True)
            (kept / f".{name}").rename(stored)
            shutil.rmtree(draft)
        copy = root / f"copy-{name}"
        shutil.copytree(stored, copy, symlinks=True)
        return copy.rename(folder)
