"""`lmeraser slots N`: append slots to params.yaml, and write the pipeline files that hold them (`lmeraser/pipeline/files.py`).

The list only grows. params.yaml is written first, and every byte but the list stays; after a crash it says what the
other files should be, and the same command finishes them. What the locks record moves with its slot: nothing is trained again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.dvc.params_file import write_checked
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import IN_ROOT, Params, read_params, slot_name
from lmeraser.pipeline.files import LOCK, ROOT_FILE, SLOTS_A_LINE, expected, file_of, files, locks_there
from lmeraser.pipeline.locks import SCHEMA, written_entries

MOST = 10_000  # slots


def next_names(slots: Sequence[str], wanted: int) -> list[str]:
    """Names to append until there are `wanted`: a slot's number is its place, c07 or c123, unless that name is taken."""
    names: list[str] = []
    known = set(slots)
    number = len(slots)
    while len(slots) + len(names) < wanted:
        name = slot_name(number)
        number += 1
        if name not in known:
            names.append(name)
    return names


def with_names(text: str, slots: Sequence[str], names: Sequence[str]) -> str:
    """params.yaml with names appended to `slots`; every other byte stays, comments too.

    Above what dvc.yaml holds, names that are their numbers are written as a range: see `params.expand_slots`.
    """
    tree: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    node = next(value for key, value in tree.value if key.value == "slots")
    every = [*slots, *names]
    if len(every) > IN_ROOT and every == [slot_name(number) for number in range(len(every))]:
        end = node.end_mark.index if node.id == "scalar" or node.flow_style else node.value[-1].end_mark.index
        before = text[: node.start_mark.index].rstrip(" \n-") + " "
        return f"{before}{slot_name(0)}..{slot_name(len(every) - 1)}{text[end:]}"
    if not names:
        return text
    last = node.value[-1]
    at = last.end_mark.index
    if node.flow_style:
        lines = [", ".join(names[start : start + SLOTS_A_LINE]) for start in range(0, len(names), SLOTS_A_LINE)]
        return text[:at] + "".join(f",\n  {line}" for line in lines) + text[at:]
    indent = " " * (last.start_mark.column - 2)
    return text[:at] + "".join(f"\n{indent}- {name}" for name in names) + text[at:]


def _append(layout: Layout, params: Params, wanted: int) -> list[str]:
    """Write params.yaml with as many slots as are wanted; returns the new names."""
    names = next_names(params.slots, wanted)
    before = layout.params.read_text(encoding="utf-8")
    problem = "params.yaml: cannot append to the slots list in the way it is written; add the slots by hand and retry"
    appended = params.model_copy(update={"slots": (*params.slots, *names)})
    write_checked(layout, with_names(before, params.slots, names), appended, problem)
    return names


def _entries(path: Path) -> dict[str, str]:
    """What a lock records, by stage, as it is written. Raises: ProjectError if it is not as DVC writes it."""
    try:
        return written_entries(path.read_text(encoding="utf-8"))
    except ValueError as error:
        name = path.relative_to(path.parents[2] if path.parent.parent.name == "tune" else path.parent)
        raise ProjectError(
            f"{name} is not in the format that DVC writes; restore it from git, or delete it, retry, and build again"
        ) from error


def _move_entries(layout: Layout, params: Params) -> int:
    """Let each lock record the stages of its own pipeline file; returns how many moved. What is gained is written first."""
    recorded = {path.relative_to(layout.root).as_posix(): _entries(path) for path in locks_there(layout.root)}
    right: dict[str, dict[str, str]] = {name: {} for name in recorded}
    moved = 0
    for name, entries in recorded.items():
        for stage, text in entries.items():
            home = str(Path(file_of(stage, params.slots)).with_name(LOCK))
            moved += home != name
            # Where both have it (a crash came between two files), what stands at home already is newer or the same.
            if home == name or stage not in recorded.get(home, {}):
                right.setdefault(home, {})[stage] = text
    for name in sorted(right, key=lambda name: (len(right[name]) < len(recorded.get(name, {})), name)):
        path = layout.root / name
        if right[name] != recorded.get(name):
            if right[name]:
                write_atomically(path, (SCHEMA + "".join(right[name].values())).encode())
            else:
                path.unlink(missing_ok=True)
    return moved


def _write_files(layout: Layout, params: Params) -> list[str]:
    """Write every pipeline file that is not as it should be; returns their names."""
    texts = expected((layout.root / ROOT_FILE).read_text(encoding="utf-8"), params.slots)
    there = {path.relative_to(layout.root).as_posix(): path.read_text(encoding="utf-8") for path in files(layout.root)}
    changed = sorted(name for name in {*texts, *there} if texts.get(name) != there.get(name))
    for name in changed:
        if name in texts:
            write_atomically(layout.root / name, texts[name].encode())
        else:
            (layout.root / name).unlink()
    return changed


def grow(layout: Layout, wanted: int) -> dict[str, Any]:
    """Bring slots and pipeline files to `wanted`; as many as there are writes the files anew. Call with the workspace's lock.

    Raises: BadInputError if that would take slots away; ParamsError, ProjectError if a file cannot be edited.
    """
    params = read_params(layout.params)
    if not len(params.slots) <= wanted <= MOST:
        raise BadInputError(
            f"{wanted} slots were asked for and params.yaml lists {len(params.slots)}; expected {len(params.slots)} to {MOST}: "
            "the list only grows, because a removed slot leaves its file behind"
        )
    added = _append(layout, params, wanted)
    params = read_params(layout.params)
    moved = _move_entries(layout, params)
    changed = _write_files(layout, params)
    return {"slots": len(params.slots), "added": added, "files": changed, "entries_moved": moved}
