"""What `dvc commit --force` records, with one read and one write of each lock: `python -m flows.dvc.record TARGET...`.

DVC reads and writes the whole lock for each target, in pure Python: with 7 targets that was four fifths of its time. Here DVC's
own classes hash, copy to the cache, leave run entries and say what a lock holds of a stage; the texts of all stages are then put
into each lock at once. A lock that is not written as DVC writes it is left to DVC's own parser.

DVC's classes are internal. So this is a child process as `dvc` is, holds DVC's locks, and goes on only with the version that the
tests compare it with. Whatever goes wrong, it ends with a status that is not 0 before it has written a lock, or between two:
whoever called runs `dvc commit`, which does all of it again and says what is wrong (`flows/dvc/command.py`).
"""

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.dvc.once import KNOWN, hash_each_path_once, leave_links_of_ours_alone
from lmeraser.core.files import write_atomically
from lmeraser.pipeline.locks import SCHEMA, written_entries

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

FAILED = 1
Entry = dict[str, Any]  # what a lock says of one stage, by its name


def place_of(target: str, default: str) -> tuple[str, str]:
    """The pipeline file of a target, and the stage's name in it; no name: all of the file's stages.

    Args: target: `split`, `tune/03/dvc.yaml:tune@c123` or a whole file, `tune/03/dvc.yaml`.
    """
    if target.endswith(".yaml"):
        return target, ""
    file, _, name = target.rpartition(":")
    return file or default, name


def stages_at(repo: Any, targets: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The stages of targets with their pipeline files, each of which is loaded once.

    In the order of the targets, whatever file they are of: a stage may read what another one makes.
    """
    from dvc.dvcfile import PROJECT_FILE, load_file

    files: dict[str, Any] = {}
    for file, name in (place_of(target, PROJECT_FILE) for target in targets):
        if file not in files:
            files[file] = load_file(repo, file).stages
        yield from ((file, files[file][stage]) for stage in ([name] if name else files[file]))


def with_entries(text: str, entries: Iterable[Entry], serialise: Callable[[Entry], str]) -> str:
    """A lock's text with the entries of some stages: a known one in its old place, a new one at the end, as DVC has it.

    Args: serialise: how DVC writes a lock.
    Raises: ValueError if the text is not as DVC writes it.
    """
    written = written_entries(text) if text.strip() else {}
    for entry in entries:
        # Of its own, in one call each: ruamel would write a value that two stages share as a reference to the first.
        made = written_entries(serialise({"schema": "2.0", "stages": entry}))
        if made.keys() != entry.keys():
            raise ValueError("a stage's name is not as DVC writes it")
        written |= made
    return SCHEMA + "".join(written.values())


def write(lock: Path, entries: list[Entry], serialise: Callable[[Entry], str]) -> None:
    """Put entries into a lock, which is the old one or the new one at every moment."""
    before = lock.read_text(encoding="utf-8") if lock.exists() else ""
    try:
        text = with_entries(before, entries, serialise)
    except ValueError:
        from dvc.utils.serialize import modify_yaml

        with modify_yaml(str(lock)) as data:
            data.setdefault("schema", "2.0")
            data["stages"] = data.get("stages", {})
            for entry in entries:
                data["stages"].update(copy.deepcopy(entry))
        return
    if text != before:
        write_atomically(lock, text.encode(), mode=lock.stat().st_mode & 0o777 if lock.exists() else 0o644)


def _save(stage: "PipelineStage") -> Entry:
    """Hash what a stage read and made, copy it to the cache; what its lock then says of it."""
    from dvc.stage.serialize import to_lockfile

    stage.save()
    stage.commit()
    entry: Entry = to_lockfile(stage)
    return entry


def record(targets: list[str]) -> None:
    """As `dvc commit --force` of the targets, in the project of the working folder."""
    from dvc.repo import Repo, lock_repo
    from dvc.utils.serialize import dumps_yaml

    hash_each_path_once(staging=False)
    leave_links_of_ours_alone()
    with Repo() as repo, lock_repo(repo):
        made: dict[Path, list[Entry]] = {}
        for file, stage in stages_at(repo, targets):
            made.setdefault(Path(file).with_suffix(".lock"), []).append(_save(stage))
        for lock, entries in made.items():
            write(lock, entries, dumps_yaml)


def main() -> int:
    import dvc

    if dvc.__version__ not in KNOWN:
        print(f"record: DVC {dvc.__version__} is not the version that this was compared with", file=sys.stderr)
        return FAILED
    try:
        record(sys.argv[1:])
    except Exception as error:  # its text may name a file of somebody's: `dvc commit` says it, to people alone
        print(f"record: {type(error).__name__}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
