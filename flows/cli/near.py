"""Near copies on a command line: the page that shows them, and the file that says which of them go along."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.subjects import read_bytes, text_of
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from flows.project import Project


def add_near(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--near",
        type=Path,
        metavar="FILE",
        help="also write a private page of others' images that look alike",
    )
    text = "share of images that may have a stranger listed by chance (0.05); more finds copies that were changed more"
    add("--near-share", type=float, metavar="SHARE", help=text)


def add_with_near(parser: argparse.ArgumentParser) -> None:
    text = "near copies that go along, as the page of `plan --near` says; - reads standard input"
    parser.add_argument("--with-near", metavar="FILE", help=text)


def share_of(options: argparse.Namespace) -> float:
    """Raises: BadInputError, also if there is no page to which it belongs."""
    from flows.requests.near import SHARE

    if options.near_share is None:
        return SHARE
    if options.near is None:
        raise BadInputError("--near-share is for --near; leave it out, or give --near too")
    if not 0 <= options.near_share < 1:
        raise BadInputError("--near-share is not a share; expected a number from 0 to below 1, as 0.05")
    return float(options.near_share)


def chosen(
    options: argparse.Namespace, project: "Project", subjects: list[str], images: list[str], request_id: str | None = None
) -> list[str]:
    """Digests of the near copies that the options take along. Raises: BadInputError."""
    if options.with_near is None:
        return []
    from flows.requests.near import chosen_images

    text = text_of(read_bytes(options.with_near, "--with-near", "the text of a page of `plan --near`"), "--with-near")
    return chosen_images(project, subjects, images, text, request_id)


def near_lines(near: dict[str, Any]) -> list[str]:
    """Args: near: counts, as `write_page` gives them."""
    public = f", {near['public']} of them public" if near["public"] else ""
    same = f" ({near['same_bytes']} of the same bytes)" if near["same_bytes"] else ""
    lines = [f"near copies         {near['found']} images of others look alike{same}{public}; {near['compared']} were compared"]
    if near["found"]:
        lines.append("next                look at the page, choose, `lmeraser forget … --with-near FILE`, delete the page")
    return lines
