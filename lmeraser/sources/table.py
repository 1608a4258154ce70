"""The table of records that every source gives, and the checks that it must pass before an image is read."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from lmeraser.core.errors import ManifestError, ParamsError
from lmeraser.core.params import PublishedSource as PublishedParams
from lmeraser.core.params import Source as SourceParams
from lmeraser.core.records import PRIVATE, PUBLIC, TEST, TRAIN

COLUMNS = ("path", "label", "subject", "visibility", "split")
ALLOWED = {"visibility": (PUBLIC, PRIVATE), "split": (TRAIN, TEST)}
MAX_LENGTH = 1024  # characters of a label or subject; a longer one is a broken table


class Source(ABC):
    """A table of records beside their images.

    `table()` has the columns `line` (where the row stands in the file, 1 is the header) and COLUMNS, all text.
    """

    name: str  # of the file, for messages

    @abstractmethod
    def table(self) -> pd.DataFrame: ...

    @abstractmethod
    def image(self, path: str) -> bytes:
        """The bytes of one image. Raises ImageError without naming the path."""

    @abstractmethod
    def drop(self, lines: Sequence[int], paths: Sequence[str]) -> list[str]:
        """Delete rows and their images from the source for good; returns what could not be deleted, in words.

        Rows are deleted only when all their images are.
        """


def normalise(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Keep the known columns as trimmed NFC text and add `line`.

    Unicode normalisation form C (UAX 15): one subject must not be two because a keyboard composed its accents.
    """
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ManifestError(f"{name}: column {missing[0]} is missing; expected the columns {','.join(COLUMNS)} in the header")
    given = table.loc[:, list(COLUMNS)]
    text = given.astype(object).where(given.notna(), "").astype(str)
    for column in COLUMNS[1:]:
        text[column] = text[column].map(lambda value: unicodedata.normalize("NFC", value.strip()))
    # One spelling for one file: `./a//b.png` is `a/b.png`.
    text["path"] = text["path"].map(lambda value: str(PurePosixPath(value)) if value.strip() else "")
    text.insert(0, "line", range(2, len(text) + 2))
    return text[(text[list(COLUMNS)] != "").any(axis=1)].reset_index(drop=True)  # blank lines are no records


def open_source(params: SourceParams | PublishedParams, root: Path) -> Source:
    """The source that params.yaml names; relative paths start at the project's folder."""
    from lmeraser.sources.digits import DigitsSource
    from lmeraser.sources.manifest import ManifestSource

    path = root / params.path
    if params.kind == "torchvision":
        from lmeraser.sources.published import PublishedSource

        if params.erase:
            raise ParamsError("params.yaml: source.erase is true, but published data sets cannot be erased from; set it to false")
        return PublishedSource(params, path)
    if params.kind == "digits":
        if params.erase:
            raise ParamsError(
                "params.yaml: source.erase is true, but the digits come with scikit-learn and cannot be deleted there; "
                "set it to false"
            )
        return DigitsSource(path)
    return ManifestSource.open(path)
