"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    door,
    forget,
    hook,
    keys,
    parts,
    plan,
    predict,
    resume,
    slots,
    status,
    submit,
    token,
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
    door,
    token,
    hook,
)
