"""How every stage begins and ends: find the project, read the params, and turn an error into one line and an exit status."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from lmeraser.core.errors import LmeraserError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import say

Stage = Callable[[Layout, Params, list[str]], None]


def enter(stage: Stage) -> None:
    """Run a stage in the project of the working folder; its arguments are the command line's."""
    try:
        layout = Layout.find(Path.cwd())
        stage(layout, load_params(layout.params), sys.argv[1:])
    except LmeraserError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        say("error: the disk is full; free some space, then `dvc checkout && dvc repro` (the last whole state is in the cache)")
        sys.exit(1)
