"""The commands: one module each, all in the registry, and a help that tells every exit status."""

import importlib
import re
import shlex

import pytest
from builders import ROOT, refused
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.command import Command, name_of, passed, within
from flows.cli.command_line import main, make_parser
from flows.cli.completion import SHELLS
from flows.cli.registry import COMMANDS
from lmeraser.core.errors import BadInputError, BlockedError

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


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_help_shows_examples_that_the_parser_takes(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(command, capsys).partition("examples:\n")[2].partition("\nexit codes:")[0]
    lines = shown.replace("\\\n", " ").splitlines()
    typed = [" ".join(line.split()) for line in lines if line.strip()]
    assert typed == [" ".join(example.split()) for example in command.EXAMPLES]
    assert typed
    for line in typed:
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0])
        options = make_parser().parse_args(words[1:])
        assert options.command == name_of(command)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["manfest", "x"], "manifest"),
        (["forgte", "--subject", "CANARY"], "forget"),
        (["manifest", "x", "--subjct-from=CANARY"], "--subject-from"),
        (["audit", "--rebiuld"], "--rebuild"),
        (["keys", "inti"], "init"),
        (["CANARY"], None),
        (["status", "CANARY", "CANARY", "--CANARY"], None),
    ],
)
def test_what_was_meant_is_told_in_our_own_words(typed: list[str], meant: str | None) -> None:
    line = refused(BadInputError, lambda: make_parser().parse_args(typed))
    assert re.findall(r"did you mean (\S+)\?", line) == ([meant] if meant else [])


@given(st.text("abc", min_size=1, max_size=25), st.lists(st.text("xyz-/", min_size=1, max_size=90), min_size=1, max_size=30))
def test_long_rows_are_folded_below_their_value_and_keep_every_word(title: str, words: list[str]) -> None:
    line = f"{title:<28}{' '.join(words)}"
    folded = within([line, "plain " * 30], 80)
    assert folded[-1] == "plain " * 30
    assert " ".join(" ".join(folded[:-1]).split()) == " ".join(line.split())
    assert all(len(part) <= 80 or max(map(len, words)) > 52 for part in folded[:-1])
    assert all(part.startswith(" " * 28) for part in folded[1:-1])


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", shell])
    script = capsys.readouterr().out
    assert not end.value.code
    assert [command for command in map(name_of, COMMANDS) if command not in script] == []
    assert shell == "tcsh" or "--subject-from" in script  # there it completes commands alone


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({}, True),
        ({"equal": True, "clean": True, "verdict": "pass"}, True),
        ({"equal": False}, False),
        ({"clean": False}, False),
        ({"people_back": 1}, False),
        ({"within_tolerances": False}, False),
        ({"ready": False}, False),
        ({"sound": False}, False),
        ({"verdict": "no power"}, False),
    ],
)
def test_result_with_a_check_that_did_not_pass_is_no_success(result: dict[str, object], verdict: bool) -> None:
    assert passed(result) is verdict
