"""What may answer now, by the files that say it: the quarantine's pointer, the lists of erased people, params and locks.

A look costs a `stat` a file, so every call takes one. Only where a file is another one than before is anything read.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import ErasedList
from lmeraser.pipeline.files import locks
from lmeraser.serve.quarantine import WITHHELD, Quarantine, read_quarantine

Stamp = tuple[int, ...] | None
Stamps = tuple[Stamp, ...]


def stamp_of(path: Path) -> Stamp:
    """Which file lies there: files are replaced and not written into, so another content is another inode or time. None: none.

    Raises: ProjectError if it cannot be asked.
    """
    try:
        state = os.stat(path)  # noqa: PTH116  (half the time of Path.stat, at every call)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProjectError(f"{path.name} cannot be looked at ({error.strerror}); check the folder's permissions") from error
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


@dataclass(frozen=True)
class Standing:
    """What stands in a project at one moment.

    Attributes: erased: pseudonyms of everybody whom the branch's list or this machine's memory keeps out.
    """

    stamps: Stamps
    quarantine: Quarantine | None
    erased: frozenset[str]

    def allows(self, loaded: "Standing") -> bool:
        """Whether a model that was read while `loaded` stood may answer now.

        Under a quarantine: what was read under the same one, and leaves out at least as much. Without one: what was read
        without one, if nobody was erased since. So a model from before a quarantine answers neither during it nor after it,
        but where nobody was erased after all (`lmeraser cancel`).
        """
        now, then = self.quarantine, loaded.quarantine
        if now is None or then is None:
            return now is then and self.erased <= loaded.erased
        leaves_out = set(then.slots) >= set(now.slots) and then.head in (WITHHELD, now.head)
        return then.folder == now.folder and leaves_out and not now.model_withheld


class Watch:
    """Looks at one project. Not shared between threads without a lock."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        fixed = (layout.quarantine, layout.erased, layout.erased_memory, layout.params, layout.export)
        self._paths = (*fixed, *locks(layout.root))
        self._last: Standing | None = None

    def stamps(self) -> Stamps:
        return tuple(map(stamp_of, self._paths))

    def standing(self) -> Standing:
        """What stands now; read again where a file is another one. Raises: ProjectError if a file is damaged."""
        stamps, last = self.stamps(), self._last
        if last is not None and last.stamps == stamps:
            return last
        # An export has no list: whoever was erased before it is in none of its files, and of later ones it cannot know.
        erased = frozenset[str]() if self.layout.is_export else ErasedList.known(self.layout).pseudonyms
        self._last = read = Standing(stamps, read_quarantine(self.layout), erased)
        return read
