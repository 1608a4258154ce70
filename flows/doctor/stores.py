"""Checks of what lies elsewhere: DVC's remotes, and the Prefect server. Nothing is written there."""

import json
from collections.abc import Sequence

from flows.doctor.checkup import divided, fine, warn, wrong
from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.stores.base import Store

Results = Sequence[tuple[str, str, str]]
MEND = "check its URL, mount, network and credentials (`dvc remote list`)"


def remotes(layout: Layout) -> Results:
    """Whether each remote answers, and a purge could delete from it. Raises: ProjectError for a kind that purge cannot clear."""
    from flows.dvc import config

    named = config.remotes(layout)
    return [_remote(store) for store in named] or [fine("no remote; all copies are in the local cache")]


def _remote(store: Store) -> tuple[str, str, str]:
    import os

    try:
        next(iter(store.list()), None)
    except LmeraserError as error:
        return wrong(divided(str(error))[0], MEND)
    root = getattr(store, "root", None)
    if root is not None and not os.access(root, os.W_OK | os.X_OK):
        return wrong(f"{store.name} answers, but is read-only here", "a purge must delete there: mend its permissions or mount")
    kind = "a folder" if root is not None else "S3, by its listing; whether deletes are allowed shows in a purge alone"
    return fine(f"{store.name} answers ({kind})")


def server(layout: Layout) -> Results:
    """Whether the Prefect server that requests are told to answers."""
    from flows.service.client import server_of
    from flows.service.health import problem_of

    named = server_of(layout)
    if named is None:
        return [fine("no server; `lmeraser forget` and `resume` need none, `make serve` starts one")]
    reason = problem_of(named)
    if reason is None:
        return [fine("the Prefect server answers")]
    text, advice = divided(reason)
    return [warn(text, f"{advice}; until then requests wait for `lmeraser resume`")]


def environment_of_artifacts(layout: Layout) -> Results:
    """Whether the model is of one environment, and of this one."""
    from lmeraser.core.environment import differing, grouped, in_words
    from lmeraser.core.params import load_params
    from lmeraser.learn.environment import network_environment
    from lmeraser.pipeline.mixing import environments_of, mixed

    params = load_params(layout.params)
    if not layout.head.is_file():
        return [fine("no model yet; next: `lmeraser build`")]
    made_in = environments_of(layout, params)
    line = mixed(made_in)
    if line:
        return [wrong(*divided(line))]
    theirs, own = grouped(made_in)[0][0], network_environment(params.device)
    others = differing(theirs, own)
    accuracy = json.loads((layout.metrics / "metrics.json").read_bytes())["accuracy"]["served"]
    if others:
        text = f"the model was made in another environment: {in_words(others, theirs, own)} (there / here)"
        return [warn(text, "an erasure here would mix the two and be refused: work where it was made, or `dvc repro --force`")]
    return [fine(f"made in this environment; served accuracy {accuracy:.3f}")]
