"""Which files a served model is made of."""

from pathlib import Path

from lmeraser.clusters.files import load_sizes
from lmeraser.core.layout import Layout


def served_files(layout: Layout) -> list[Path]:
    """Every file that the served model is made of, there or not. Raises: ProjectError if there is no table of clusters."""
    tuned = [layout.tuned(size.slot) for size in load_sizes(layout.clusters)]
    return [layout.backbone, layout.skeleton, layout.router, layout.sizes, *tuned, layout.head]
