"""Export the served model: one folder that answers without the project, DVC and Prefect, and says what its holders must do."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flows import git
from flows.audit import notes
from flows.dvc.command import require_current
from flows.project import Project, workspace
from flows.release.card import card
from flows.requests.certify import CODE
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.environment import fingerprint
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.files import DRAFT, discard, take_place, write_atomically
from lmeraser.core.layout import EXPORT_FILE, Layout
from lmeraser.core.params import Params, load_params
from lmeraser.pipeline.mixing import artifacts_environment
from lmeraser.prove.certificate import read_head, sign
from lmeraser.prove.export import CARD_FILE, Exported, make_export_statement
from lmeraser.prove.home import read_project_id
from lmeraser.prove.keys import load_or_create_signer, signing_key_path
from lmeraser.serve.files import served_files

EVENT = "exported"
ELSEWHERE = "exported"  # in params of an export: where the records and the given weights are, nobody is told
MANIFEST = {"kind": "manifest", "path": ELSEWHERE, "erase": False}


def export(project: Project, folder: Path, name: str, license_name: str | None) -> dict[str, Any]:
    """Write the export; a folder that holds an older one is replaced as a whole. Returns what it came to.

    Args: name: of the model, on its card; license_name: an SPDX id, or None.
    Raises: ProjectError if the model is not whole and current, or a request is open; BadInputError if the folder is in use.
    """
    _require_free(folder)
    with workspace(project):
        _require_nobody_waits(project)
        require_current(project.layout, whole=True)
        exported = _exported(project)
        with _draft_of(folder) as draft:
            files = _copy_model(project, draft)
            about = _about(project.params, project.layout, license_name)
            (draft / CARD_FILE).write_bytes(card(name, exported, about))
            files[CARD_FILE] = sha256_of_file(draft / CARD_FILE)
            layout = project.layout
            signer = load_or_create_signer(signing_key_path(layout.private_state), layout.public_keys)
            write_atomically(draft / EXPORT_FILE, sign(make_export_statement(exported, files), signer))
            version = exported.model_version
            project.ensure_subject_key()  # before the ledger holds anything: later it would count as lost
            project.ledger.note(None, EVENT, {"model_version": version, "certificates": exported.certificates})
            take_place(draft, folder)
    return {"model_version": version, "files": len(files) + 1, "certificates": exported.certificates, "folder": str(folder)}


def outdated(project: Project) -> int:
    """How many versions were exported before the last erasure: their holders must be told."""
    last = project.ledger.last_event("certified")
    exported = project.ledger.events(kinds=(EVENT,)) if last else []
    return len({event.data["model_version"] for event in exported if last and event.seq < last.seq})


def _require_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInputError("the export's folder is a file or a link; name a new folder, or that of an older export")
    if folder.is_dir() and any(folder.iterdir()) and not Layout(folder).is_export:
        raise BadInputError("the export's folder holds other files; name a new folder, or that of an older export")
    if not folder.parent.is_dir():
        raise BadInputError("the folder in which the export should lie does not exist; make it, or name another")


def _require_nobody_waits(project: Project) -> None:
    waiting = len(project.ledger.all(open_only=True))
    if waiting:
        raise ProjectError(
            f"{waiting} requests are open, so the model still knows people who are to be erased; export again when `lmeraser "
            "status` shows that they are certified"
        )


def _exported(project: Project) -> Exported:
    """Raises: VerificationError where the model is of two environments; ProjectError where it may not answer."""
    from lmeraser.serve.loading import Reading, read
    from lmeraser.serve.watching import Watch

    layout = project.layout
    served = read(Watch(layout), Reading(one_pass=False, batch=None, at_once=1))
    head, made_in = read_head(layout.certificates), artifacts_environment(layout, project.params)
    return Exported(
        served.version,
        read_project_id(layout.project_id),
        datetime.now(UTC).isoformat(timespec="seconds"),
        head[0] if head else 0,
        head[1] if head else None,
        _last_audits(project),
        made_in,
        fingerprint(made_in),
        git.revision(layout.root, CODE),
    )


def _last_audits(project: Project) -> dict[str, str]:
    """The last audit of each kind, in words."""
    audits: dict[str, str] = {}
    if last := project.ledger.last_event(notes.STORES):
        clean = "clean" if last.data["clean"] else "residue was found"
        audits["stores"] = f"{last.at[:10]}, {last.data['share']} of the files: {clean}"
    if last := project.ledger.last_event(notes.REBUILD):
        audits["rebuild"] = (
            f"{last.at[:10]}: {'equal' if last.data['equal'] else 'NOT equal'}, {last.data['artifacts']} artifacts"
        )
    return audits


@contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """A folder beside it, which goes if something fails."""
    draft = folder.with_name(f"{DRAFT}{folder.name}")
    discard(draft)
    draft.mkdir()
    try:
        yield draft
    finally:
        discard(draft)


def _copy_model(project: Project, draft: Path) -> dict[str, str]:
    """Copy what answers; returns path in the export to SHA-256. Raises: ProjectError if a file is missing."""
    layout, files = project.layout, {}
    for path in served_files(layout):
        name = path.relative_to(layout.root).as_posix()
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, draft / name)
        except FileNotFoundError as error:
            raise ProjectError(f"{name} is missing; run `dvc checkout` or `dvc repro` and retry") from error
        files[name] = sha256_of_file(draft / name)
    target = Layout(draft).params
    target.write_text(_public_params(project.params), encoding="utf-8")
    load_params(target)  # what cannot be loaded is not exported
    return files | {target.name: sha256_of_file(target)}


def _public_params(params: Params) -> str:
    """params.yaml without where the records and given weights lie: a path may name somebody."""
    values = params.model_dump(mode="json")
    values["source"] = MANIFEST
    if values["pretrain"]["weights"]:
        values["pretrain"]["weights"]["file"] = ELSEWHERE
    return yaml.safe_dump(values, sort_keys=False)


def _about(params: Params, layout: Layout, license_name: str | None) -> dict[str, Any]:
    try:
        metrics = json.loads((layout.metrics / "metrics.json").read_bytes())
        accuracy = metrics["accuracy"]["served"]
    except (OSError, ValueError, KeyError, TypeError):
        accuracy = None
    image = params.image
    return {
        "model": params.pretrain.model,
        "size": image.size,
        "channels": "grey" if image.channels == 1 else "RGB",
        "license": license_name,
        "accuracy": accuracy,
    }
