"""What every source gives, a table of records and their images; and what one gives that can be erased from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from lmeraser.core.digest import sha256
from lmeraser.core.errors import ImageError, ParamsError
from lmeraser.core.names import normalise_name
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who only opens a source need not wait for

COLUMNS = ("path", "label", "subject", "visibility", "split")
ALLOWED = {"visibility": (PUBLIC, PRIVATE), "split": (TRAIN, TEST)}


class Source(ABC):
    """A table of records beside their images.

    `table()` has the columns `line` (where the row stands in the file) and COLUMNS, all text.
    """

    name: str  # of the file, for messages
    unit: str = "line"  # what `line` counts: physical lines from 1, or the rows of a Parquet file from 1

    @abstractmethod
    def table(self) -> "pd.DataFrame": ...

    @abstractmethod
    def image(self, path: str) -> bytes:
        """The bytes of one image. Raises ImageError without naming the path."""

    def column(self, name: str) -> "pd.DataFrame":
        """The table beside a further column of it, `value`: text, a date as YYYY-MM-DD, '' where it is empty.

        Raises: ParamsError if there can be none, ManifestError if there is none.
        """
        raise ParamsError(
            f"params.yaml: consent.column or retention.column is set, but {self.name} has no column of your own; set them to null"
        )

    def paths_of(self, digests: Container[str]) -> list[str]:
        """The paths of the rows whose image has one of the digests (SHA-256); every image is read.

        Raises: ImageError with the line of the first that cannot be.
        """
        paths, table = [], self.table()
        for line, path in zip(table["line"].tolist(), table["path"].tolist(), strict=True):
            try:
                if sha256(self.image(path)) in digests:
                    paths.append(path)
            except ImageError as error:
                raise ImageError(f"{self.name} {self.unit} {line}: {error}") from error
        return paths


class ErasableSource(Source):
    """A source from which people and single images can be deleted."""

    @abstractmethod
    def check_erasable(self) -> None:
        """Raise BadInputError unless `drop` can delete anybody's rows and images here; changes nothing."""

    @abstractmethod
    def drop(self, is_gone: Callable[[str], bool], paths: Collection[str] = ()) -> int:
        """Delete the rows and images of some subjects, and of some paths, for good, and read back that they are gone; returns how
        many rows.

        Images go first: while a row still names one, a later try finds it again.
        Raises: StepFailedError if something could not be deleted; its rows stay.
        """


def make_table(columns: Sequence[Sequence[str]], lines: Sequence[int]) -> "pd.DataFrame":
    """The values of each of COLUMNS as normal text beside the rows' lines; rows without any are no records."""
    import pandas as pd

    table = pd.DataFrame({"line": list(lines)})
    for column, values in zip(COLUMNS, columns, strict=True):
        # One spelling for one file: `./a//b.png` is `a/b.png`.
        rule = normalise_path if column == "path" else normalise_name
        spelt = {value: rule(value) for value in set(values)}
        table[column] = pd.Series([spelt[value] for value in values], dtype=str)
    return table[(table[list(COLUMNS)] != "").any(axis=1)].reset_index(drop=True)


def normalise_path(path: str) -> str:
    """One spelling for one file."""
    plain = "//" not in path and "/." not in path and not path.startswith(".") and not path.endswith("/")  # nearly all are
    return (path if plain else str(PurePosixPath(path))) if path.strip() else ""
