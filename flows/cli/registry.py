"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    forget,
    keys,
    lookup,
    parts,
    plan,
    predict,
    resume,
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
    lookup,
    resume,
    build,
    slots,
    parts,
    audit,
    verify,
    keys,
    predict,
)
