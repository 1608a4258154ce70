"""A project's folder with its params, its keys and its ledger; and the lock that lets one process at a time change it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flows import processes
from lmeraser.core.layout import LEDGER_VARIABLE, Layout
from lmeraser.core.own_code import own_layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import say
from lmeraser.erase.erased import ErasedList, SubjectKey, key_path, load_key, load_or_create_key
from lmeraser.erase.facts import gather_facts, identity_of
from lmeraser.erase.ledger import Ledger, sqlite_url
from lmeraser.erase.roster import Roster


@dataclass(frozen=True)
class Project:
    """Attributes: accept_unknown: this run accepts that objects stay of which nobody can tell what they were made of."""

    layout: Layout
    accept_unknown: bool = False

    @classmethod
    def find(cls, accept_unknown: bool = False) -> "Project":
        """Where `own_layout` is. Raises: ProjectError."""
        return cls(own_layout(), accept_unknown)

    @property
    def accepts_unknown(self) -> bool:
        """By its option or by params."""
        return self.accept_unknown or self.params.service.accept_unknown

    @cached_property
    def params(self) -> Params:
        return load_params(self.layout.params)

    @cached_property
    def ledger(self) -> Ledger:
        url = os.environ.get(LEDGER_VARIABLE)
        if url is None:
            self.layout.private_state.mkdir(exist_ok=True, mode=0o700)
            return Ledger.open(sqlite_url(self.layout.ledger))
        return Ledger.open(url)

    @property
    def key_file(self) -> Path:
        return key_path(self.layout.private_state)

    @property
    def erased(self) -> ErasedList:
        """Everybody who is kept out, by the branch's list or by this machine's memory."""
        return ErasedList.known(self.layout)

    def subject_key(self) -> SubjectKey:
        """The subject key, by which somebody is known already. Raises: ProjectError if it is missing, damaged or not private."""
        return load_key(self.key_file)

    def ensure_subject_key(self) -> SubjectKey:
        """The subject key; made for the first request, and never again once the lists or the ledger know somebody by it."""
        used = self.erased.pseudonyms or self.ledger.head()[0]
        return load_key(self.key_file) if used else load_or_create_key(self.key_file)

    def roster(self, layout: Layout) -> Roster:
        """Who is in a built state: the workspace's or a copy's. Gathered once, as long as its files are the same ones.

        Raises: ProjectError if something is missing.
        """
        params = load_params(layout.params)
        before = identity_of(layout, params)
        if before is None or before not in self._rosters:
            made = Roster(gather_facts(layout, params), self.subject_key())
            self._rosters.clear()  # one state at a time: with many records it takes much memory
            if before is None or identity_of(layout, params) != before:
                return made
            self._rosters[before] = made
        return self._rosters[before]

    def drop_roster(self) -> None:
        """Let go of it: the state is about to change."""
        self._rosters.clear()

    @cached_property
    def _rosters(self) -> dict[tuple[tuple[int, ...], ...], Roster]:
        return {}


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock file; a second process waits here. What we start inherits the lock (see `processes.INHERITED_LOCKS`)."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        processes.INHERITED_LOCKS.append(handle.fileno())
        try:
            yield
        finally:
            processes.INHERITED_LOCKS.remove(handle.fileno())


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock file if nobody else does; whether it is so. For moments in which nothing is started."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def workspace(project: Project) -> Iterator[None]:
    """Change the project alone: also an orphan of a killed process has ended."""
    with locked(project.layout.workspace_lock, "another process is changing this project; waiting for it"):
        project.layout.handed_out.unlink(missing_ok=True)  # of a coordinator that is gone: no worker begins for it from here on
        with project.layout.stage_lock.open("w") as stages:
            try:
                fcntl.flock(stages, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("a stage of a process that was killed still runs; waiting for it")
                fcntl.flock(stages, fcntl.LOCK_EX)
        yield
