"""The command `lmeraser`, and nothing else that people type."""

from flows.cli.command_line import main

__all__ = ["main"]
