"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    export,
    forget,
    keys,
    parts,
    plan,
    predict,
    report,
    resume,
    review,
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
    review,
    report,
    audit,
    verify,
    keys,
    predict,
    export,
)
