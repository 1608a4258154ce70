"""One build of the project of the working folder, as the flow `build` does it, with the seconds of each wave; prints JSON.

python -m bench.fleet.driver
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from flows.project import Project, workspace
from flows.run import build as building
from flows.run.handout import BUILD
from flows.run.waves import Seconds, Workers
from flows.service.fan_out import workers_of
from lmeraser.pipeline.files import StageName

Row = dict[str, Any]


def timed(workers: Workers, waves: list[Row]) -> Workers:
    """Workers whose waves are noted."""

    def run(names: Sequence[str]) -> Seconds:
        start = time.monotonic()
        seconds = workers(names)
        kind = StageName.parse(names[0]).kind
        wall = time.monotonic() - start
        waves.append({"kind": kind, "stages": len(names), "runs": len(seconds), "wall": wall, "busy": sum(seconds.values())})
        return seconds

    return run


def main() -> None:
    project = Project.find()
    waves: list[Row] = []
    recorded: Row = {"stages": 0, "seconds": 0.0}
    commit = building._commit

    def noted(layout: Any, names: Sequence[str]) -> Seconds:
        seconds = commit(layout, names)
        recorded["stages"] += len(names)
        recorded["seconds"] += sum(seconds.values())
        return seconds

    building._commit = noted
    start = time.monotonic()
    with workspace(project):
        workers = workers_of(project, BUILD)
        building.build(project.layout, timed(workers, waves) if workers else None)
    sys.stdout.write(json.dumps({"wall": time.monotonic() - start, "waves": waves, "recorded": recorded}) + "\n")


if __name__ == "__main__":
    main()
