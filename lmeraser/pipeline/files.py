"""Which pipeline file holds which stage, and which lock records it. Nobody else knows that there may be several.

DVC reads and writes a whole `dvc.lock` for each stage that ran, so one file of many slots costs the square of their number. Up to
IN_ROOT slots `dvc.yaml` holds all of them. Above, `lmeraser slots` empties its `tune` and writes the slots into

    tune/00/dvc.yaml, tune/01/dvc.yaml, ...      SLOTS_A_FILE slots each, with a dvc.lock beside each

by the definition that `dvc.yaml` has. A slot's file depends on its place in the list alone, and the list only grows, so an
appended slot moves no other one. `evaluate` depends on `artifacts/tune`, so a plain `dvc repro` at the root builds all of it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.errors import ProjectError
from lmeraser.core.params import IN_ROOT

ROOT_FILE, LOCK = "dvc.yaml", "dvc.lock"
SLOTS_A_FILE = 32
SLOTS_A_LINE = 16
INLINE, ELSEWHERE = "${slots}", "[]  # the slots are in tune/NN/dvc.yaml, which `lmeraser slots` writes"
TUNE = re.compile(
    r"^  tune:\n    foreach: (?P<items>.*)\n(?P<do>    do:\n(?:      .*\n)+)", re.MULTILINE
)  # the stage as dvc.yaml spells it


@dataclass(frozen=True)
class StageName:
    """A stage's plain name: `head`, `tune@c07`. Attributes: item: the slot, part or folder; "" where there is one of the kind."""

    kind: str
    item: str = ""

    @classmethod
    def parse(cls, name: str) -> "StageName":
        kind, _, item = name.partition("@")
        return cls(kind, item)

    def __str__(self) -> str:
        return f"{self.kind}@{self.item}" if self.item else self.kind

    @property
    def recorded(self) -> bool:
        """Whether a lock records it. DVC knows nothing of what runs when a request is accepted or something is planned."""
        return self.kind not in ("interim_head", "newcomers", "moves", "near")


def stage_names(kind: str, items: Iterable[str]) -> list[str]:
    """The plain names of a stage's items: `tune@c00`, `tune@c07`."""
    return [str(StageName(kind, item)) for item in items]


def slots_by_file(slots: Sequence[str]) -> list[tuple[str, ...]]:
    """The slots of each file below tune/; none if dvc.yaml holds them."""
    if len(slots) <= IN_ROOT:
        return []
    return [tuple(slots[start : start + SLOTS_A_FILE]) for start in range(0, len(slots), SLOTS_A_FILE)]


def slots_file(number: int) -> str:
    return f"tune/{number:02d}/{ROOT_FILE}"


def file_of(stage: str, slots: Sequence[str]) -> str:
    """The pipeline file, relative to the root, that holds a stage; `stage` is a plain name: `head`, `tune@c07`."""
    name = StageName.parse(stage)
    if name.kind != "tune" or len(slots) <= IN_ROOT or name.item not in slots:
        return ROOT_FILE
    return slots_file(slots.index(name.item) // SLOTS_A_FILE)


def plain_name(target: str) -> str:
    """`tune/03/dvc.yaml:tune@c123`, as DVC calls it, to `tune@c123`."""
    return target.rpartition(":")[2]


def files(root: Path) -> list[Path]:
    """Every pipeline file that is there, dvc.yaml first."""
    return [root / ROOT_FILE, *sorted(root.glob(f"tune/*/{ROOT_FILE}"))]


def locks(root: Path) -> list[Path]:
    """The lock beside every pipeline file, whether it is there or not. All of them together are the state of the pipeline."""
    return [path.with_name(LOCK) for path in files(root)]


def locks_there(root: Path) -> list[Path]:
    """Every lock that lies in a project or in a copy of its artifacts, also one whose pipeline file is gone."""
    return [path for path in (root / LOCK, *sorted(root.glob(f"tune/*/{LOCK}"))) if path.is_file()]


def is_lock(name: str) -> bool:
    """Whether a path relative to the root is that of a lock, of this or of another number of slots."""
    return name == LOCK or (name.startswith("tune/") and name.endswith(f"/{LOCK}") and name.count("/") == 2)


def expected(root_text: str, slots: Sequence[str]) -> dict[str, str]:
    """Every pipeline file as it should be for these slots: path relative to the root, and text.

    Args: root_text: dvc.yaml as it is now; its `tune` is the definition that the others copy.
    Raises: ProjectError if `tune` cannot be found there.
    """
    definition = TUNE.search(root_text)
    if not definition:
        raise ProjectError("dvc.yaml: the stage tune is not written as `foreach` and `do`; restore dvc.yaml from git and retry")
    divided = slots_by_file(slots)
    start, end = definition.span("items")
    texts = {ROOT_FILE: root_text[:start] + (ELSEWHERE if divided else INLINE) + root_text[end:]}
    for number, items in enumerate(divided):
        texts[slots_file(number)] = _slots_text(items, definition["do"])
    return texts


def _slots_text(items: Sequence[str], definition: str) -> str:
    lines = [", ".join(items[start : start + SLOTS_A_LINE]) for start in range(0, len(items), SLOTS_A_LINE)]
    inside = definition.removeprefix("    do:\n")
    listed = ",\n      ".join(lines)
    return (
        "# Written by `lmeraser slots` from the stage tune of ../../dvc.yaml. Change it there, then run that again.\n"
        f"stages:\n  tune:\n    foreach: [\n      {listed}]\n    do:\n      wdir: ../..\n{inside}"
    )


def stale_file(root: Path, slots: Sequence[str]) -> str | None:
    """The first pipeline file that is not what it should be for these slots; None if all are."""
    texts = expected((root / ROOT_FILE).read_text(encoding="utf-8"), slots)
    there = {path.relative_to(root).as_posix(): path for path in files(root)}
    for name in sorted({*texts, *there}):
        if name not in texts or name not in there or there[name].read_text(encoding="utf-8") != texts[name]:
            return name
    return None


def check_files(root: Path, slots: Sequence[str]) -> None:
    """Raise ProjectError unless the pipeline files hold exactly the slots of params.yaml, by the definition in dvc.yaml."""
    stale = stale_file(root, slots)
    if stale:
        raise ProjectError(
            f"{stale} does not hold what the {len(slots)} slots of params.yaml need; run `lmeraser slots {len(slots)}` and retry"
        )
