"""`lmeraser completion SHELL`: a script that lets a shell complete commands and options."""

import argparse

from flows.cli.command import BAD_INPUT, Result

HELP = "print a script with which your shell completes commands and options"
EXIT_CODES = {0: "printed", 1: "a check or a step failed", 2: BAD_INPUT}
EXAMPLES = [
    'eval "$(lmeraser completion bash)"',
    "lmeraser completion bash > ~/.local/share/bash-completion/completions/lmeraser",
    "lmeraser completion zsh > ~/.zfunc/_lmeraser",
]
SHELLS = ("bash", "zsh", "tcsh")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="which shell; the script starts nothing when it completes")


def act(options: argparse.Namespace) -> Result:
    import shtab

    script = shtab.complete(options.parser, options.shell)
    return {"shell": options.shell, "script": script}, script.splitlines()
