"""`lmeraser lookup`: is this person, or this image, in the model? Of nobody else it tells anything."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, Result
from flows.cli.images import image_digest, plain_digest
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from lmeraser.prove.lookup import Answer

HELP = "is a person or an image in the model: yes, no, or erased when and by which request; signed if asked"
EXIT_CODES = {
    0: "told: present, absent or erased; with --check: the signed answer is valid",
    1: "a check or a step failed; with --check: the signed answer is not valid",
    2: BAD_INPUT,
}
EXAMPLES = ["lmeraser lookup --subject NAME", "lmeraser lookup --image photo.png --signed answer.json"]
WORDS = {"present": "yes", "absent": "no", "erased": "no: erased"}


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--subject", metavar="S", help="a person, as the manifest names them")
    add("--image", metavar="FILE", help="an image, by its bytes")
    add("--sha256", metavar="HEX", help="an image, by the SHA-256 of its bytes")
    add("--check", type=Path, metavar="ANSWER", help="check a signed answer instead, offline")
    add("--signed", type=Path, metavar="FILE", help="also write the answer, signed, to a new file")
    add("--key", type=Path, metavar="PUBLIC.pem", help="with --check: the signer's public keys")


def act(options: argparse.Namespace) -> Result:
    from flows.project import Project

    asked = sum(given is not None for given in (options.subject, options.image, options.sha256, options.check))
    if asked != 1:
        raise BadInputError(f"{asked} questions were asked, expected one: --subject, --image or --sha256 (or --check)")
    if options.check:
        return _check(options)
    if options.key:
        raise BadInputError("--key is for --check; leave it out")
    if options.signed and options.signed.exists():
        raise BadInputError("--signed: the file exists; name a new one")
    from flows.requests.lookup import look_up, signed_answer
    from lmeraser.core.files import write_atomically

    project = Project.find()
    if options.signed:
        project.ensure_subject_key()
    answer = look_up(project, options.subject, _digest(options))
    if options.signed:
        write_atomically(options.signed, signed_answer(project, answer))
    told = answer.to_json()
    return told | ({"signed": str(options.signed)} if options.signed else {}), _lines(answer)


def _digest(options: argparse.Namespace) -> str | None:
    """Of the image that is asked for, if one is."""
    if options.image is not None:
        return image_digest(options.image, "--image")
    return None if options.sha256 is None else plain_digest(options.sha256, "--sha256")


def _lines(answer: "Answer") -> list[str]:
    lines = [WORDS[answer.answer]]
    if answer.records:
        lines[0] += f": {answer.train} training and {answer.test} test records, {answer.public} public ones"
    if answer.answer == "erased":
        when = f" on {answer.erased_at[:10]} by request {answer.request_id}" if answer.erased_at else ""
        lines[0] += f"{when} ({answer.certificate or 'this ledger has no certificate of it'})"
    if answer.open_request:
        lines.append(f"request {answer.open_request} is about to erase it")
    return lines


def _check(options: argparse.Namespace) -> Result:
    from flows.project import Project
    from lmeraser.prove.keys import load_public
    from lmeraser.prove.lookup import check_answer
    from lmeraser.prove.verify import read

    if options.signed:
        raise BadInputError("--check reads a signed answer and --signed writes one; give one of them")
    keys = options.key or Project.find().layout.public_keys
    told, key_id = check_answer(read(options.check, "the signed answer"), load_public(keys), "the signed answer")
    result: dict[str, Any] = {"valid": True, "key": key_id} | told
    lines = [f"valid: {told['answer']} ({told['records']} records), {told['answered_at']}, key {key_id[:16]}"]
    return result, [*lines, "what this does not show:", *(f"- {text}" for text in told["limits"])]
