"""What git knows of the locks and `.dvc` files at any path of the repository: every ref, stash, reflog and index, and the files
of each of its worktrees.

A history that cannot be read is not an empty one: what older commits name could then be taken for something that nobody names. So
it is told as a problem (`Repository.problem`), never as "nothing known".
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from flows import git, processes
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import LOCK
from lmeraser.stores.folder import FolderStore

RAW = re.compile(r"^:(\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) \w+\t(.*)$", re.MULTILINE)
FILES = ("--", f":(top,glob)**/{LOCK}", ":(top,glob)**/*.dvc")
SUBMODULE = "160000"
# What would change or hide history, or wait for a network and a person.
QUIET = {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
SHALLOW = f"the clone is shallow; run `{git.UNSHALLOW}`"
FOREIGN = "git refuses a folder of another owner; run `git config --global --add safe.directory` with the repository's folder"
PARTIAL = "objects are missing, as in a partial clone; run `git fetch --refetch --no-filter`, or clone again"
BROKEN = "git cannot open the repository; mend it (`git status` says what is wrong), or restore .git from your backup"
ABSENT = "the program git is missing; install it"
Blob = tuple[str, str]  # (path relative to the project, git's id)


def is_ours(name: str) -> bool:
    """Whether a path is that of a lock, of any pipeline, or of a `.dvc` file."""
    return PurePosixPath(name).name == LOCK or name.endswith(".dvc")


@dataclass(frozen=True)
class Repository:
    """The git repository that a project lies in, if there is one.

    Attributes: usable: whether git can be asked; problem: why its history is not whole, and what to do; "" if it is whole.
    """

    layout: Layout
    usable: bool
    problem: str

    @classmethod
    def of(cls, layout: Layout) -> "Repository":
        there = any(os.path.lexists(folder / ".git") for folder in (layout.root.absolute(), *layout.root.absolute().parents))
        try:
            asked = _run(layout.root, "rev-parse", "--git-dir", "--is-shallow-repository")
        except FileNotFoundError:
            return cls(layout, False, ABSENT if there else "")
        if asked.returncode == 0:
            return cls(layout, True, SHALLOW if asked.stdout.split()[-1:] == [b"true"] else "")
        if b"dubious ownership" in asked.stderr or b"safe.directory" in asked.stderr:
            return cls(layout, False, FOREIGN)
        return cls(layout, False, BROKEN if there or b"not a git repository" not in asked.stderr else "")

    def ask(self, *arguments: str, given: bytes = b"", folder: Path | None = None) -> str:
        """What git prints; bytes that are no UTF-8 as Python keeps them in names. Raises: StepFailedError."""
        return os.fsdecode(self._bytes(*arguments, given=given, folder=folder))

    def _bytes(self, *arguments: str, given: bytes = b"", folder: Path | None = None) -> bytes:
        done = _run(folder or self.layout.root, *arguments, given=given)
        if done.returncode:
            raise StepFailedError(
                f"git {arguments[0]} failed ({done.returncode}): the history of dvc.lock cannot be read; mend it and retry"
            )
        return done.stdout

    @cached_property
    def prefix(self) -> str:
        """The project's folder below the repository's: `` or `sub/folder/`."""
        return self.ask("rev-parse", "--show-prefix").rstrip("\n")

    def _near(self, name: str) -> str:
        """A path of the repository, relative to the project; what lies outside begins with `../`."""
        inside = name.startswith(self.prefix)
        return name[len(self.prefix) :] if inside else os.path.relpath(name, self.prefix)

    def commits(self) -> tuple[list[str], set[Blob]]:
        """The commits that touch a lock or a `.dvc` file, and every blob that lay at such a path. Raises: StepFailedError."""
        log = ("--all", "--reflog", "--full-history", "-m", "--no-renames", "--format=%x00%H", "--raw", "--no-abbrev", *FILES)
        commits: dict[str, None] = {}
        blobs: set[Blob] = set()
        for part in self.ask("log", *log).split("\0")[1:]:
            commits[part.split("\n", 1)[0]] = None
            for old_mode, new_mode, old, new, path in RAW.findall(part):
                sides = ((old_mode, old), (new_mode, new))
                blobs |= {(self._near(path), blob) for mode, blob in sides if set(blob) != {"0"} and mode != SUBMODULE}
        return list(commits), blobs

    def listed(self, commits: Iterable[str], paths: Iterable[str]) -> Iterator[set[Blob]]:
        """Which blob lies at which of the paths (of the project) in each commit. Raises: StepFailedError."""
        asked = [(commit, path) for commit in commits for path in sorted(paths)]
        if not asked:
            return
        given = b"".join(os.fsencode(f"{commit}:{self.prefix}{path}\n") for commit, path in asked)
        answers = self.ask("cat-file", "--batch-check=%(objecttype) %(objectname)", given=given).splitlines()
        listed: dict[str, set[Blob]] = {}
        for (commit, path), line in zip(asked, answers, strict=True):
            kind, _, identity = line.partition(" ")
            if kind == "blob":
                listed.setdefault(commit, set()).add((path, identity))
        yield from listed.values()

    @cached_property
    def worktrees(self) -> list[Path]:
        """The project's folder in every worktree that is there, this one first."""
        here = self.layout.root.resolve()
        lines = self.ask("worktree", "list", "--porcelain").splitlines()
        tops = [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
        others = [folder for top in tops if (folder := (top / self.prefix).resolve()) != here and (top / ".git").exists()]
        return [here, *(folder for folder in others if folder.is_dir())]

    def index(self, worktree: Path) -> set[Blob]:
        """Raises: StepFailedError."""
        staged: set[Blob] = set()
        for line in self.ask("ls-files", "--full-name", "--stage", *FILES, folder=worktree).splitlines():
            mode, identity, *_ = line.split()
            staged |= {(self._near(line.partition("\t")[2]), identity)} if mode != SUBMODULE else set()
        return staged

    def files(self, worktree: Path) -> dict[str, Path]:
        """Locks and `.dvc` files that lie in a worktree now, tracked, untracked or ignored: by path relative to the project."""
        names = self.ask("ls-files", "-z", "--full-name", "--cached", "--others", *FILES, folder=worktree).split("\0")
        top = Path(os.path.normpath(worktree / os.path.relpath(".", self.prefix or ".")))
        return {self._near(name): top / name for name in names if name and (top / name).is_file()}

    def read(self, blobs: Iterable[Blob]) -> tuple[dict[str, bytes], bool]:
        """Contents by git's id, and whether all were there. Raises: StepFailedError."""
        wanted = sorted({identity for _, identity in blobs})
        texts: dict[str, bytes] = {}
        if not wanted:
            return texts, True
        answer, at = self._bytes("cat-file", "--batch", given="\n".join(wanted).encode() + b"\n"), 0
        while at < len(answer):
            end = answer.index(b"\n", at)
            identity, kind, *size = answer[at:end].decode().split()
            at = end + 1
            if size:
                if kind == "blob":
                    texts[identity] = answer[at : at + int(size[0])]
                at += int(size[0]) + 1
        return texts, len(texts) == len(wanted)


def _run(folder: Path, *arguments: str, given: bytes = b"") -> processes.Completed:
    settings = ("-c", "log.showRoot=true", "-c", "core.quotePath=false")
    return git.run(folder, *settings, *arguments, given=given, variables=QUIET)


def walked(root: Path) -> dict[str, Path]:
    """Locks and `.dvc` files below a folder that git does not know."""
    tree = FolderStore("workspace", root, skip=frozenset({".dvc", ".git", ".lmeraser"}))
    return {entry.key: root / entry.key for entry in tree.entries() if is_ours(entry.key) and (root / entry.key).is_file()}
