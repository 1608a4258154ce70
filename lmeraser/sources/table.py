"""The table of records that every source gives, and the way to the source that params.yaml names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from lmeraser.core.errors import ParamsError
from lmeraser.core.names import normalise_name
from lmeraser.core.params import PublishedSource as PublishedParams
from lmeraser.core.params import Source as SourceParams
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN

COLUMNS = ("path", "label", "subject", "visibility", "split")
ALLOWED = {"visibility": (PUBLIC, PRIVATE), "split": (TRAIN, TEST)}


class Source(ABC):
    """A table of records beside their images.

    `table()` has the columns `line` (where the row stands in the file) and COLUMNS, all text.
    """

    name: str  # of the file, for messages
    unit: str = "line"  # what `line` counts: physical lines from 1, or the rows of a Parquet file from 1

    @abstractmethod
    def table(self) -> pd.DataFrame: ...

    @abstractmethod
    def image(self, path: str) -> bytes:
        """The bytes of one image. Raises ImageError without naming the path."""

    @abstractmethod
    def check_erasable(self) -> None:
        """Raise BadInputError unless `drop` can delete anybody's rows and images here; changes nothing."""

    @abstractmethod
    def drop(self, is_gone: Callable[[str], bool]) -> int:
        """Delete the rows and images of some subjects for good, and read back that they are gone; returns how many rows.

        Images go first: while a row still names one, a later try finds it again.
        Raises: StepFailedError if something could not be deleted; its rows stay.
        """


def make_table(columns: Sequence[Sequence[str]], lines: Sequence[int]) -> pd.DataFrame:
    """The values of each of COLUMNS as normal text beside the rows' lines; rows without any are no records."""
    table = pd.DataFrame({"line": list(lines)})
    for column, values in zip(COLUMNS, columns, strict=True):
        # One spelling for one file: `./a//b.png` is `a/b.png`.
        rule = _normalise_path if column == "path" else normalise_name
        spelt = {value: rule(value) for value in set(values)}
        table[column] = pd.Series([spelt[value] for value in values], dtype=str)
    return table[(table[list(COLUMNS)] != "").any(axis=1)].reset_index(drop=True)


def _normalise_path(path: str) -> str:
    plain = "//" not in path and "/." not in path and not path.startswith(".") and not path.endswith("/")  # nearly all are
    return (path if plain else str(PurePosixPath(path))) if path.strip() else ""


def open_source(params: SourceParams | PublishedParams, root: Path) -> Source:
    """The source that params.yaml names; relative paths start at the project's folder.

    Raises: BadInputError if it is absent, or lies where a build would delete or hash it.
    """
    from lmeraser.sources.digits import DigitsSource
    from lmeraser.sources.manifest import ManifestSource
    from lmeraser.sources.place import check_place

    path = root / params.path
    check_place(path, root)
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
    return ManifestSource.open(path, root)
