"""Questions to a stage that DVC knows nothing of: what the network alone can tell, and nobody else may read."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.project import Project
from flows.run.warm_client import run_chains
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import stage_names


def ask(project: Project, layout: Layout, stage: str, file: Callable[[str], Path], fields: Mapping[str, Any]) -> Any:
    """What a stage answers about a state, the workspace's or a copy's. Changes nothing: the question's file is gone afterwards.

    Args: file: of a token. Raises: StepFailedError; ProjectError if the state is gone meanwhile.
    """
    token, copy = secrets.token_hex(8), layout != project.layout
    path = file(token)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    try:
        asked = {"folder": layout.root.name if copy else None, **fields}
        # In its place, not by a draft: nobody reads it before it is whole, and what a kill leaves is known by its name.
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
            stream.write(readable_json(asked))
        run_chains(project.layout, [stage_names(stage, [token])])
        return json.loads(path.read_bytes())
    except StepFailedError as error:
        if copy and not layout.root.exists():
            raise ProjectError("the model that is served changed while this was planned; retry (`lmeraser resume`)") from error
        raise
    finally:
        path.unlink(missing_ok=True)
