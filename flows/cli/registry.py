"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    forget,
    keys,
    parts,
    plan,
    predict,
    resume,
    serve,
    slots,
    status,
    submit,
    verify,
)
from flows.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    plan,
    submit,
    forget,
    approve,
    cancel,
    status,
    resume,
    build,
    slots,
    parts,
    audit,
    verify,
    keys,
    predict,
    serve,
)
