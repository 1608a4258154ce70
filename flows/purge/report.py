"""What a scan of all stores found, as the ledger, certificates and people get it: counts by store and kind, never a term, and of
files only names that everybody has who has the repository.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

from flows import git
from flows.purge.plan import by_store
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import NOTHING_CONDEMNED, Condemned
from lmeraser.prove.parquet import UNREADABLE
from lmeraser.prove.scan import Residue, StoreReport
from lmeraser.stores.base import Store
from lmeraser.stores.folder import FolderStore

WHICH = "which scan it was"
NEW, EVERYTHING = "new", "everything"
READINGS = (NEW, EVERYTHING)  # what a scan reads: what the index does not know, or all
LINE, SHOWN = 480, 3  # characters of a line of a certificate; files that a message names


@dataclass(frozen=True)
class StoreRow:
    """One store, with all of its folders. Attributes: objects: files that were read; bytes: of them. known: how many were not
    read, because the index knows that they hold nothing; waiting: whose turn it was not.

    where: files that hold something; unreadable: files that cannot be read; of both only those that git tracks, by path below
    the project. unknown: how many objects no known version of the pipeline names; None where nobody asked.
    """

    store: str
    objects: int = 0
    bytes: int = 0
    residue: tuple[Residue, ...] = ()
    where: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unknown: int | None = None
    known: int = 0
    waiting: int = 0

    def to_json(self) -> dict[str, object]:
        row: dict[str, object] = {
            "store": self.store,
            "objects": self.objects,
            "bytes": self.bytes,
            "residue": [asdict(residue) for residue in self.residue],
            "where": list(self.where),
            "unreadable": list(self.unreadable),
        }
        row |= {name: count for name in ("known", "waiting") if (count := getattr(self, name))}
        return row if self.unknown is None else row | {"unknown": self.unknown}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "StoreRow":
        """Raises: KeyError, TypeError if it is none."""
        residue = tuple(Residue(**counted) for counted in raw["residue"])
        where, unreadable = tuple(raw["where"]), tuple(raw["unreadable"])
        more = raw.get("unknown"), raw.get("known", 0), raw.get("waiting", 0)
        return cls(raw["store"], raw["objects"], raw["bytes"], residue, where, unreadable, *more)


@dataclass(frozen=True)
class ScanReport:
    """Attributes: stores: one row each; exempt: what was not looked into, or does not count, in words without personal data;
    notes: what is to be told of the index, in such words; reading: which scan it was, one of `READINGS`, or a share as `1/30`.
    holding: objects and run entries of the stores in which something was found; for who deletes them, and not told.
    """

    stores: tuple[StoreRow, ...]
    exempt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reading: str = ""
    holding: Condemned = NOTHING_CONDEMNED

    @property
    def clean(self) -> bool:
        """Whether nothing was found, and everything could be read."""
        return not any(row.residue for row in self.stores)

    def to_json(self) -> dict[str, object]:
        report: dict[str, object] = {
            "clean": self.clean,
            "stores": [row.to_json() for row in self.stores],
            "exempt": list(self.exempt),
        }
        report |= {"notes": list(self.notes)} if self.notes else {}
        return report | ({"reading": self.reading} if self.reading else {})

    def to_pipe(self) -> dict[str, object]:
        """All of it, for the process that asked: an object that is one image is named by its digest."""
        holding = {"objects": sorted(self.holding.objects), "run_entries": sorted(self.holding.run_entries)}
        return self.to_json() | {"holding": holding}

    def total(self, count: str) -> int:
        """Of all stores. Args: count: a name of what rows count."""
        return sum(getattr(row, count) for row in self.stores)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "ScanReport":
        """Raises: KeyError, TypeError if it is none."""
        rows = tuple(map(StoreRow.from_json, raw["stores"]))
        holding = Condemned(**{name: frozenset(names) for name, names in raw.get("holding", {}).items()})
        return cls(rows, tuple(raw["exempt"]), tuple(raw.get("notes", ())), raw.get("reading", ""), holding)


def which_scan(report: ScanReport) -> str:
    """How many files were read, and how many were not, and why, in words."""
    read, known, waiting = (report.total(name) for name in ("objects", "known", "waiting"))
    if report.reading == EVERYTHING:
        return f"all {read} files were read"
    if waiting or report.reading not in READINGS:
        return f"{read} files had their turn and were read, of {read + waiting}"
    return f"{read} files searched now, {known} known since the same bytes were searched, of {read + known}"


def report_of(
    layout: Layout,
    stores: Sequence[Store],
    reports: Sequence[StoreReport],
    exempt: Iterable[str],
    notes: Iterable[str] = (),
    reading: str = "",
) -> ScanReport:
    """What may be told of the stores' reports. Args: stores: all that were looked into, to tell which links lead out of them."""
    rows: dict[str, StoreRow] = {}
    for report in reports:
        row = rows.setdefault(report.store, StoreRow(report.store))
        rows[report.store] = replace(
            row,
            objects=row.objects + report.objects,
            bytes=row.bytes + report.bytes,
            known=row.known + report.known,
            waiting=row.waiting + report.waiting,
            residue=(*row.residue, *report.residue),
            where=(*row.where, *_tracked(layout, report, report.where)),
            unreadable=(*row.unreadable, *_tracked(layout, report, report.unreadable)),
        )
    holding = reduce(or_, (report.holding for report in reports), NOTHING_CONDEMNED)
    return ScanReport(tuple(rows.values()), (*exempt, *_exempt(stores, reports)), tuple(notes), reading, holding)


