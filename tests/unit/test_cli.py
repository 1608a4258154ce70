"""The commands: one module each, all in the registry, and a help that tells every exit status."""

import importlib
import re

import pytest
from builders import ROOT

from flows.cli.command import Command, name_of, passed
from flows.cli.command_line import make_parser
from flows.cli.registry import COMMANDS
from lmeraser.core.errors import BlockedError

ASKS_FOR_A_YES = {"--include-public", "--accept-unknown"}


def help_of(command: Command, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args([name_of(command), "--help"])
    assert not end.value.code
    return capsys.readouterr().out


def test_every_module_that_acts_is_a_command_that_people_can_type() -> None:
    names = [path.stem for path in sorted((ROOT / "flows" / "cli").glob("[a-z]*.py"))]
    acting = [name for name in names if hasattr(importlib.import_module(f"flows.cli.{name}"), "act")]
    assert acting == sorted(map(name_of, COMMANDS))
    assert len(acting) == len(COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_help_tells_every_exit_status(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    table = text.partition("exit codes:\n")[2]
    codes = [int(code) for code in re.findall(r"^  (\d+) ", table, re.MULTILINE)]
    assert codes == [*sorted(command.EXIT_CODES), 130]
    assert {0, 1, 2} <= set(codes)
    blocks = any(option in text.partition("exit codes:\n")[0] for option in ASKS_FOR_A_YES)
    assert (BlockedError.exit_code in codes) == blocks, "what can be blocked takes the option that accepts it"
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "--json" in text


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({}, True),
        ({"equal": True, "clean": True, "verdict": "pass"}, True),
        ({"equal": False}, False),
        ({"clean": False}, False),
        ({"people_back": 1}, False),
        ({"within_tolerances": False}, False),
        ({"verdict": "no power"}, False),
    ],
)
def test_result_with_a_check_that_did_not_pass_is_no_success(result: dict[str, object], verdict: bool) -> None:
    assert passed(result) is verdict
