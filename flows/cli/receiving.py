"""What `submit` and `forget` share: the request, from options or from an event, into the ledger."""

import argparse
from typing import TYPE_CHECKING

from flows.cli.images import add_images, images_of
from flows.cli.near import add_with_near, chosen
from flows.cli.subjects import add_subjects, read_bytes, subjects_of
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from flows.project import Project
    from flows.requests.intake import Named
    from lmeraser.erase.requests import Request


def add_request(parser: argparse.ArgumentParser) -> None:
    add_subjects(parser)
    add_images(parser)
    add_with_near(parser)
    parser.add_argument("--request-id", metavar="UUID", help="the same id twice has one effect")
    parser.add_argument("--event", metavar="FILE", help="an OpenDSR 2.0 request as JSON; - reads standard input")


def add_accept_unknown(parser: argparse.ArgumentParser) -> None:
    text = "certify though a remote holds objects that no version known to git names; the certificate counts them"
    parser.add_argument("--accept-unknown", action="store_true", help=text)


def receive(project: "Project", options: argparse.Namespace) -> tuple["Request", "Named"]:
    """The request in the ledger, and what it names in the order given. Raises: BadInputError."""
    from flows.requests import intake
    from lmeraser.erase.requests import read_event

    subjects, images = subjects_of(options), images_of(options, project)
    request_id, include_public = options.request_id, options.include_public
    if options.event:
        if subjects or images or request_id:
            raise BadInputError(
                "--event already gives the request id and the subjects; leave out --request-id and what names people or images"
            )
        event = read_event(read_bytes(options.event, "--event", "an OpenDSR 2.0 request as JSON"))
        subjects, request_id, include_public = list(event.subjects), event.request_id, include_public or event.include_public
    images += chosen(options, project, subjects, images, request_id)
    named = intake.Named(tuple(subjects), tuple(images))
    return intake.receive(project, named.subjects, request_id, include_public, named.images), named
