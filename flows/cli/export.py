"""`lmeraser export`: the served model as a folder that others hold, signed, with a model card."""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result

HELP = "write the served model into a folder that answers without the project"
EXIT_CODES = {0: "written and signed", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser export released", "lmeraser export released --name faces --license Apache-2.0"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new, empty, or that of an older export, which it replaces")
    parser.add_argument("--name", help="of the model, on its card (default: the folder's name)")
    parser.add_argument("--license", metavar="SPDX", help="of the model, on its card")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.release.export import export

    folder: Path = options.folder
    result = export(Project.find(), folder.absolute(), options.name or folder.absolute().name, options.license)
    lines = [
        f"exported      {result['files']} files, {result['certificates']} certificates before",
        f"version       {result['model_version']}",
        "check it      lmeraser verify FOLDER --key data/certificate-keys.pem",
        "whoever holds a copy must replace it when a newer version appears (README.md there)",
    ]
    return result, lines
