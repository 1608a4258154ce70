"""What `dvc status --json TARGET...` prints, in half of the time: `python -m flows.dvc.status TARGET...`; of all without one.

DVC notes for each stage that it reads its files and that it has done so, in a file that it reads and writes each time. Here it
holds the repository's lock throughout, under which no stage begins to run, and looks once whether one runs already; if so,
everything is as DVC does it.

Whatever goes wrong, it ends with a status that is not 0: whoever called asks `dvc status`, which says what is wrong.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flows.dvc.once import KNOWN, hash_each_path_once
from flows.dvc.record import stages_at

FAILED = 1


def is_free(rwlock: Path) -> bool:
    """Whether no DVC reads or writes a stage's files. Raises: OSError, ValueError."""
    if not rwlock.exists():
        return True
    held = json.loads(rwlock.read_bytes())
    return isinstance(held, dict) and not any(held.values())


def stale_of(repo: Any, targets: Sequence[str]) -> dict[str, Any]:
    """As `Repo.status` of some stages, of all if none are named; which looks for each target among all stages anew."""
    if not targets:
        return dict(repo.status())
    stale: dict[str, Any] = {}
    for _, stage in stages_at(repo, targets):
        stale |= stage.status(check_updates=True)
    return stale


def main() -> int:
    import dvc

    if dvc.__version__ not in KNOWN:
        return FAILED
    try:
        import dvc.rwlock as locks
        from dvc.repo import Repo, lock_repo

        hash_each_path_once(staging=True)
        with Repo() as repo, lock_repo(repo):
            if is_free(Path(str(repo.tmp_dir)) / locks.RWLOCK_FILE):
                locks.rwlock = lambda *_: nullcontext()
            print(json.dumps(stale_of(repo, sys.argv[1:])))
    except Exception:  # its text may name a file of somebody's
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
