"""Whether a model was made in one environment: read from the notes of its artifacts alone.

DVC sees code, data and params, but no environment: what is retrained elsewhere, or under another pin, mixes with what was there.
"""

from pathlib import Path
from typing import Any

from lmeraser.core.environment import Environment, differing, grouped, in_words
from lmeraser.core.errors import VerificationError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_note

REBUILD = "`dvc repro --force`"  # every stage runs again, whatever the run-cache holds
MOST = 3  # stages that a line names


def noting_stages(layout: Layout, params: Params) -> dict[str, Path]:
    """The stages whose artifact holds its environment, by DVC's name, with that file, in the order in which they are made."""
    return {
        "pretrain": layout.backbone,
        "skeleton": layout.skeleton,
        **{f"embed@{part}": layout.sums(part) for part in params.parts},
        "cluster": layout.router,
        **{f"tune@{slot}": layout.tuned(slot) for slot in params.slots},
        "head": layout.head,
    }


def _environment_in(note: dict[str, Any]) -> Environment | None:
    environment = note.get("environment")
    if environment is None:  # an empty slot: nothing was computed
        return None
    if isinstance(environment, str):  # a note of version 0.1 held the digest alone
        return {"fingerprint": environment}
    return dict(environment)


def environments_of(layout: Layout, params: Params) -> dict[str, Environment]:
    """What each artifact was made in, by stage. Raises: ProjectError if one is missing or damaged."""
    notes = {stage: _environment_in(read_note(path)) for stage, path in noting_stages(layout, params).items()}
    return {stage: made_in for stage, made_in in notes.items() if made_in is not None}


def mixed(made_in: dict[str, Environment]) -> str | None:
    """One line: which artifacts are of another environment than most, in what, and how to mend it; None if none is."""
    (most, _), *others = grouped(made_in)
    if not others:
        return None
    odd = [stage for stage in made_in if any(stage in names for _, names in others)]
    union = others[0][0]
    named = ", ".join(odd[:MOST]) + (f" and {len(odd) - MOST} more" if len(odd) > MOST else "")
    return (
        f"the model is of {len(others) + 1} environments: {named} differ from the rest in "
        f"{in_words(differing(most, union), most, union)}; make all of it in one: run {REBUILD} (where the rest was made, as "
        "long as a request is open) and retry"
    )


def require_one_environment(layout: Layout, params: Params) -> None:
    """Raise VerificationError, with the line of `mixed`, where artifacts of two environments are in one model."""
    artifacts_environment(layout, params)


def artifacts_environment(layout: Layout, params: Params) -> Environment:
    """The one environment that the artifacts were made in, whatever this process runs in.

    Raises: VerificationError where there are two.
    """
    made_in = environments_of(layout, params)
    line = mixed(made_in)
    if line:
        raise VerificationError(line)
    return grouped(made_in)[0][0]
