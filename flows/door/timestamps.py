"""Timestamps of certificates: an authority that the operator names (`service.timestamp_url`) is asked for those that are missing.

No step of a request knows of it: a certificate is whole without one. The courier asks (in `make serve` and the door), and
`forget`, `correct` and `resume` once they are done and hold no lock. What fails is tried again, later and later, for as long as
it takes. Only the digest of a certificate and a random number leave the machine (`lmeraser/prove/timestamp.py`).

    certificate ── no .tsr beside it ──► asked ──► .tsr ──► event `timestamped` in the ledger

Killed anywhere, the next round goes on: a certificate without .tsr is asked for, a .tsr that the ledger does not know is noted.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.door.callbacks import post_anywhere
from flows.door.outbox import LONGEST
from flows.project import Project, locked_if_free
from lmeraser.core.digest import readable_json, sha256
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Service, load_params
from lmeraser.core.progress import say
from lmeraser.prove.timestamp import (
    MAX_BYTES,
    QUERY_TYPE,
    Timestamp,
    check_answer,
    load_roots,
    make_request,
    read_timestamp,
    timestamp_path,
    verify_timestamp,
)
from lmeraser.prove.verify import NAME, read

TIMESTAMPED = "timestamped"  # the ledger's event
PATIENCE = 20.0  # s after which a round asks for no further one
COARSEST = 2 * 10**9  # ns; of the clocks by which file systems date a folder


@dataclass(frozen=True)
class Standing:
    """How asking goes. Attributes: tries: that failed since the last success; not_before: the next one, seconds since 1970;
    problem: why the last one failed; foreign: files that should be timestamps and are not of their certificates."""

    tries: int = 0
    not_before: float = 0.0
    problem: str | None = None
    foreign: int = 0

    @classmethod
    def read(cls, layout: Layout) -> "Standing":
        """As kept; from the beginning where that is missing or damaged: nothing but time depends on it."""
        with suppress(OSError, ValueError, TypeError):
            kept = cls(**json.loads(layout.timestamps.read_bytes()))
            if isinstance(kept.tries, int) and isinstance(kept.not_before, int | float) and isinstance(kept.foreign, int):
                return kept
        return cls()

    def keep(self, layout: Layout) -> None:
        if self != Standing.read(layout):
            write_atomically(layout.timestamps, readable_json(asdict(self)), mode=0o600)

    def waits(self, now: float) -> bool:
        """Whether it is too early; a time further ahead than any try was set by another clock."""
        return now < self.not_before <= now + LONGEST


@dataclass(frozen=True)
class Outlook:
    """Attributes: missing: certificates without a timestamp; the others as of `Standing`."""

    missing: int
    tries: int
    problem: str | None
    foreign: int

    @property
    def lines(self) -> list[str]:
        """For people."""
        lines = []
        if self.missing:
            why = f"; tried {self.tries} times: {self.problem}" if self.problem else ""
            lines.append(f"{self.missing} certificates wait for theirs{why}; `lmeraser resume` asks again")
        if self.foreign:
            lines.append(
                f"{self.foreign} files are not of the certificates that they lie beside; find out why, then "
                "delete them, and `lmeraser resume` asks for others"
            )
        return lines


def outlook(project: Project) -> Outlook | None:
    """What there is to tell; None where no authority is named, or all is well."""
    if service_of(project).timestamp_url is None:
        return None
    standing = Standing.read(project.layout)
    missing = len(undated(project.layout))
    if not missing and not standing.foreign:
        return None
    return Outlook(missing, standing.tries, standing.problem if missing else None, standing.foreign)


def service_of(project: Project) -> Service:
    """As params.yaml has it now: a courier lives longer than a param."""
    return load_params(project.layout.params).service


@dataclass(frozen=True)
class Issued:
    """A certificate, as its file's name has it."""

    path: Path
    sequence: int
    request_id: str

    @property
    def is_dated(self) -> bool:
        return timestamp_path(self.path).exists()


def certificates_of(layout: Layout) -> list[Issued]:
    """Newest first: what was just issued is dated best at once."""
    named = [(path, NAME.fullmatch(path.name)) for path in layout.certificates.glob("*.json")]
    issued = [Issued(path, int(match["sequence"]), match["request_id"]) for path, match in named if match]
    return sorted(issued, key=lambda one: one.sequence, reverse=True)


def undated(layout: Layout) -> list[Issued]:
    """Those without a timestamp, newest first."""
    return [one for one in certificates_of(layout) if not one.is_dated]


