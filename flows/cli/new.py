"""`lmeraser new DIR`: a project of its own, with code, params and a first commit."""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result

HELP = "make a project: its folder, its params, its first commit"
EXIT_CODES = {0: "made", 1: "a check or a step failed; nothing was left behind", 2: f"{BAD_INPUT}; nothing was left behind"}
EXAMPLES = [
    "lmeraser new try-it",
    "lmeraser new faces --data photos",
    "lmeraser new faces --data photos --weights tf_efficientnet_lite0.safetensors",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="where; absent or empty")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="your images with their manifest (`lmeraser manifest`); without it: digits"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="a network that was trained elsewhere, as safetensors; pinned by its digest"
    )
    parser.add_argument("--preset", metavar="NAME", help="params/NAME.yaml; chosen by data and weights if not said")


def act(options: argparse.Namespace) -> Result:
    """Raises: BadInputError, StepFailedError."""
    from flows.start.presets import Wish
    from flows.start.project_folder import make

    data, weights = (path.absolute() if path else None for path in (options.data, options.weights))
    made = make(options.folder, Wish(options.preset, data, weights))
    params = made.params
    network = params.pretrain.model + (" with given weights" if params.pretrain.weights else ", trained on your public records")
    result = {
        "project": str(options.folder),
        "preset": made.preset,
        "revision": made.revision,
        "files": made.files,
        "records": made.records,
        "subjects": made.subjects,
        "weights_sha256": params.pretrain.weights.sha256 if params.pretrain.weights else None,
    }
    lines = [
        f"project             {options.folder}",
        f"preset              {made.preset}",
        f"network             {network}",
        f"code                {made.revision}",
        *([f"records             {made.records} of {made.subjects} people"] if made.records is not None else []),
        f"next                cd {options.folder} && lmeraser build",
    ]
    return result, lines
