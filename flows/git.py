"""Every call of git. What history says of the locks is read in `flows/purge/git_history.py`, by `run`."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from flows import processes
from lmeraser.core.errors import ProjectError, StepFailedError

# `--depth` clones one branch (git-clone(1)), and deepening that leaves the others out.
UNSHALLOW = "git remote set-branches origin '*' && git fetch --unshallow"


def run(
    folder: Path, *arguments: str, given: bytes = b"", variables: Mapping[str, str] = MappingProxyType({})
) -> processes.Completed:
    """What git answers in a folder; its exit status is the caller's to judge.

    Args: given: its standard input; variables: beside those of this process.
    Raises: FileNotFoundError if the program git is missing.
    """
    command = ["git", "-C", str(folder), *arguments]
    return processes.read_only(command, given=given, environment=os.environ | dict(variables))


def change(folder: Path, command: str, *arguments: str, variables: Mapping[str, str] = MappingProxyType({})) -> None:
    """Let git change a repository. Raises: StepFailedError without git's words, which may name a file of somebody's."""
    answer = run(folder, command, *arguments, variables=variables)
    if answer.returncode:
        raise StepFailedError(f"`git {command}` failed with exit status {answer.returncode}; fix the repository and retry")


def _names(answer: processes.Completed) -> list[str]:
    """Paths of a listing with -z; bytes that are no UTF-8 as Python keeps them in names."""
    return [name for name in os.fsdecode(answer.stdout).split("\0") if name]


def tracked(folder: Path) -> frozenset[str]:
    """Paths that git tracks below a folder, relative to it; none where there is no repository."""
    return frozenset(_names(run(folder, "ls-files", "-z")))


def would_keep(folder: Path) -> list[str]:
    """Paths below a folder, relative to it, that git tracks, or would: nothing ignores them. Raises: ProjectError."""
    answer = run(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if answer.returncode:
        raise ProjectError("the project is not in a git repository; run `git init && git add -A && git commit` first")
    return _names(answer)


def versions_of(folder: Path, name: str) -> list[tuple[str, bytes]]:
    """Every content that any branch, tag, stash or reflog knows of a file, or of the files of a folder: name and content, sorted.

    Names are relative to `name`'s repository. Nothing where there is no repository, or no git.
    """
    log = (
        "log",
        "--all",
        "--reflog",
        "--full-history",
        "-m",
        "--no-renames",
        "--format=",
        "--raw",
        "-z",
        "--no-abbrev",
        "--",
        name,
    )
    try:
        answer = run(folder, *log)
    except FileNotFoundError:
        return []
    fields = answer.stdout.decode(errors="surrogateescape").split("\0") if not answer.returncode else []
    named = {(path, entry.split()[3]) for entry, path in pairwise(fields) if entry.lstrip().startswith(":")}
    contents = []
    for path, identity in sorted(named):
        blob = run(folder, "cat-file", "blob", identity) if set(identity) != {"0"} else None
        if blob and not blob.returncode:
            contents.append((path, blob.stdout))
    return contents


def init(folder: Path) -> None:
    """Make a repository of a folder. Raises: StepFailedError."""
    change(folder, "init", "--quiet")


def commit_all(folder: Path, author: str, address: str, message: str) -> None:
    """Commit everything that is not ignored. Raises: StepFailedError."""
    change(folder, "add", "--all")
    who = {"AUTHOR_NAME": author, "AUTHOR_EMAIL": address, "COMMITTER_NAME": author, "COMMITTER_EMAIL": address}
    variables = {f"GIT_{name}": value for name, value in who.items()}
    change(folder, "commit", "--quiet", "--message", message, variables=variables)


def restore(folder: Path, name: str) -> None:
    """Make a file what the index has; a file that git does not track stays as it is."""
    run(folder, "checkout", "--quiet", "--", name)


def revision(folder: Path, code: Sequence[str]) -> str:
    """The checked out commit, marked if files of `code` that git tracks differ from it."""
    head = run(folder, "rev-parse", "HEAD")
    if head.returncode:
        return "none (no commit)"
    changed = run(folder, "status", "--porcelain", "--", *code).stdout.strip()
    return head.stdout.decode().strip() + ("+changed" if changed else "")
