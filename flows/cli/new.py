"""`lmeraser new DIR`: a project of its own, with code, params and a first commit."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from flows.start.project_folder import Counts

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

    images, weights = (path.absolute() if path else None for path in (options.data, options.weights))
    made = make(options.folder, Wish(options.preset, images, weights))
    params, data = made.params, made.data
    network = params.pretrain.model + (" with given weights" if params.pretrain.weights else ", trained on your public records")
    result = {
        "project": str(options.folder),
        "preset": made.preset,
        "revision": made.revision,
        "files": made.files,
        "records": data.records if data else None,
        "subjects": data.subjects if data else None,
        "linear_head": params.evaluate.linear_head,
        "weights_sha256": params.pretrain.weights.sha256 if params.pretrain.weights else None,
    }
    lines = [
        f"project             {options.folder}",
        f"preset              {made.preset}",
        f"network             {network}",
        f"code                {made.revision}",
        *_data_lines(data, params.evaluate.linear_head),
        f"next                cd {options.folder} && lmeraser build",
    ]
    return result, lines


def _data_lines(data: "Counts | None", linear_head: bool) -> list[str]:
    if data is None:
        return []
    lines = [f"records             {data.records} of {data.subjects} people, {data.labels} labels"]
    if not linear_head:
        lines.append("yardstick           off: it would take longer than all else at each erasure (evaluate.linear_head)")
    return lines
