"""A model that stays loaded and follows its project, or the folder of an export: `lmeraser.load`.

The rule that it keeps, from the moment that a request's quarantine stands (`lmeraser submit` has not returned before that):

- A model that was read before answers no call that begins later, and gives no answer whose computing ends later: every call looks
  before it computes and again before it answers, and computes anew where something changed.
- This holds also if the new state cannot be read (then calls are refused with `NotReadyError`), and after the quarantine is
  lifted: what was read before it stands answers again only if nobody was erased, as after `lmeraser cancel`.
- What is left in memory of the model before is dropped within POLL_S, whether anybody calls or not.

While a build replaces artifacts, and nobody was erased, the model that was read before it goes on answering.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.errors import LmeraserError, NotReadyError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import ImageParams, load_params
from lmeraser.learn.backbone import make_deterministic
from lmeraser.serve.images import to_pixels
from lmeraser.serve.loading import LeftOut, Loaded, Reading, read
from lmeraser.serve.passes import SharedLooks
from lmeraser.serve.serving import Probabilities
from lmeraser.serve.watching import Stamps, Watch

POLL_S = 0.2  # s between two looks while nobody calls
RETRY_S = 1.0  # s before what could not be read is read again
ANEW = 5  # times that a call computes again because the model changed meanwhile
BLOCK = 256  # images that are answered together


@dataclass(frozen=True)
class Parts:
    """What an answer was made of (n images, k labels).

    Attributes:
        labels: the k labels, sorted; clusters, global_head: (n, k) probabilities of each half.
        weight: of the clusters; the global head has the rest.
        nearest: slot of each image's nearest cluster; None where no cluster answers.
        model_version: digest of all that could answer; left_out: what could not.
    """

    labels: list[str]
    clusters: Probabilities
    global_head: Probabilities
    weight: float
    nearest: list[str | None]
    model_version: str
    left_out: LeftOut


class Prediction(NamedTuple):
    """Of n images: the likeliest label of each, (n, k) probabilities in the order of `parts.labels`, and the parts."""

    labels: list[str]
    probabilities: Probabilities
    parts: Parts


@dataclass
class LiveModel:
    """The model of a project that may answer now. Threads may share it. `close` it, or use it in a `with`."""

    watch: Watch
    reading: Reading
    _loaded: Loaded | None = None
    _failure: LmeraserError = field(default_factory=lambda: ProjectError("no model was read yet"))
    _failed: tuple[Stamps, float] | None = None  # what stood when reading failed, and when that was
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _reader: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _follower: threading.Thread | None = None
    lost: bool = False  # the device failed: no call is answered until the process is started again

    def __post_init__(self) -> None:
        self._decoders = threading.Semaphore(self.reading.at_once)  # large images are decoded by few at once: each takes memory

    def predict(self, images: Any) -> Prediction:
        """Answer for n images; the bits of each answer are the same alone and in any batch.

        Args: images: (n, h, w[, c]) uint8 array or tensor, or a sequence of images, of Pillow's, or of files' bytes; n may be 0.
        Raises: ImageError for what is no image; NotReadyError while nothing may answer; StepFailedError if the device fails.
        """
        shown: tuple[ImageParams, NDArray[np.uint8]] | None = None
        for _ in range(ANEW):
            loaded = self.current()
            image = loaded.model.params.image
            if shown is None or shown[0] != image:
                with self._decoders:
                    shown = image, to_pixels(images, image)
            prediction = self._answer(loaded, shown[1])
            if self.may_answer(loaded):
                return prediction
        raise NotReadyError("the model changed again and again while it answered; retry in a moment")

    def _answer(self, loaded: Loaded, pixels: NDArray[np.uint8]) -> Prediction:
        try:
            return _answer(loaded, pixels)
        except StepFailedError:
            self.lost = loaded.model.params.device != "cpu"  # a lost GPU stays lost for this process
            raise

    def current(self) -> Loaded:
        """The model that may answer now; where the one at hand may not, another is read. Raises: NotReadyError."""
        if self.lost:
            raise NotReadyError("the device failed; start the server again")
        for _ in range(ANEW):
            loaded = self._loaded
            if loaded is not None and self.may_answer(loaded):
                return loaded
            with self._reader:  # one reads, the others wait for it
                if self._loaded is loaded:
                    self._loaded = None
                    if not self._read():
                        raise NotReadyError(str(self._failure)) from self._failure
        raise NotReadyError("the model changed again and again while it was read; retry in a moment")

    def may_answer(self, loaded: Loaded) -> bool:
        """Whether a model may still answer, by the files as they are now."""
        if self._closed.is_set():
            return False
        try:
            with self._looking:
                return self.watch.standing().allows(loaded.standing)
        except LmeraserError:  # a damaged pointer or list: nobody knows who is left out
            return False

    def present(self) -> Loaded | None:
        """The model at hand if it may answer; reads nothing, so that a health check never waits."""
        loaded = self._loaded
        return loaded if loaded is not None and not self.lost and self.may_answer(loaded) else None

    def quarantined(self) -> bool:
        """Whether something is left out now: what may not answer yet will."""
        try:
            with self._looking:
                return self.watch.standing().quarantine is not None
        except LmeraserError:
            return False

    @property
    def failure(self) -> str:
        """Why nothing could be read when that was tried last."""
        return str(self._failure)

    def _read(self) -> bool:
        """Read what stands, or keep the failure; what failed is tried again when a file changes, or after a moment."""
        if self._closed.is_set():
            return False
        watch = Watch(self.watch.layout)  # there may be other locks than before
        try:
            stamps = watch.stamps()
            if self._failed and self._failed[0] == stamps and time.monotonic() - self._failed[1] < RETRY_S:
                return False
            self._failed = (stamps, time.monotonic())
            loaded = read(watch, self.reading)
        except LmeraserError as error:
            self._failure = error
        except Exception as error:  # whatever damaged files make of a reader; a path is not for everybody
            self._failure = ProjectError(f"the artifacts cannot be read ({type(error).__name__}); retry in a moment")
        else:
            self._failed = None
            with self._looking:
                self.watch, self._loaded = watch, loaded
        return self._failed is None

    def follow(self) -> None:
        """From now on also read what changes while nobody calls."""
        self._follower = threading.Thread(target=self._follow, name="lmeraser-follow", daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        while not self._closed.wait(POLL_S):
            loaded = self._loaded
            if loaded is not None and not self.may_answer(loaded):
                self._loaded = None  # out of memory, whether anybody calls or not
            if self._moved(loaded):
                with self._reader:
                    if self._loaded is None or self._loaded is loaded:
                        self._read()

    def _moved(self, loaded: Loaded | None) -> bool:
        try:
            with self._looking:
                return loaded is None or self.watch.stamps() != loaded.standing.stamps
        except LmeraserError:
            return True

    def close(self) -> None:
        """Let go of the model; every later call is refused."""
        self._closed.set()
        if self._follower is not None:
            self._follower.join()
        self._loaded, self._failure = None, ProjectError("the model was closed; load it again")

    def __enter__(self) -> "LiveModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _answer(loaded: Loaded, pixels: NDArray[np.uint8]) -> Prediction:
    """Args: pixels: (n, s, s, c)."""
    model, n = loaded.model, len(pixels)
    k = len(model.labels)
    served, clusters, whole = np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, k))
    nearest: list[str | None] = []
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        answers = model.answer(SharedLooks(loaded.passes, pixels[rows]))
        served[rows], clusters[rows], whole[rows] = answers.served, answers.clusters_soft, answers.global_head
        nearest += [model.slots[index] if index >= 0 else None for index in answers.nearest.tolist()]
    labels = [model.labels[index] for index in served.argmax(1).tolist()]
    parts = Parts(model.labels, clusters, whole, model.mix, nearest, loaded.version, loaded.left_out)
    return Prediction(labels, served, parts)


def open_model(layout: Layout, one_pass: bool = False, batch: int | None = None, at_once: int | None = None) -> LiveModel:
    """A model of which nothing was read yet. Args: as of `load`. Raises: as it, but NotReadyError."""
    make_deterministic(load_params(layout.params).device)
    return LiveModel(Watch(layout), Reading(one_pass, batch, at_once or len(os.sched_getaffinity(0))))


def load(path: Path | str = ".", *, one_pass: bool = False, batch: int | None = None, at_once: int | None = None) -> LiveModel:
    """The model of a project, which follows the project until it is closed; or of a folder that `lmeraser export` wrote.

    Args:
        path: the project's folder or one below it, or the export's folder.
        one_pass: the global head alone, with those clusters that need no pass of their own.
        batch: records in a pass of the network; else `embed.batch`. Another one gives other last bits, and is another version.
        at_once: passes that run beside each other, a thread each; else one a core (on a GPU always one).
    Raises: ProjectError where there is no project; NotReadyError if nothing may answer; ParamsError if the device is absent, or
        if rows of such a batch depend on each other; StepFailedError if numpy or torch was imported under other settings.
    """
    folder = Layout(Path(path).resolve())
    model = open_model(folder if folder.is_export else Layout.find(Path(path)), one_pass, batch, at_once)
    model.current()
    model.follow()
    return model
