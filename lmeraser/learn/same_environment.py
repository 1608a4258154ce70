"""Whether this process computes as the artifacts were made: asked before anything is retrained."""

import json
import os

from lmeraser.core import determinism
from lmeraser.core.digest import canonical_json, readable_json, sha256
from lmeraser.core.environment import Environment, differing, environment, in_words
from lmeraser.core.errors import VerificationError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.mixing import REBUILD, artifacts_environment


def _known_network(layout: Layout, device: str) -> Environment:
    """As `network_environment`, without importing torch where this machine has told it before under the same settings."""
    if device != "cpu":  # another GPU changes nothing else
        return network_environment(device)
    pins = {name: os.environ.get(name) for name in determinism.PINS}
    asked = sha256(canonical_json([environment(), pins]))
    path = layout.known_environment
    try:
        known = json.loads(path.read_bytes())
        if known["asked"] == asked:
            return {str(key): str(value) for key, value in known["answer"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass  # not asked before
    answer = network_environment(device)
    write_atomically(path, readable_json({"asked": asked, "answer": answer}), mode=0o600)
    return answer


def require_same_environment(layout: Layout, params: Params) -> None:
    """Before anything is retrained: raise VerificationError unless this process computes as the artifacts were made.

    Cheap: torch is imported the first time alone. Raises: VerificationError also where they are of two environments already.
    """
    made_in = artifacts_environment(layout, params)
    here = _known_network(layout, params.device)
    keys = differing(made_in, here)
    if keys:
        raise VerificationError(
            f"the model was made in another environment than this one: {in_words(keys, made_in, here)}; what is retrained here "
            f"would mix with it: work where it was made, or make all of it here with {REBUILD}, and retry"
        )
