"""What the served model leaves out while requests are open, from the moment that they are accepted.

A quarantine points at a whole copy of the artifacts (hard links: the pipeline replaces files and never writes into them), so
that the model stays whole while the workspace changes. From it the clusters that the people of open requests influenced are
left out, and the global head is the one without them. `.lmeraser/quarantine.json` is the pointer; it is replaced at once.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.pipeline.links import link_artifacts

WHOLE, WITHHELD, INTERIM = "whole", "withheld", "interim"


@dataclass(frozen=True)
class Quarantine:
    """Attributes:
    folder: name of the copy below `.lmeraser/quarantine`; slots: clusters that are left out.
    head: whole (nobody in it asked), withheld (not solved yet: only clusters answer), or interim (solved without them).
    model_withheld: the backbone itself learnt from them; nothing answers until it is rebuilt.
    """

    folder: str
    slots: list[str]
    head: str
    model_withheld: bool

    def layout(self, project: Layout) -> Layout:
        return Layout(project.quarantine_copies / self.folder)

    def head_file(self, project: Layout) -> Path | None:
        """The global head to use; None while it is withheld."""
        if self.head == WITHHELD:
            return None
        layout = self.layout(project)
        return layout.root / "interim.safetensors" if self.head == INTERIM else layout.head


def read_quarantine(project: Layout) -> Quarantine | None:
    """None if nothing is left out: the artifacts themselves are served."""
    try:
        raw = json.loads(project.quarantine.read_bytes())
        return Quarantine(str(raw["folder"]), [str(slot) for slot in raw["slots"]], raw["head"], raw["model_withheld"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError("quarantine.json is damaged; run `lmeraser resume`, which makes it again") from error


def write_quarantine(project: Layout, quarantine: Quarantine) -> None:
    write_atomically(project.quarantine, readable_json(asdict(quarantine)), mode=0o600)


def copy_artifacts(origin: Layout, project: Layout, folder: str) -> Layout:
    """Link the artifacts, params and locks of `origin` into a new copy. Takes no space."""
    target = project.quarantine_copies / folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, mode=0o700)
    copy = Layout(target)
    link_artifacts(origin, copy)
    return copy


def lift(project: Layout) -> None:
    """Serve the artifacts themselves again, and delete every copy."""
    project.quarantine.unlink(missing_ok=True)
    shutil.rmtree(project.quarantine_copies, ignore_errors=True)


def drop_other_copies(project: Layout, kept: str) -> None:
    for folder in project.quarantine_copies.iterdir():
        if folder.name != kept:
            shutil.rmtree(folder, ignore_errors=True)
