"""Split: a source's table and images become one public file and the private parts."""

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass

import pandas as pd

from lmeraser.core.digest import part_of, sha256, shard_of
from lmeraser.core.errors import ImageError, ManifestError
from lmeraser.core.names import MAX_LENGTH, unseen
from lmeraser.core.progress import track
from lmeraser.data.images import open_checked
from lmeraser.data.records import PRIVATE, PUBLIC, TRAIN, Record, record_id
from lmeraser.gate import expectations as expect
from lmeraser.sources import Source
from lmeraser.sources.base import ALLOWED, COLUMNS


@dataclass(frozen=True)
class Split:
    """Records with their images. `private` has one list for each part."""

    public: list[tuple[Record, bytes]]
    private: list[list[tuple[Record, bytes]]]
    repeated: int  # rows that repeat an image of the same subject, label and split


def _checks(table: pd.DataFrame) -> list[tuple[expect.Expectation, pd.Series, str]]:
    """Each expectation of the raw manifest, the rows that break it, and what is expected in words."""
    checks = [
        (
            expect.length_between(column, 1, MAX_LENGTH),
            ~table[column].str.len().between(1, MAX_LENGTH),
            f"expected 1 to {MAX_LENGTH} characters",
        )
        for column in ("path", "label", "subject")
    ]
    for column, allowed in ALLOWED.items():
        checks.append((expect.in_set(column, allowed), ~table[column].isin(allowed), f"expected {' or '.join(allowed)}"))
    checks.append((expect.unique("path"), table["path"].duplicated(keep="first"), "expected each path once"))
    return checks


def check_letters(table: pd.DataFrame, name: str, unit: str = "line") -> None:
    """Raise ManifestError, with the first line, if a label or subject has a character that nobody sees."""
    for column in ("subject", "label"):
        letters = {value: letter for value in table[column].unique() if (letter := unseen(value))}
        if letters:
            broken = table[table[column].isin(letters.keys())]
            first = broken.iloc[0]
            raise ManifestError(
                f"{name}: column {column}: {len(broken)} of {len(table)} rows have control or invisible characters (first at "
                f"{unit} {first['line']}: {letters[first[column]]}); expected none, so that each person has one name: "
                "type it again"
            )


def check_table(table: pd.DataFrame, name: str, unit: str = "line") -> int:
    """The raw manifest's suite; returns how many expectations held.

    Args: unit: of the column `line`.
    Raises: ManifestError naming expectation, column, count and the first line, and no value.
    """
    check_letters(table, name, unit)
    checks = _checks(table)
    failed = expect.failures(table, [expect.rows_at_least(1), *(check[0] for check in checks)])
    if not failed:
        return len(checks) + 1
    failure = failed[0]
    for expectation, broken, wanted in checks:
        if expectation == failure.expectation and broken.any():
            line = table.loc[broken, "line"].iloc[0]
            raise ManifestError(f"{name}: {failure} (first at {unit} {line}); {wanted}: correct the manifest and retry")
    raise ManifestError(f"{name}: {failure}; expected at least one record: add your images and retry")


def check_shares(table: pd.DataFrame, name: str) -> None:
    """Raise ManifestError unless there are public and private training records of at least two classes each."""
    training = table[table["split"] == TRAIN]
    for visibility, use in ((PUBLIC, "the backbone learns from them"), (PRIVATE, "the clusters learn from them")):
        labels = training.loc[training["visibility"] == visibility, "label"]
        if labels.empty:
            raise ManifestError(f"{name}: no {visibility} training records (0 found, {use}); add some and retry")
        if labels.nunique() < 2:
            raise ManifestError(
                f"{name}: the {visibility} training records have one class; expected at least two: add records of another class"
            )


def divide(source: Source, is_erased: Callable[[str], bool], n_parts: int) -> tuple[list[pd.DataFrame], int]:
    """Read and check a source's table, leave erased subjects out, and divide the rows: first the public ones, then each part's.

    Returns: the rows, and how many subjects were left out. Raises: ManifestError.
    """
    table = source.table()
    check_table(table, source.name, source.unit)
    subjects = table["subject"].unique()
    erased = {subject for subject in subjects if is_erased(subject)}
    retained = table[~table["subject"].isin(erased)]
    check_shares(retained, source.name)
    home = retained["subject"].map({subject: part_of(subject, n_parts) for subject in subjects})
    home = home.mask(retained["visibility"] == PUBLIC, -1)
    return [retained[home == place] for place in range(-1, n_parts)], len(erased)


def by_shard(rows: pd.DataFrame, n_shards: int) -> list[pd.DataFrame]:
    """The rows of a part, shard by shard: all of a subject's are in one, in their order; some shards may have none."""
    if n_shards == 1:
        return [rows]
    number = rows["subject"].map({subject: shard_of(subject, n_shards) for subject in rows["subject"].unique()})
    shards = dict(iter(rows.groupby(number, sort=False)))
    return [shards.get(place, rows.iloc[:0]) for place in range(n_shards)]


def read_home(
    source: Source, rows: pd.DataFrame, max_pixels: int, known: Collection[str] = (), erased_images: Container[str] = ()
) -> list[tuple[Record, bytes]]:
    """Read and check the images of rows that go to one file; erased images are left out.

    Args: known: digests of images that this code accepted before; erased_images: digests.

    A row whose image, subject, label and split repeat an earlier row's is the same record and is kept once. The same image
    under two subjects is two records: each goes with its own subject.
    Raises: ImageError (with the line of the manifest).
    """
    records: dict[str, tuple[Record, bytes]] = {}
    fields = zip(*(rows[column].tolist() for column in ("line", *COLUMNS)), strict=True)
    for line, path, label, subject, visibility, split in track(fields, len(rows), "split", "image"):
        try:
            image = source.image(path)
            digest = sha256(image)
            if digest in erased_images:
                continue
            if digest not in known:
                open_checked(image, max_pixels)
        except ImageError as error:
            raise ImageError(f"{source.name} {source.unit} {line}: {error}") from error
        identity = record_id(digest, subject, label, visibility, split)
        records[identity] = (Record(identity, digest, label, subject, split), image)
    return list(records.values())


def split_source(source: Source, is_erased: Callable[[str], bool], n_parts: int, max_pixels: int) -> Split:
    """All of `divide` and `read_home` at once, for whoever wants every record in memory (the stage does not).

    Raises: ManifestError, ImageError.
    """
    homes, _ = divide(source, is_erased, n_parts)
    public, *private = [read_home(source, rows, max_pixels) for rows in homes]
    return Split(public, private, sum(map(len, homes)) - len(public) - sum(map(len, private)))
