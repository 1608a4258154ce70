"""Passes of the network that many callers share: rows wait together, whoever comes first computes a full batch for all of them.

A pass always has the same shape, and a row's bits do not depend on its neighbours (`Backbone.features`). So rows of several
callers, plain ones and those through frames, go through the network together, and nobody's answer depends on who else asked.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.learn.backbone import Backbone
from lmeraser.serve.serving import Look

Frame = NDArray[np.float32]  # (c, s, s)


@dataclass(eq=False)
class Ticket:
    """What one caller waits for: m rows. Attributes: begun, done: how many rows are in a pass, or through one."""

    pixels: NDArray[np.uint8]  # (m, s, s, c)
    frames: Sequence[Frame | None]
    features: NDArray[np.float32]  # (m, d)
    begun: int = 0
    done: int = 0
    failure: LmeraserError | None = None

    @property
    def over(self) -> bool:
        return self.failure is not None or self.done == len(self.pixels)


@dataclass
class SharedPasses:
    """Attributes: batch: rows of every pass; at_once: passes that run beside each other, a thread each; passed: rows so far."""

    backbone: Backbone
    batch: int
    at_once: int
    passed: int = 0
    _waiting: deque[Ticket] = field(default_factory=deque)
    _running: int = 0
    _turn: threading.Condition = field(default_factory=threading.Condition)

    def features(self, pixels: NDArray[np.uint8], frames: Sequence[Frame | None]) -> NDArray[np.float32]:
        """(m, d) of images, each through its own frame or none. Args: pixels: (m, s, s, c).

        Raises: StepFailedError if the device fails; ParamsError if its memory is full.
        """
        ticket = Ticket(pixels, frames, np.empty((len(pixels), self.backbone.dim), dtype=np.float32))
        with self._turn:
            if len(pixels):
                self._waiting.append(ticket)
            while not ticket.over:
                if self._waiting and self._running < self.at_once:
                    self._lead()
                else:
                    self._turn.wait()
        if ticket.failure is not None:
            raise ticket.failure
        return ticket.features

    def _lead(self) -> None:
        """Compute one pass for those who wait; the lock is held before and afterwards, not while the network works."""
        shares = list(self._take())
        self._running += 1
        failure: LmeraserError | None = StepFailedError("a pass of the network was interrupted; retry")
        self._turn.release()
        try:
            failure = self._run(shares)
        finally:
            self._turn.acquire()
            self._running -= 1
            for ticket, rows in shares:
                ticket.done += len(rows)
                ticket.failure = ticket.failure or failure
                self.passed += len(rows)
            self._turn.notify_all()

    def _take(self) -> Iterator[tuple[Ticket, range]]:
        """Up to `batch` rows, who waits longest first; whoever has more goes to the end, so that small ones need not wait."""
        free = self.batch
        for _ in range(len(self._waiting)):
            if not free:
                return
            ticket = self._waiting.popleft()
            if ticket.failure is not None:
                continue
            rows = range(ticket.begun, min(ticket.begun + free, len(ticket.pixels)))
            ticket.begun = rows.stop
            free -= len(rows)
            if ticket.begun < len(ticket.pixels):
                self._waiting.append(ticket)
            yield ticket, rows

    def _run(self, shares: Sequence[tuple[Ticket, range]]) -> LmeraserError | None:
        """One pass; the failure if there was one."""
        pixels = np.concatenate([ticket.pixels[rows.start : rows.stop] for ticket, rows in shares])
        frames = [ticket.frames[row] for ticket, rows in shares for row in rows]
        try:
            features = self.backbone.features(pixels, self.batch, self._stacked(frames))
        except LmeraserError as error:
            return error
        except RuntimeError as error:  # what torch makes of a lost device or of a bug in a kernel
            return StepFailedError(f"the device failed in a pass of the network ({type(error).__name__}); start the server again")
        start = 0
        for ticket, rows in shares:
            ticket.features[rows.start : rows.stop] = features[start : start + len(rows)]
            start += len(rows)
        return None

    def _stacked(self, frames: Sequence[Frame | None]) -> torch.Tensor | None:
        """(batch, c, s, s): each row's own frame, zero where it has none: adding zero moves no bit of a normalised pixel."""
        if all(frame is None for frame in frames):
            return None
        image = self.backbone.image
        stacked = np.zeros((self.batch, image.channels, image.size, image.size), dtype=np.float32)
        for row, frame in enumerate(frames):
            if frame is not None:
                stacked[row] = frame
        return torch.from_numpy(stacked).to(self.backbone.device).contiguous(memory_format=torch.channels_last)


@dataclass
class SharedLooks:
    """`Looks` at n images by shared passes: the plain ones in one call, all framed ones in another."""

    passes: SharedPasses
    pixels: NDArray[np.uint8]
    _plain: NDArray[np.float32] | None = None

    def plain(self) -> NDArray[np.float32]:
        if self._plain is None:
            self._plain = self.passes.features(self.pixels, [None] * len(self.pixels))
        return self._plain

    def framed(self, looks: Sequence[Look]) -> Iterator[NDArray[np.float32]]:
        if not looks:
            return
        rows = np.concatenate([look.rows for look in looks])
        frames = [look.frame for look in looks for _ in look.rows]
        features = self.passes.features(self.pixels[rows], frames)
        start = 0
        for look in looks:
            yield features[start : start + len(look.rows)]
            start += len(look.rows)
