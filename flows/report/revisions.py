"""The state of a project in a commit of git, or in the workspace, as `lmeraser/report/states.py` reads it."""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from flows import git
from lmeraser.core.errors import BadInputError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import LOCK
from lmeraser.pipeline.locks import outs_by_stage, outs_in
from lmeraser.prove.verify import NAME
from lmeraser.report.states import CLASSES, CLUSTERS, METRICS, State, read_state

WORKSPACE = "workspace"
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\+00:00")
SHORT = 12  # hex digits of a commit that people are shown
# What would change or hide history, show it in the reader's zone, or wait for a network and a person.
QUIET = {"LC_ALL": "C", "TZ": "UTC", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}


class History:
    """Git's commits of a project. Every method raises ProjectError where there is no git or no repository."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _ask(self, *arguments: str, given: bytes = b"") -> bytes | None:
        """What git prints; None if it refuses."""
        try:
            answer = git.run(self.layout.root, *arguments, given=given, variables=QUIET)
        except FileNotFoundError as error:
            raise ProjectError("the program git is missing; install it and retry") from error
        return None if answer.returncode else answer.stdout

    @cached_property
    def prefix(self) -> str:
        """The project's folder below the repository's: `` or `sub/folder/`."""
        answer = self._ask("rev-parse", "--show-prefix")
        if answer is None:
            raise ProjectError("the project is in no git repository that git opens; run `git status`, which says what is wrong")
        return os.fsdecode(answer).rstrip("\n")

    @cached_property
    def shallow(self) -> bool:
        return (self._ask("rev-parse", "--is-shallow-repository") or b"").strip() == b"true"

    def commit(self, revision: str, place: str) -> str:
        """The commit that a revision names. Args: place: how errors call it. Raises: BadInputError."""
        _ = self.prefix
        named = revision and not revision.startswith("-") and "\0" not in revision
        answer = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") if named else None
        if answer is None:
            why = (
                f"this clone is shallow, so it may be missing; run `{git.UNSHALLOW}` (in CI: fetch the whole history)"
                if self.shallow
                else "name a commit, a branch or a tag; `git log --oneline` lists commits"
            )
            raise BadInputError(f"{place} is no revision that git knows here: {why}")
        return answer.decode().strip()

    def read(self, commit: str, paths: Iterable[str]) -> dict[str, bytes]:
        """Those of the files (of the project) that are there. Raises: StepFailedError if git fails."""
        asked = list(paths)
        given = b"".join(os.fsencode(f"{commit}:{self.prefix}{path}\n") for path in asked)
        return dict(zip_there(asked, self.batch(given)))

    def batch(self, given: bytes) -> list[bytes | None]:
        """The blob of each line; None where there is none. Raises: StepFailedError."""
        answer = self._ask("cat-file", "--batch", given=given)
        if answer is None:
            raise StepFailedError("git cannot read its objects; run `git fsck`, mend the repository and retry")
        contents: list[bytes | None] = []
        at = 0
        while at < len(answer):
            end = answer.index(b"\n", at)
            words = answer[at:end].split(b" ")
            at = end + 1
            if len(words) == 3 and words[2].isdigit():
                size = int(words[2])
                contents.append(answer[at : at + size] if words[1] == b"blob" else None)
                at += size + 1
            else:  # `NAME missing`
                contents.append(None)
        return contents

    def names(self, commit: str, folder: str) -> list[str]:
        """Paths (of the project) of the files below a folder."""
        answer = self._ask("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", f"{self.prefix}{folder}")
        listed = os.fsdecode(answer or b"").split("\0")
        return [name.removeprefix(self.prefix) for name in listed if name]

    def commits_of(self, path: str, most: int) -> list[tuple[str, str]]:
        """The newest commits on HEAD that changed a file, oldest first: (commit, its time in ISO 8601, UTC)."""
        _ = self.prefix
        answer = self._ask("log", f"--max-count={most}", "--format=%H %cd", "--date=format-local:%Y-%m-%dT%H:%M:%S+00:00",
                           "--first-parent", "--no-show-signature", "--", path)  # fmt: skip
        pairs = (line.partition(" ") for line in (answer or b"").decode(errors="replace").split("\n"))
        return [(commit, at) for commit, _, at in pairs if TIME.fullmatch(at)][::-1]


def zip_there(names: Iterable[str], contents: Iterable[bytes | None]) -> Iterable[tuple[str, bytes]]:
    return ((name, content) for name, content in zip(names, contents, strict=True) if content is not None)


def state_of(history: History, revision: str | None, place: str, least: int) -> State:
    """The state of a revision; of the workspace where it is None.

    Args: place: how errors call it; least: subjects of a group that is shown.
    Raises: BadInputError, ProjectError, StepFailedError.
    """
    if revision is None:
        return _of_workspace(history.layout, least)
    commit = history.commit(revision, place)
    locks = [name for name in history.names(commit, "tune") if name.endswith(f"/{LOCK}")]
    files = history.read(commit, (METRICS, CLASSES, CLUSTERS, LOCK, *locks))
    try:
        recorded = [outs_in(files[name], name) for name in (LOCK, *locks) if name in files]
    except ProjectError as error:
        raise BadInputError(f"{commit[:SHORT]}: a dvc.lock is damaged there; name another revision") from error
    outs = {out: digest for stages in recorded for stage in stages.values() for out, digest in stage.items()}
    certificates = history.names(commit, "certificates")
    return read_state(commit[:SHORT], files, least, outs=outs, certificates=numbered(certificates))


def _of_workspace(layout: Layout, least: int) -> State:
    files: dict[str, bytes] = {}
    for path in (METRICS, CLASSES, CLUSTERS):
        try:
            files[path] = (layout.root / path).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInputError(f"{WORKSPACE}: {path} cannot be read ({error.strerror}); expected a file") from error
    outs = _workspace_outs(layout)
    certificates = sorted(path.name for path in layout.certificates.glob("*.json"))
    return read_state(WORKSPACE, files, least, outs=outs, certificates=numbered(certificates))


def _workspace_outs(layout: Layout) -> Mapping[str, Any]:
    if not layout.lock.exists():
        return {}
    return {out: digest for stage in outs_by_stage(layout.lock).values() for out, digest in stage.items()}


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Request id of each certificate, by its number: as their names say."""
    matches = (NAME.fullmatch(name.rpartition("/")[2]) for name in names)
    return {int(match["sequence"]): match["request_id"] for match in matches if match}
