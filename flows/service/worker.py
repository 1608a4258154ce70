"""A worker that runs this project's flows and nothing else, whatever the server says.

Prefect lets whoever has the server's password give a run, a deployment or a pool other commands, variables, folders and steps to
take before a flow: each is a shell on the worker's machine. So a worker takes two things from the server: which of the flows in
`prefect.yaml` is to run, and its parameters, which the flows check. Command, environment, folder and code are the worker's own.

    python -m flows.service.worker --pool gpu --name gpu-0 --limit 1
"""

import argparse
import asyncio
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import yaml
from prefect.utilities.processutils import command_to_string, setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.project import Project
from flows.service.server_setup import POOLS, TEMPLATE
from lmeraser.core.errors import LmeraserError, RequestError
from lmeraser.core.layout import Layout
from lmeraser.core.own_code import PROJECT_VARIABLE
from lmeraser.core.progress import say

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def entrypoints(layout: Layout) -> set[str]:
    """The flows that the project deploys, as `file:function`."""
    deployed = yaml.safe_load((layout.root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {str(deployment["entrypoint"]) for deployment in deployed}


def fixed_environment(layout: Layout, entrypoint: str) -> dict[str, str]:
    """What a run is started with beside the worker's own environment."""
    root = str(layout.root)
    # Prefect's engine asks the server for no code, and takes none of the deployment's steps, where an entrypoint is named here.
    return {PROJECT_VARIABLE: root, "PYTHONPATH": root, "PREFECT__FLOW_ENTRYPOINT": f"{root}/{entrypoint}"}


class OwnFlows(ProcessJobConfiguration):
    """How a run is started: always the same way."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: "FlowRun", *, client: Any, work_pool: Any, **named: Any) -> "OwnFlows":
        """Raises: RequestError if the run is of no flow of the project."""
        layout = Project.find().layout
        deployment = await client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None
        if deployment is None or deployment.entrypoint not in entrypoints(layout):
            raise RequestError(
                "the run does not belong to a flow of this project; deploy prefect.yaml from the project's folder and retry"
            )
        pool = work_pool.model_copy(update={"base_job_template": TEMPLATE})
        named["deployment"] = deployment.model_copy(update={"job_variables": {}})
        plain = flow_run.model_copy(update={"job_variables": {}})
        made = await super().resolve_for_flow_run(plain, client=client, work_pool=pool, **named)
        made.command = command_to_string([sys.executable, "-m", "prefect.engine"])
        made.working_dir = layout.root
        made.env |= fixed_environment(layout, deployment.entrypoint)
        return made


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in this process it is meant to stand in the place of Prefect's

    class Worker(ProcessWorker):
        """Prefect's process worker, but for how runs are started."""

        job_configuration = OwnFlows

        async def run(self, flow_run: "FlowRun", configuration: Any, task_status: Any = None) -> Any:
            # For a crashed run Prefect loads the flow in this process, by the steps of the run's deployment. No flow has hooks.
            unnamed = flow_run.model_copy(update={"deployment_id": None})
            return await super().run(unnamed, configuration, task_status)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.service.worker", description="Runs this project's flows for a pool.")
    parser.add_argument("--pool", choices=POOLS, required=True)
    parser.add_argument("--name", help="by which the server lists it (default: one that it makes up)")
    parser.add_argument("--limit", type=int, help="runs at once (default: any number)")
    options = parser.parse_args()
    try:
        Project.find()
    except LmeraserError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    setup_signal_handlers_worker(os.getpid(), "the worker", say)
    asyncio.run(Worker(work_pool_name=options.pool, name=options.name, limit=options.limit).start())


if __name__ == "__main__":
    main()
