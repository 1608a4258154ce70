"""`lmeraser plan`: what erasing people or single images would touch, or what people would who are to come."""

import argparse

from flows.cli.command import BAD_INPUT, PUBLIC, Result
from flows.cli.images import add_images, images_of, names_images
from flows.cli.near import add_near, add_with_near, chosen, near_lines, share_of
from flows.cli.subjects import add_subjects, subjects_of

HELP = "what erasing people or single images would touch, or (--add) people who are to come; changes nothing"
EXIT_CODES = {0: "the plan is printed", 1: "a check or a step failed", 2: BAD_INPUT, 3: PUBLIC}
EXAMPLES = [
    "lmeraser plan --subject NAME",
    "lmeraser plan --subjects-from names.txt --json",
    "lmeraser plan --subject NAME --near ~/private/near.html",
    "lmeraser plan --add newcomers.csv",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_subjects(parser)
    add_images(parser)
    add_near(parser)
    add_with_near(parser)
    parser.add_argument(
        "--add", metavar="MANIFEST", help="a manifest of new records (a file, or a folder that holds one) instead of people"
    )


def act(options: argparse.Namespace) -> Result:
    return _add(options) if options.add is not None else _erase(options)


def _erase(options: argparse.Namespace) -> Result:
    from flows.cli.summary import plan_lines
    from flows.project import Project
    from flows.purge.step import by_store, told_unknown
    from flows.requests import intake
    from flows.requests.near import OPTION, write_page
    from flows.requests.private_page import check_page
    from lmeraser.core.errors import BadInputError

    if options.near and options.with_near:
        raise BadInputError("--near shows what may be chosen and --with-near takes along what was; give one of them")
    project, share = Project.find(), share_of(options)
    if options.near:
        check_page(project, options.near, OPTION)
    subjects, images = subjects_of(options), images_of(options, project)
    images += chosen(options, project, subjects, images)
    plan = intake.draft_plan(project, subjects, options.include_public, images).to_json()
    near = write_page(project, subjects, images, options.near, share) if options.near else {}
    unknown, problem = told_unknown(project.layout)
    lines = plan_lines(plan) + (near_lines(near["near"]) if near else [])
    if unknown:
        lines.append(
            f"unknown objects     {by_store(unknown)}: no dvc.lock known to git names them; refused unless --accept-unknown"
        )
    if problem:
        lines.append(f"unknown objects     cannot be told: {problem}")
    return plan | near | {"clusters_retrained": len(plan["slots_retrained"]), "unknown": unknown}, lines


def _add(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from flows.run.newcomers import plan_newcomers
    from lmeraser.core.errors import BadInputError

    if subjects_of(options) or options.include_public or names_images(options) or options.near or options.with_near:
        raise BadInputError("--add plans who comes and --subject who leaves; give one of them")
    plan = plan_newcomers(Project.find(), options.add)
    most = "" if plan["exact"] else "at most "
    lines = [
        f"records added       {plan['records']} ({plan['training']} training) of {plan['subjects']} subjects "
        f"({plan['known']} of them known), parts {', '.join(plan['parts']) or 'none'}",
        f"clusters retrained  {most}{len(plan['slots_retrained'])} of {plan['clusters_total']}: "
        f"{', '.join(plan['slots_retrained']) or 'none'}",
        f"records retrained   {most}{plan['records_retrained']} of {plan['records_total']}",
    ]
    if plan["slots_emptied"]:
        lines.append(f"slots emptied       {', '.join(plan['slots_emptied'])}")
    if plan["cut_changes"]:
        lines.append("cut                 changes: clusters merge or split")
    if plan["repeated"]:
        lines.append(f"repeated            {plan['repeated']} records are there already")
    if plan["erased"]:
        lines.append(f"erased              {plan['erased']} subjects were erased: they stay out")
    lines.append("next                add the rows and images to your source, then `lmeraser build`")
    return plan | {"clusters_retrained": len(plan["slots_retrained"])}, lines
