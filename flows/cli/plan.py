"""`lmeraser plan`: what erasing people would touch."""

import argparse

from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.subjects import add_subjects, subjects_of

HELP = "what erasing people would touch; changes nothing"
EXIT_CODES = {0: "the plan is printed", 1: "a check or a step failed", 2: BAD_INPUT, 3: PUBLIC}


def arguments(parser: argparse.ArgumentParser) -> None:
    add_subjects(parser)


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import plan_lines
    from flows.project import Project
    from flows.purge.step import by_store, told_unknown
    from flows.requests import intake

    project = Project.find()
    plan = intake.draft_plan(project, subjects_of(options), options.include_public).to_json()
    unknown, problem = told_unknown(project.layout)
    lines = plan_lines(plan)
    if unknown:
        lines.append(
            f"unknown objects     {by_store(unknown)}: no dvc.lock known to git names them; refused unless --accept-unknown"
        )
    if problem:
        lines.append(f"unknown objects     cannot be told: {problem}")
    return plan | {"clusters_retrained": len(plan["slots_retrained"]), "unknown": unknown}, lines
