"""A state of the artifacts as hard links: the pipeline replaces files and never writes into them, so a link stays what it was."""

import os

from lmeraser.core.files import is_draft
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import locks_there


def link_artifacts(origin: Layout, target: Layout) -> None:
    """Link artifacts, params and locks into an empty folder. Takes no space. Raises: OSError."""
    for path in [*origin.artifacts.rglob("*"), origin.params, *locks_there(origin.root)]:
        if path.is_file() and not is_draft(path.relative_to(origin.root)):
            link = target.root / path.relative_to(origin.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
