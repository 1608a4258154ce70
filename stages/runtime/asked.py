"""The other end of `flows/run/questions.py`: a question is read from its file, and the answer takes its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser.core.digest import readable_json
from lmeraser.core.layout import Layout


def answer_in_place(project: Layout, path: Path, answer: Callable[[Layout, dict[str, Any]], Any]) -> None:
    """Args: answer: of the state that is asked about, the workspace's or a copy's, and what is asked."""
    asked = json.loads(path.read_bytes())
    state = Layout(project.quarantine_copies / asked["folder"]) if asked["folder"] else project
    told = readable_json(answer(state, asked))
    path.chmod(0o600)
    path.write_bytes(told)  # no draft, which a kill would leave under another name
