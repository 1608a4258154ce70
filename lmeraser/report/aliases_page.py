"""The page that names who may be one person under several ids, for the one who decides: it is written where nobody else reads it.

Self-contained, without scripts, as the report page is. It is HTML and no table for a spreadsheet: a name that begins with `=` is
a name here, and no formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmeraser.report.page import engine, styled


@dataclass(frozen=True)
class AliasMember:
    """Attributes: records: that there are, 0: of a name that was asked for and that nobody has; public: whether some are public;
    asked: whether the page is about them."""

    subject: str
    records: int
    public: bool
    asked: bool


@dataclass(frozen=True)
class AliasGroup:
    """Attributes: why: they stand together; images: that tell it, 0 where the names do; more: members that are not shown."""

    why: str
    images: int
    members: Sequence[AliasMember]
    more: int


@dataclass(frozen=True)
class AliasFacts:
    """Attributes: groups: perhaps not all that were found; asked: people whom it is about, None: everybody."""

    groups: Sequence[AliasGroup]
    found: int
    asked: int | None


def render_aliases(facts: AliasFacts) -> bytes:
    """The page in UTF-8."""
    context = {"facts": facts, **styled("style.css")}
    return engine().get_template("aliases.html").render(context).encode(errors="replace")
