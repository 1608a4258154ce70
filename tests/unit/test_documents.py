"""Every param, exit status, key of the JSON and class of error has its line in the documents."""

import inspect
import re
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from builders import ROOT
from pydantic import BaseModel
from told import keys_of, require_told, rows

from flows.cli.command import name_of
from flows.cli.registry import COMMANDS
from flows.doctor.checkup import Finding
from lmeraser.core import errors
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.params import Params
from lmeraser.prove.verify import CertificateError
from lmeraser.sources.drafting import Findings
from lmeraser.stores.base import UnreadableError

COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PARAMS_PAGE = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a value may be."""
    if get_origin(annotation) in (Union, UnionType):
        return [section for inner in get_args(annotation) for section in sections(inner)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def params_of(section: type[BaseModel], prefix: str = "") -> set[str]:
    """The name of every param, `section.key`."""
    names: set[str] = set()
    for key, field in section.model_fields.items():
        inner = sections(field.annotation)
        names |= {name for each in inner for name in params_of(each, f"{prefix}{key}.")}
        if not inner or type(None) in get_args(field.annotation):
            names.add(f"{prefix}{key}")
    return names


def test_every_param_has_its_row_and_no_row_is_about_another() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| \S", PARAMS_PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(params_of(Params))
    assert len(rows) > 70


def test_every_class_of_error_has_its_row_with_its_status() -> None:
    here = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LmeraserError)]
    kinds: list[type[LmeraserError]] = [kind for kind in (*here, CertificateError, UnreadableError) if kind is not LmeraserError]
    for kind in kinds:
        row = re.search(rf"^\| `{kind.__name__}` \| (\d)", COMMANDS_PAGE, re.MULTILINE)
        assert row, kind.__name__
        assert int(row[1]) == (1 if issubclass(kind, StepFailedError) else kind.exit_code)
        assert kind.__name__ in (errors.__doc__ or "")
    assert COMMANDS_PAGE.count("Error` |") == len(kinds)


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_every_exit_status_is_told(command: Any) -> None:
    paragraph = COMMANDS_PAGE.partition("**Exit status.**")[2].partition("\n\n")[0]
    assert all(re.search(rf"\b{status} ", paragraph) for status in (*command.EXIT_CODES, 130))


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_every_option_and_every_command_has_its_row(command: Any) -> None:
    from flows.cli.command_line import make_parser

    chosen = next(action for action in make_parser()._actions if getattr(action, "choices", None))
    parser = dict(chosen.choices or {})[name_of(command)]
    row = re.search(rf"^\| `lmeraser {name_of(command)}\b.*$", COMMANDS_PAGE, re.MULTILINE)
    assert row
    shown = row[0]
    if "as `submit`" in shown or "as `plan`" in shown:
        shown += "".join(re.findall(r"^\| `lmeraser (?:plan|submit)`.*$", COMMANDS_PAGE, re.MULTILINE))
    options = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
    assert [option for option in options if option not in shown and option not in ("--help", "--json")] == []


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("manifest", {*(field.name for field in fields(Findings)), "manifest", "partly_public", "left_out", "problems", "ready"}),
        ("doctor", {*(field.name for field in fields(Finding)), "sound", "project", "checks"}),
        ("new", {"project", "preset", "revision", "files", "records", "subjects", "weights_sha256"}),
        ("completion", {"shell", "script"}),
    ],
)
def test_keys_of_the_json_are_told(title: str, keys: set[str]) -> None:
    assert keys <= keys_of(title)


def test_every_command_has_a_row_of_keys() -> None:
    titles = set(re.findall(r"`([a-z]+)", "".join(title for title, _ in rows())))
    assert {name_of(command) for command in COMMANDS} - titles == set()


def test_a_key_that_no_row_tells_is_noticed_wherever_it_stands() -> None:
    require_told("status", {"requests": [{"request_id": "", "state": ""}], "late": 0})
    for answer in ({"requests": [], "canary": 0}, {"requests": [{"canary": ""}]}):
        with pytest.raises(AssertionError, match=r"status: no row tells of \['canary'\]"):
            require_told("status", answer)
