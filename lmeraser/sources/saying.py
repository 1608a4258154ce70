"""What further columns of a source say of its rows: that consent was withdrawn, or that a record is past its time."""

from datetime import date
from typing import TYPE_CHECKING

from lmeraser.core.errors import BadInputError, ManifestError
from lmeraser.sources.base import Source
from lmeraser.sources.feed import parse_day

if TYPE_CHECKING:
    import pandas as pd

GIVEN, WITHDRAWN = frozenset({"yes", "true", "1", "given"}), frozenset({"no", "false", "0", "withdrawn"})


def says_withdrawn(source: Source, column: str) -> list[str]:
    """The people of whom a row says that consent was withdrawn, sorted, each once.

    Raises: ParamsError, ManifestError with the line of the first row that says neither yes nor no, and no value.
    """
    table = source.column(column)
    said = table["value"].str.strip().str.casefold()
    unclear = ~said.isin(GIVEN | WITHDRAWN | {""})
    if unclear.any():
        raise ManifestError(
            f"{source.name}: column {column}: {int(unclear.sum())} of {len(table)} rows say neither (first at {source.unit} "
            f"{table.loc[unclear, 'line'].iloc[0]}); expected {', '.join(sorted(GIVEN))} or {', '.join(sorted(WITHDRAWN))}, or "
            "nothing"
        )
    return sorted(table.loc[said.isin(WITHDRAWN), "subject"].unique())


def due_rows(source: Source, table: "pd.DataFrame", last: date) -> "pd.Series[bool]":
    """Which rows expired: whose date is before `last`. A row without a date does not expire.

    Args: table: of `Source.column`. Raises: ManifestError with the line of the first date that is none, and no value.
    """
    days: dict[str, date | None] = {}
    bad: set[str] = set()
    for text in table["value"].unique():
        try:
            days[text] = parse_day(text)
        except BadInputError:
            bad.add(text)
    if bad:
        broken = table["value"].isin(bad)
        raise ManifestError(
            f"{source.name}: retention.column: {int(broken.sum())} of {len(table)} rows hold no date (first at "
            f"{source.unit} {table.loc[broken, 'line'].iloc[0]}); expected YYYY-MM-DD, or nothing"
        )
    past = {text for text, day in days.items() if day is not None and day < last}
    return table["value"].isin(past)
