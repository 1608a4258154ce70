"""The commands, in the order of `lmeraser --help`."""

from flows.cli import (
    approve,
    audit,
    build,
    cancel,
    completion,
    doctor,
    forget,
    keys,
    manifest,
    new,
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
    manifest,
    new,
    doctor,
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
    completion,
)
