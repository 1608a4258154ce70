"""A project's artifacts are made by the project's own code, and its certificates name that code's commit.

One environment may serve several clones: then the installed code is another clone's, and what it makes would be signed in the
name of a commit that never made it.
"""

import os
import sys
from pathlib import Path

from lmeraser.core.code import PACKAGES
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout

PROJECT_VARIABLE = "LMERASER_PROJECT"  # the folder that a worker serves; else the working folder


def own_layout() -> Layout:
    """The project of LMERASER_PROJECT, or of the working folder. Raises: ProjectError also if another clone's code runs."""
    layout = Layout.find(Path(os.environ.get(PROJECT_VARIABLE) or Path.cwd()))
    require_own_code(layout.root)
    return layout


def require_own_code(root: Path) -> None:
    """Raise ProjectError if a package of the product was imported from elsewhere though the project has its own.

    Args: root: the project's folder.
    """
    for name in PACKAGES:
        loaded, own = getattr(sys.modules.get(name), "__file__", None), root / name
        if loaded and own.is_dir() and Path(loaded).resolve().parent != own.resolve():
            raise ProjectError(
                f"this is the code of another folder ({name} was imported from outside the project), and certificates name the "
                "project's commit; in the project's folder run `python -m flows.cli` instead of `lmeraser`, or `make install`"
            )
