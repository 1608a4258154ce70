"""Which subjects may be one person under several ids: the same image, or a name that only its writing tells apart.

A pure function of the records. It decides nothing: names that look alike are often two people's, and one image may rightly show
two. What it finds names people in clear: it goes nowhere but to a private page for a human (`lmeraser/report/aliases_page.py`).
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.data.columns import among
from lmeraser.erase.facts import subjects_of
from lmeraser.erase.plan import Facts

IMAGES, NAME, NEAR = "same images", "same name", "near copies"  # why subjects stand together
MARKS = 10  # canonical combining classes from here on are accents and points; those below change the letter (virama, dakuten)


@dataclass(frozen=True)
class Alias:
    """Subjects that may be one person. Attributes: subjects: two or more, sorted; why: of the three above; images: that all of
    them have, or that look alike; 0 where the names tell."""

    subjects: tuple[str, ...]
    why: str
    images: int = 0


def plain_name(name: str) -> str:
    """A name without what only its writing tells: case, width, accents, and separators, but for those between two digits.

    `Müller, Anna`, `MULLER ANNA` and `muller_anna` are one; `1-2` and `12` are not, nor are か and が. Empty if it has no letter.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(letter for letter in letters if unicodedata.combining(letter) < MARKS).casefold()
    groups = [(apart, "".join(run)) for apart, run in groupby(bare, _separates)]
    kept = []
    for place, (apart, run) in enumerate(groups):
        inner = 0 < place < len(groups) - 1
        between = inner and groups[place - 1][1][-1].isdigit() and groups[place + 1][1][0].isdigit()
        kept.append(("-" if between else "") if apart else run)
    return unicodedata.normalize("NFC", "".join(kept))


def _separates(letter: str) -> bool:
    """Whether it is punctuation, a symbol, a blank or a control."""
    return unicodedata.category(letter)[0] in "PSZC"


def aliases_of(facts: Facts, asked: Collection[str] | None = None) -> list[Alias]:
    """Everybody who may be there twice, by images, then by names, most images first.

    Args: asked: whom it is about, also people of whom no record is: they may be there under another spelling. None: everybody.
    """
    found = [*_same_images(facts), *_same_names({*subjects_of(facts), *(asked or ())})]
    wanted = None if asked is None else frozenset(asked)
    return [alias for alias in found if wanted is None or wanted & set(alias.subjects)]


def _same_images(facts: Facts) -> list[Alias]:
    """Subjects who have the very same bytes; those who share the same images with the same others stand together once."""
    held = pa.concat_tables([records.select(["sha256", "subject"]) for records in (facts.private, facts.public)])
    held = held.group_by(["sha256", "subject"]).aggregate([])
    counted = held.group_by("sha256").aggregate([("subject", "count")])
    shared = counted.filter(pc.greater(counted["subject_count"], 1))["sha256"].to_pylist()
    holders: dict[str, list[str]] = {}
    for row in held.filter(among(held["sha256"], shared)).to_pylist():
        holders.setdefault(row["sha256"], []).append(row["subject"])
    return _by_images(holders.values(), IMAGES)


def _by_images(groups: Iterable[Collection[str]], why: str) -> list[Alias]:
    """Args: groups: of each image, the subjects who have it."""
    images = Counter(tuple(sorted(subjects)) for subjects in groups)
    return sorted((Alias(subjects, why, count) for subjects, count in images.items()), key=lambda a: (-a.images, a.subjects))


def _same_names(subjects: Iterable[str]) -> list[Alias]:
    by_name: dict[str, list[str]] = {}
    for subject in subjects:
        by_name.setdefault(plain_name(subject), []).append(subject)
    return [Alias(tuple(sorted(names)), NAME) for plain, names in sorted(by_name.items()) if plain and len(names) > 1]


def near_aliases(pairs: Sequence[tuple[str, str]]) -> list[Alias]:
    """Args: pairs: of each image of somebody else that looks like one of the asked: who has it, and whom it looks like."""
    return _by_images((pair for pair in pairs if len(set(pair)) == 2), NEAR)


def counts_of(aliases: Sequence[Alias]) -> Mapping[str, int]:
    """How many groups there are for each reason, and how many people are in one or more."""
    kinds = {why.replace(" ", "_"): sum(alias.why == why for alias in aliases) for why in (IMAGES, NAME, NEAR)}
    return kinds | {"subjects": len({subject for alias in aliases for subject in alias.subjects})}
