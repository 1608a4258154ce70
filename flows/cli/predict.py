"""`lmeraser predict`: ask the served model."""

import argparse
from pathlib import Path
from typing import Any

from flows.cli.command import BAD_INPUT, Result

HELP = "ask the served model"
EXIT_CODES = {0: "every image has an answer", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser predict photo.png", "lmeraser predict --images photos --json"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="*", metavar="IMAGE")
    parser.add_argument("--images", metavar="DIR", type=Path, help="every PNG, JPEG and WebP in a folder")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project

    project = Project.find()  # before torch: a wrong folder is told at once
    from lmeraser.serve.predicting import predict_files

    answers = predict_files(project.layout, project.params, [Path(image) for image in options.image], options.images)
    lines = [
        f"{answer['image']}: {answer['label']} ({answer['probability']:.3f}; clusters {_half(answer['clusters'])}, "
        f"global head {_half(answer['global_head'])})"
        for answer in answers
    ]
    return {"predictions": answers}, lines


def _half(answer: dict[str, Any]) -> str:
    """What one half of the model says; `none` where params or a quarantine give it no vote."""
    return f"{answer['label']} {answer['probability']:.3f}" if answer["weight"] and answer["label"] is not None else "none"
