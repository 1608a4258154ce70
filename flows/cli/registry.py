"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    drill,
    export,
    forget,
    keys,
    parts,
    plan,
    predict,
    reapply,
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
    resume,
    reapply,
    build,
    slots,
    parts,
    audit,
    drill,
    verify,
    keys,
    predict,
    export,
)
