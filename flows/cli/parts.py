"""`lmeraser parts [N]`: how large the files of private records are, and how many of them each part has."""

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result

if TYPE_CHECKING:
    from flows.project import Project

HELP = "tell how large the files of private records are and how many are advised; or set how many each part has"
EXIT_CODES = {0: "told; or params.yaml says that many", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = ["lmeraser parts", "lmeraser parts 16"]
MEGABYTE = 10**6
# DVC runs these again where the files of the parts are others; what they make of them has the same bytes.
AGAIN = ("split", "embed", "cluster", "validate", "evaluate")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "count",
        type=int,
        nargs="?",
        metavar="N",
        help="files of each part (shards in params.yaml), 1 to 4096; as `lmeraser parts 16`, then `lmeraser build`",
    )


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project, workspace

    project = Project.find()
    if options.count is None:
        return _tell(project)
    with workspace(project):
        return _change(project, options.count)


def _tell(project: "Project") -> Result:
    """Raises: ProjectError if a part is absent or broken."""
    from lmeraser.pipeline.parts import RULE

    facts = _facts(project)
    lines = [
        f"private records     {facts['records']} in {facts['files']} files, {_mb(facts['bytes'])}",
        f"files a part        {facts['shards']}",
        f"largest file        {_mb(facts['largest'])}, {facts['largest_file']}",
        f"an erasure          rewrites one file a person: {_mb(facts['rewritten'])} on average, {_mb(facts['largest'])} at most",
        f"advised             {facts['advised']}: {RULE}",
    ]
    if facts["files"] != facts["shards"] * len(project.params.parts):
        lines.append("next                `lmeraser build`: params.yaml says another number of files than there are")
    elif facts["advised"] != facts["shards"]:
        lines.append(f"next                `lmeraser parts {facts['advised']}` says what that moves")
    return facts, lines


def _facts(project: "Project") -> dict[str, Any]:
    from lmeraser.pipeline.parts import advised, part_sizes, rewritten

    sizes = part_sizes(project.layout, project.params)
    largest, mean = rewritten(sizes)
    return {
        "shards": project.params.shards,
        "files": sum(len(size.files) for size in sizes),
        "records": sum(size.records for size in sizes),
        "bytes": sum(int(size.files.sum()) for size in sizes),
        "largest": largest,
        "largest_file": next(size.path for size in sizes if size.files.max() == largest),
        "rewritten": mean,
        "advised": advised(sizes),
    }


def _change(project: "Project", shards: int) -> Result:
    """Write params.yaml, and say what the next build moves. Call with the workspace's lock.

    Raises: BadInputError if N is out of range, ProjectError while a request is open, ParamsError if the file cannot be edited.
    """
    from flows.dvc.params_file import set_shards
    from lmeraser.core.errors import BadInputError, ProjectError
    from lmeraser.core.params import MOST_SHARDS

    if not 1 <= shards <= MOST_SHARDS:
        raise BadInputError(f"{shards} files a part were asked for; expected 1 to {MOST_SHARDS}")
    was, layout = project.params.shards, project.layout
    if shards == was:
        return _result(shards, was, 0, []), [f"files a part         {shards}, as it is; nothing was changed"]
    waiting = [request for request in project.ledger.all(open_only=True) if not request.is_held]  # those are planned anew
    if waiting:  # they were planned on the files that are there
        raise ProjectError(f"{len(waiting)} requests are open; run `lmeraser resume`, then retry")
    built = layout.private.is_dir()
    size = sum(file.stat().st_size for file in layout.private.rglob("*") if file.is_file()) if built else 0
    set_shards(layout, shards)
    result = _result(shards, was, size, list(AGAIN) if built else [])
    lines = [f"files a part         {shards} (was {was}); params.yaml says so"]
    if built:
        lines += [
            f"moves                `lmeraser build` reads the source and writes all private records anew: {_mb(size)}",
            f"runs again           {', '.join(AGAIN)}; but for the files of the parts, all of it keeps its bytes",
            "is not trained       backbone, skeleton, clusters and the global head stay",
            "old files            stay in DVC's cache and remotes until `dvc gc`; a purge deletes those of whoever is erased",
        ]
    return result, [*lines, "next                 `lmeraser build`"]


def _result(shards: int, was: int, rewritten: int, again: list[str]) -> dict[str, Any]:
    return {"shards": shards, "was": was, "bytes": rewritten, "runs_again": again}


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"
