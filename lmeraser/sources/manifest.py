"""Your own images: a folder with manifest.csv (or .parquet) whose paths are relative to it."""

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from lmeraser.core.digest import write_whole
from lmeraser.core.errors import ImageError, ManifestError
from lmeraser.sources.table import Source, normalise

MANIFESTS = ("manifest.csv", "manifest.parquet")


class ManifestSource(Source):
    """Images in a folder. A path may not leave the folder, neither by `..` nor by a link."""

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.root = manifest.parent.resolve()

    @classmethod
    def open(cls, path: Path) -> "ManifestSource":
        """Args: path: the manifest, or the folder that holds manifest.csv or manifest.parquet."""
        if path.is_dir():
            found = [path / name for name in MANIFESTS if (path / name).is_file()]
            if len(found) > 1:
                raise ManifestError(f"source.path holds {' and '.join(MANIFESTS)}; keep one of them")
            if not found:
                raise ManifestError(f"source.path holds neither {' nor '.join(MANIFESTS)}; put your manifest there")
            path = found[0]
        if not path.is_file():
            raise ManifestError(f"the manifest {path.name} is missing; set source.path in params.yaml to your manifest")
        if path.suffix not in (".csv", ".parquet"):
            raise ManifestError(f"{path.name}: expected a manifest that ends in .csv or .parquet")
        return cls(path)

    def _read(self) -> pd.DataFrame:
        try:
            if self.manifest.suffix == ".parquet":
                return pd.read_parquet(self.manifest)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
                return pd.read_csv(
                    self.manifest,
                    dtype=str,
                    keep_default_na=False,
                    encoding="utf-8-sig",
                    index_col=False,
                    skip_blank_lines=False,
                )
        except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OSError, OverflowError) as error:
            kind = self.manifest.suffix.removeprefix(".")
            raise ManifestError(
                f"{self.name} cannot be read as {kind} ({type(error).__name__}); expected UTF-8 with a header line"
            ) from error

    def table(self) -> pd.DataFrame:
        return normalise(self._read(), self.name)

    def _locate(self, path: str) -> Path:
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts or "\0" in path or not relative.parts:
            raise ImageError("the path leaves the manifest's folder; paths are relative to it and stay inside")
        # Resolved: a link may stand anywhere on the way.
        try:
            full = (self.root / relative).resolve()
        except (OSError, RuntimeError) as error:
            raise ImageError("the path is a link that leads nowhere; copy the image into the folder") from error
        if not full.is_relative_to(self.root):
            raise ImageError("the path is a link that leaves the manifest's folder; copy the image into it")
        return full

    def image(self, path: str) -> bytes:
        full = self._locate(path)
        try:
            return full.read_bytes()
        except FileNotFoundError as error:
            raise ImageError("the image is missing; put the file there or drop its row") from error
        except OSError as error:
            raise ImageError(f"the image cannot be read ({error.strerror}); check its permissions") from error

    def drop(self, lines: Sequence[int], paths: Sequence[str]) -> list[str]:
        raw = self._read()
        gone = {line - 2 for line in lines}
        kept = raw.iloc[[row for row in range(len(raw)) if row not in gone]]
        # Files first: while a row still names a file, a later try finds it again.
        named = normalise(kept, self.name)["path"]
        needed = {self.root / path for path in named} | {self._locate(path) for path in named}
        failed = 0
        for path in set(paths):
            try:
                for file in {self._locate(path), self.root / path} - needed:  # a link goes with what it names
                    file.unlink(missing_ok=True)
            except OSError:
                failed += 1
        if failed:
            return [f"{failed} image files could not be deleted"]
        if self.manifest.suffix == ".parquet":
            write_whole(self.manifest, lambda draft: kept.to_parquet(draft, index=False))
        else:
            text = io.StringIO()
            kept.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL)
            write_whole(self.manifest, text.getvalue().encode())
        return []
