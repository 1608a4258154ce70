"""The command `lmeraser`. Exit status: 0 done; 1 a check or a step failed; 2 bad input; 3 blocked.

`--json` prints one object on standard output and nothing else there; everything for people goes to standard error.
"""

import argparse
import difflib
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from flows.cli import completion
from flows.cli.command import BAD_INPUT, INTERRUPTED, Command, add_parser, exit_codes, name_of, passed, within
from flows.cli.registry import COMMANDS
from lmeraser.core import determinism
from lmeraser.core.errors import BadInputError, LmeraserError

EXIT_CODES = {0: "done", 1: "a check or a step failed", 2: BAD_INPUT, 3: "blocked: allowed only with an explicit yes"}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One clear line, without the values that argparse repeats: one of them may be a person."""
        meant = self._meant(message)
        if message.startswith("unrecognized arguments"):
            message = "some arguments were not understood (a person is named with --subject)"
        message = " ".join(re.sub(r"invalid choice: .* \(choose", "invalid choice (choose", message, flags=re.DOTALL).split())
        hint = f"did you mean {meant}? " if meant else ""
        raise BadInputError(f"{message}; {hint}see `{self.prog} --help`")

    def _meant(self, message: str) -> str | None:
        """The command, choice or option nearest to one that argparse does not know."""
        choice = re.match(r"argument \S+: invalid choice: '(.*)' \(choose from (.*)\)$", message, flags=re.DOTALL)
        if choice:
            return _nearest([choice[1]], re.findall(r"[\w-]+", choice[2]))
        if message.startswith("unrecognized arguments"):
            given = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
            return _nearest(given, self.options_of_all())
        return None

    def options_of_all(self) -> list[str]:
        """Every option of this parser and of those below it."""
        inner = (action.choices.values() for action in self._actions if isinstance(action, argparse._SubParsersAction))
        own = (text for action in self._actions for text in action.option_strings)
        return sorted({*own, *(text for parsers in inner for parser in parsers for text in parser.options_of_all())})


def _nearest(given: Sequence[str], known: Sequence[str]) -> str | None:
    return next((near[0] for word in given if (near := difflib.get_close_matches(word, known, 1, 0.7))), None)


def make_parser(only: Command | None = None) -> Parser:
    """Args: only: the one command that it knows; None: all. Each takes a millisecond and more, and there are dozens."""
    top = Parser(
        prog="lmeraser",
        description="A vision model that forgets a person exactly. Run it in the project's folder.",
        epilog=exit_codes(EXIT_CODES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in [only] if only else COMMANDS:
        add_parser(commands, command)
    return top


def _typed(arguments: Sequence[str]) -> Command | None:
    """The command that begins the arguments, if it needs no other's."""
    return next((command for command in COMMANDS if arguments[:1] == [name_of(command)] and command is not completion), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, act, print, exit."""
    try:
        determinism.require()
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        parser = make_parser(_typed(arguments))
        options = parser.parse_args(arguments, argparse.Namespace(parser=parser))
        result, lines = options.act(options)
    except LmeraserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print("error: the disk is full; free some space, then run `lmeraser resume`", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing is lost: `lmeraser resume` finishes what was begun", file=sys.stderr)
        sys.exit(INTERRUPTED)
    try:
        if sys.stdout.isatty():  # what is piped stays a line a fact
            lines = within(lines, shutil.get_terminal_size().columns)
        print(json.dumps(result, sort_keys=True) if options.json else "\n".join(lines), flush=True)
    except BrokenPipeError:  # whoever reads has read enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0 if passed(result) else 1)


if __name__ == "__main__":
    main()