class Stamping:
    """Rounds of one process. Args: clock: seconds since 1970."""

    def __init__(self, project: Project, clock: Callable[[], float] = time.time) -> None:
        self._project = project
        self._clock = clock
        self._looked = False  # whether this process saw what a killed one left
        self._settled: tuple[int, str] | None = None  # the folder's time at which nothing was missing, and the authority

    async def round(self, at_once: bool = False) -> int:
        """Ask for what is missing, until one fails or `PATIENCE` is over; returns how many came.

        Args: at_once: though the last try failed a moment ago.
        Raises: LmeraserError for what the operator must mend: params, ledger, disk. An authority that does not answer is no
        error: it is told in `outlook`.
        """
        service, layout = service_of(self._project), self._project.layout
        if service.timestamp_url is None or not layout.certificates.is_dir():
            return 0
        folder = (layout.certificates.stat().st_mtime_ns, service.timestamp_url)
        if folder == self._settled and not at_once:
            return 0
        with locked_if_free(layout.timestamps_lock) as ours:
            if not ours or (self._looked and not at_once and Standing.read(layout).waits(self._clock())):
                return 0
            foreign = await asyncio.to_thread(self._note_arrived)
            self._looked = True
            if Standing.read(layout).waits(self._clock()) and not at_once:
                return 0
            came = await self._ask(service, foreign)
        # One that comes within a tick of the file system's clock would not be seen: only an older time is trusted.
        is_old = time.time_ns() - folder[0] > COARSEST
        self._settled = folder if is_old and not came and not undated(layout) else None
        return came

    async def _ask(self, service: Service, foreign: int) -> int:
        layout, came, until = self._project.layout, 0, time.monotonic() + PATIENCE
        before, problem = Standing.read(layout), None
        for one in undated(layout):
            if time.monotonic() > until:
                break
            try:
                data = await asyncio.to_thread(read, one.path, one.path.name)
            except LmeraserError as error:
                problem = str(error)  # the others need not wait for it
                continue
            try:
                await self._stamp(one, data, service)
            except LmeraserError as error:
                problem = str(error)
                break
            came += 1
        if problem is None:
            Standing(foreign=foreign).keep(layout)
            return came
        tries = 1 if came else before.tries + 1
        Standing(tries, self._clock() + min(2.0 ** min(tries, 20), LONGEST), problem, foreign).keep(layout)
        if problem != before.problem:
            say(f"timestamps: {problem}; tried again later, and by `lmeraser resume`")
        return came

    async def _stamp(self, one: Issued, data: bytes, service: Service) -> None:
        """Raises: LmeraserError."""
        root, name = self._project.layout.root, one.path.name
        roots = load_roots(root / service.timestamp_roots, "service.timestamp_roots") if service.timestamp_roots else None
        asked = make_request(data)
        try:
            url, headers = str(service.timestamp_url), {"Content-Type": QUERY_TYPE}
            answer = await post_anywhere(url, asked.as_bytes(), headers, MAX_BYTES + 1)
        except StepFailedError as error:
            raise StepFailedError(f"the time-stamp authority: {error}") from None
        if roots is None:
            stamp = check_answer(answer, data, asked.nonce, name)
        else:
            stamp = verify_timestamp(answer, data, roots, name, asked.nonce)
        try:
            await asyncio.to_thread(write_atomically, timestamp_path(one.path), answer)
        except OSError as error:
            raise StepFailedError(f"{name}: its timestamp cannot be written ({error.strerror}); mend the disk") from error
        await asyncio.to_thread(self._note, one, data, stamp)

    def _note(self, one: Issued, data: bytes, stamp: Timestamp) -> None:
        """Let the ledger know."""
        digests = {"sha256": stamp.digest, "certificate_sha256": sha256(data)}
        told = {"sequence": one.sequence, "stamped_at": stamp.at, **digests}
        self._project.ledger.note(one.request_id, TIMESTAMPED, told)

    def _note_arrived(self) -> int:
        """Note what is there and the ledger does not know; returns how many files are no timestamps of their certificates."""
        noted = {event.request_id for event in self._project.ledger.events(kinds=(TIMESTAMPED,))}
        foreign = 0
        for one in certificates_of(self._project.layout):
            if one.request_id in noted or not one.is_dated:
                continue
            name = one.path.name
            try:
                data = read(one.path, name)
                stamp = check_answer(read_timestamp(timestamp_path(one.path), name), data, None, name)
            except LmeraserError:
                foreign += 1
            else:
                self._note(one, data, stamp)
        return foreign
