"""Where people come to stand who lose some of their records, asked of the stage `moves`: what a plan of single images must ask
the network."""

from collections.abc import Sequence
from functools import partial

from flows.project import Project
from flows.run.questions import ask
from lmeraser.core.layout import Layout
from lmeraser.erase.plan import Lost, Move
from lmeraser.erase.roster import Roster


def roster_of(project: Project, layout: Layout) -> Roster:
    """The project's roster of a state, which can plan the erasure of single images too. Raises: as `Project.roster`."""
    roster = project.roster(layout)
    roster.placer = placer_of(project, layout)
    return roster


def placer_of(project: Project, layout: Layout) -> "partial[list[Move]]":
    return partial(_moves_of, project, layout)


def _moves_of(project: Project, layout: Layout, lost: Sequence[Lost]) -> list[Move]:
    """Changes nothing. Raises: StepFailedError; ProjectError if the state is gone meanwhile."""
    return [Move(*numbers) for numbers in ask(project, layout, "moves", project.layout.moves, {"lost": lost})]