def _tracked(layout: Layout, report: StoreReport, keys: Iterable[str]) -> list[str]:
    """Which of these files have names that everybody has who has the repository; other names may be personal."""
    wanted = set(keys)
    if report.store != "workspace" or not wanted:
        return []
    return sorted(wanted & git.tracked(layout.root))


def _exempt(stores: Iterable[Store], reports: Iterable[StoreReport]) -> list[str]:
    """What was not looked into in the stores, in words and counts."""
    roots = [os.path.realpath(store.root) for store in stores if isinstance(store, FolderStore)]
    links = {path for report in reports for path in report.links}
    outside = [path for path in links if not any(path == root or path.startswith(root + os.sep) for root in roots)]
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.exempt)
    lines = [f"{count} {text}" for text, count in sorted(counts.items())]
    return [*lines, *([f"{len(outside)} linked files or folders outside the project: links are not followed"] if outside else [])]


def checks(report: ScanReport, known_by_bytes: bool, unknown: Mapping[str, int]) -> list[tuple[str, str]]:
    """What a certificate says of a scan that found nothing: pairs of a check and its result, each a line below 500 characters."""
    how = "by digest, content and bytes" if known_by_bytes else "by digest and content; what bytes are known by was lost"
    size = report.total("objects") + report.total("known")
    pairs = [(f"a new process found nothing left in {len(report.stores)} stores", f"{how}, {size} files")]
    if report.reading:
        pairs.append((WHICH, which_scan(report)))
    pairs += [("not looked into, or does not count", line[:LINE]) for line in report.exempt]
    if unknown:
        pairs.append(("objects that no known version of the pipeline names: accepted, they stay", by_store(unknown)[:LINE]))
    return pairs


def residue_line(report: ScanReport) -> str:
    """Where a scan found something, by store; and the files that could not be read, if git tracks them. The ledger keeps it."""
    rows = [row for row in report.stores if row.residue]
    counts = ", ".join(f"{row.store}: {sum(residue.count for residue in row.residue)}" for row in rows)
    unreadable = sum(residue.count for row in rows for residue in row.residue if residue.kind == UNREADABLE)
    files = [name for row in rows for name in row.unreadable]
    names = f" ({', '.join(files[:SHOWN])})" if files else ""
    return f"({counts})" + (f", {unreadable} of them files that cannot be read{names}" if unreadable else "")
