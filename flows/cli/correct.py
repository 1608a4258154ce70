"""`lmeraser correct`: a label or a subject that is wrong; the record stays with the right one, and the old value is erased."""

import argparse

from flows.cli.carrying_out import carry_out
from flows.cli.command import BAD_INPUT, Result
from flows.cli.images import add_images, images_of
from flows.cli.receiving import add_accept_unknown

HELP = "correct a label, or whose record it is: the record stays with the right value, the old one is erased and certified"
EXIT_CODES = {
    0: "certified, planned, or the request waits for approval or for the end of its grace",
    1: "a check or a step failed; the request stays open: `lmeraser resume` goes on",
    2: f"{BAD_INPUT}, or the request is rejected",
    3: "the person is on hold; or remotes hold objects that nobody can tell what they were made of, and --accept-unknown was not "
    "given",
}
EXAMPLES = [
    "lmeraser correct --path images/7.png --label cat",
    "lmeraser correct --image photo.png --of NAME --subject OTHER-NAME --plan",
    "lmeraser correct --path images/7.png --label cat --was dog",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument("--label", metavar="LABEL", help="the right label: one that private records have")
    parser.add_argument("--subject", metavar="S", help="whose the records are: somebody of whom there is a record")
    parser.add_argument("--of", metavar="S", help="whose records are meant, where others have the image too")
    text = "the old value, where the source has the right one and was built: what stores still hold of it goes"
    parser.add_argument("--was", metavar="VALUE", help=text)
    parser.add_argument("--request-id", metavar="UUID", help="the same id twice has one effect")
    parser.add_argument("--plan", action="store_true", help="tell what it would touch, and change nothing")
    add_accept_unknown(parser)
    parser.add_argument("--timings", action="store_true", help="print where the time went")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.summary import plan_lines
    from flows.project import Project
    from flows.requests import rectify

    project = Project.find(options.accept_unknown)
    wanted = rectify.Wanted(images_of(options, project), options.label, options.subject, options.of, options.was)
    if options.plan:
        plan = rectify.draft_plan(project, wanted).to_json()
        return plan | {"clusters_retrained": len(plan["slots_retrained"])}, plan_lines(plan)
    return carry_out(project, rectify.receive(project, wanted, options.request_id), options)
