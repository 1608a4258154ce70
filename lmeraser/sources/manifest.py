"""Your own images: a folder with manifest.csv (or .parquet) whose paths are relative to it."""

import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lmeraser.core.errors import ImageError, ManifestError, StepFailedError
from lmeraser.sources import erasing
from lmeraser.sources.base import COLUMNS, ErasableSource, make_table
from lmeraser.sources.csv_file import CsvFile, read_csv
from lmeraser.sources.parquet_file import check_writable, read_column, read_parquet, write_without
from lmeraser.sources.place import OWN_FOLDERS

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who only opens a source need not wait for

MANIFESTS = ("manifest.csv", "manifest.parquet")
ENDINGS = (".csv", ".parquet")


class ManifestSource(ErasableSource):
    """Images in a folder. A path may not leave the folder, neither by `..` nor by a link."""

    def __init__(self, manifest: Path, own: tuple[Path, ...] = ()) -> None:
        """Args: own: folders of the project itself, where no image may lie."""
        self.manifest = manifest
        self.name = manifest.name
        self.root = manifest.parent.resolve()
        self.parquet = manifest.suffix == ".parquet"
        self.unit = "row" if self.parquet else "line"
        self._own = tuple(folder for folder in own if folder.is_relative_to(self.root))

    @classmethod
    def open(cls, path: Path, project: Path | None = None) -> "ManifestSource":
        """Args: path: the manifest, or the folder that holds manifest.csv or manifest.parquet; project: whose source it is."""
        if path.is_dir():
            manifests = [path / name for name in MANIFESTS if os.path.lexists(path / name)]
            if len(manifests) > 1:
                raise ManifestError(f"source.path holds {' and '.join(MANIFESTS)}; keep one of them")
            if not manifests and path.suffix not in ENDINGS:
                raise ManifestError(f"source.path holds neither {' nor '.join(MANIFESTS)}; put your manifest there")
            path = manifests[0] if manifests else path
        if path.is_dir():
            raise ManifestError(
                f"{path.name} is a folder (of partitions or parts?), expected a single file; write the table into one file"
            )
        if not path.is_file():
            raise ManifestError(f"the manifest {path.name} is missing; set source.path in params.yaml to your manifest")
        if path.suffix not in ENDINGS:
            raise ManifestError(f"{path.name}: expected a manifest that ends in .csv or .parquet")
        own = tuple((project / name).resolve() for name in OWN_FOLDERS) if project else ()
        if any(path.resolve().is_relative_to(folder) for folder in own):
            raise ManifestError(f"{path.name} is a link into the project's own folders; put the manifest elsewhere")
        return cls(path, own)

    def _bytes(self) -> bytes:
        try:
            return self.manifest.read_bytes()
        except OSError as error:
            raise ManifestError(f"{self.name} cannot be read ({error.strerror}); check its permissions") from error

    def table(self) -> "pd.DataFrame":
        if self.parquet:
            columns = read_parquet(self.manifest, self.name)
            return make_table(columns, range(1, len(columns[0]) + 1))
        return table_of(read_csv(self._bytes(), self.name))

    def column(self, name: str) -> "pd.DataFrame":
        if self.parquet:
            table = self.table()
            values = dict(enumerate(read_column(self.manifest, self.name, name), start=1))
        else:
            file = read_csv(self._bytes(), self.name, (name,))
            values = {line: cells[-1].strip() for line, _, cells in file.rows}
            table = table_of(CsvFile([], [(line, after, cells[:-1]) for line, after, cells in file.rows]))
        table["value"] = table["line"].map(values)
        return table

    def locate(self, path: str) -> Path:
        """Where an image lies, links followed. Raises: ImageError if that is outside the folder, or no place."""
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts or "\0" in path or not relative.parts:
            raise ImageError("the path leaves the manifest's folder; paths are relative to it and stay inside")
        # Resolved: a link may stand anywhere on the way.
        try:
            full = (self.root / relative).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ImageError("the path is a link that leads nowhere; copy the image into the folder") from error
        if not full.is_relative_to(self.root):
            raise ImageError("the path is a link that leaves the manifest's folder; copy the image into it")
        if any(full.is_relative_to(folder) for folder in self._own):
            raise ImageError("the image lies in the project's own folders, which a build deletes; move it elsewhere")
        return full

    def image(self, path: str) -> bytes:
        full = self.locate(path)
        try:
            if not full.is_file() and full.exists():  # a pipe would wait for ever
                raise ImageError("the path is not a file; put the image there or drop its row")
            return full.read_bytes()
        except FileNotFoundError as error:
            raise ImageError("the image is missing; put the file there or drop its row") from error
        except OSError as error:
            raise ImageError(f"the image cannot be read ({error.strerror}); check its permissions") from error
        except ValueError as error:  # a lone surrogate
            raise ImageError("the path is not a valid file name on this system; correct it") from error

    def check_erasable(self) -> None:
        erasing.check_manifest(self.manifest.resolve(), self.name)
        erasing.check_images(self.root, self.table()["path"].tolist())
        if self.parquet:
            check_writable(self.manifest, self.name)

    def drop(self, is_gone: Callable[[str], bool], paths: Collection[str] = ()) -> int:
        manifest = self.manifest.resolve()
        erasing.check_manifest(manifest, self.name)
        before = erasing.state(manifest)
        file = None if self.parquet else read_csv(self._bytes(), self.name)
        table = table_of(file) if file else self.table()
        gone_subjects = {subject for subject in table["subject"].unique() if is_gone(subject)}
        rows = table["subject"].isin(gone_subjects) | table["path"].isin(set(paths))
        if not rows.any():
            return 0
        lines = {int(line) for line in table.loc[rows, "line"]}
        kept = erasing.entries(self.root, table.loc[~rows, "path"].tolist())
        erasing.delete(erasing.entries(self.root, table.loc[rows, "path"].tolist()) - kept - {manifest}, self.root)

        def write(draft: Path) -> None:
            if file:
                draft.write_bytes(file.without(lines))
            else:
                write_without(manifest, draft, {line - 1 for line in lines})

        erasing.rewrite(manifest, write, before)
        left = self.table()
        if len(left) != len(table) - len(lines) or (left["subject"].isin(gone_subjects) | left["path"].isin(set(paths))).any():
            raise StepFailedError(f"source: {self.name} was written, but reads back differently; check the disk, and retry")
        return len(lines)


def table_of(file: CsvFile) -> "pd.DataFrame":
    columns = list(zip(*(values for _, _, values in file.rows), strict=True)) or [()] * len(COLUMNS)
    return make_table(columns, [line for line, _, _ in file.rows])
