"""Where people come to stand who lose some of their records, asked of the stage `moves`: what a plan of single images must ask
the network."""

import json
import secrets
from collections.abc import Sequence
from functools import partial

from flows.project import Project
from flows.run.warm_client import run_chains
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.erase.plan import Lost, Move
from lmeraser.erase.roster import Roster
from lmeraser.pipeline.files import stage_names


def roster_of(project: Project, layout: Layout) -> Roster:
    """The project's roster of a state, which can plan the erasure of single images too. Raises: as `Project.roster`."""
    roster = project.roster(layout)
    roster.placer = placer_of(project, layout)
    return roster


def placer_of(project: Project, layout: Layout) -> "partial[list[Move]]":
    return partial(_moves_of, project, layout)


def _moves_of(project: Project, layout: Layout, lost: Sequence[Lost]) -> list[Move]:
    """Changes nothing. Raises: StepFailedError; ProjectError if the state is gone meanwhile."""
    token, copy = secrets.token_hex(8), layout != project.layout
    path = project.layout.moves(token)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    try:
        asked = {"folder": layout.root.name if copy else None, "lost": lost}
        write_atomically(path, readable_json(asked), mode=0o600)
        run_chains(project.layout, [stage_names("moves", [token])])
        return [Move(*numbers) for numbers in json.loads(path.read_bytes())]
    except StepFailedError as error:
        if copy and not layout.root.exists():
            raise ProjectError("the model that is served changed while this was planned; retry (`lmeraser resume`)") from error
        raise
    finally:
        path.unlink(missing_ok=True)
