"""Whether the artifacts of a project are one whole model: what the locks say of each other, and what the files are.

While stages run, some files are new and others old. A model of both would be one that nobody checked, and might still know
people whose erasure is half done. Runs no DVC, and reads no records: what the locks recorded is compared, path by path.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import StageName, locks, plain_name
from lmeraser.pipeline.locks import Outs, damaged, load_yaml, named_of, read_files

BESIDE = ("evaluate",)  # measures the model and makes nothing of it
NOT_WHOLE = "a build is under way, or was interrupted; wait for it, or run `lmeraser build`, and retry"


def _recorded(root: Path) -> Iterator[tuple[str, tuple[tuple[str, str], ...], Outs]]:
    """Each stage with what it read and what it made. Raises: ProjectError if a lock is missing or damaged."""
    for lock in locks(root):
        name = lock.relative_to(root).as_posix()
        try:
            stages = load_yaml(lock.read_bytes())["stages"]
            for stage, entry in stages.items():
                deps, outs = named_of(entry)
                yield plain_name(stage), deps, dict(outs)
        except FileNotFoundError as error:
            raise ProjectError(f"{name} is missing: nothing was built yet; run `lmeraser build` and retry") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProjectError(damaged(name)) from error


def require_whole(layout: Layout, slots: list[str]) -> None:
    """Raise ProjectError unless what is served was made of one state of the project, with everybody on data/erased.json kept out.

    Every artifact has one digest wherever the locks name it; the files that are served have it; and `split` and `validate` ran
    with the list of erased people as it lies there.

    Args: slots: whose clusters answer.
    """
    known: dict[str, str] = {}
    stages = set()
    for stage, deps, outs in _recorded(layout.root):
        kind = StageName.parse(stage)
        if kind.kind in BESIDE or (kind.kind == "tune" and kind.item not in slots):
            continue
        stages.add(stage)
        for path, digest in (*deps, *outs.items()):
            if path.startswith(("artifacts/", "data/erased.json")) and known.setdefault(path, digest) != digest:
                raise ProjectError(f"{path} is recorded in two states; {NOT_WHOLE}")
    _require_stages(stages, slots)
    _require_files(layout, known, slots)


def _require_stages(stages: set[str], slots: list[str]) -> None:
    missing = {"split", "pretrain", "skeleton", "cluster", "validate", "head", *(f"tune@{slot}" for slot in slots)} - stages
    if missing:
        raise ProjectError(f"dvc.lock records no stage {min(missing)}; run `lmeraser build` and retry")


def _require_files(layout: Layout, known: Outs, slots: list[str]) -> None:
    served = [layout.erased, layout.backbone, layout.skeleton, layout.clusters, layout.head, *map(layout.tuned, slots)]
    inside = [path for path in known if path.startswith("artifacts/cluster/")]
    paths = [*(path.relative_to(layout.root).as_posix() for path in served), *inside]
    there = read_files(layout.root, paths)
    for path in paths:
        if path not in there:
            raise ProjectError(f"{path} is missing; run `lmeraser build` (or `dvc checkout`) and retry")
        if path in known and there[path] != known[path]:
            raise ProjectError(f"{path} is not what the locks record; {NOT_WHOLE}")
        if path not in known:
            raise ProjectError(f"dvc.lock records no {path}; run `lmeraser build` and retry")


def require_export_whole(layout: Layout) -> None:
    """Raise ProjectError unless the files of an export are those that its statement names.

    The signature, for which a key of the issuer is needed, is `lmeraser verify FOLDER --key`'s to check (`prove/export.py`).
    """
    try:
        statement = json.loads(base64.b64decode(json.loads(layout.export.read_bytes())["payload"]))
        named = {str(subject["name"]): str(subject["digest"]["sha256"]) for subject in statement["subject"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{layout.export.name} is damaged; get the export from its issuer again") from error
    for path, digest in named.items():
        file = layout.root / path
        if not file.is_file() or sha256_of_file(file) != digest:
            raise ProjectError(f"{path} is missing, or not the file that was exported; get the export from its issuer again")
