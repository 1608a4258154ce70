"""`lmeraser predict`: ask the served model."""

import argparse
from pathlib import Path

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
        f"{answer['image']}: {answer['label']} ({answer['probability']:.3f}; clusters {answer['clusters']['label']} "
        f"{answer['clusters']['probability']:.3f}, global head {answer['global_head']['label']} "
        f"{answer['global_head']['probability']:.3f})"
        for answer in answers
    ]
    return {"predictions": answers}, lines
