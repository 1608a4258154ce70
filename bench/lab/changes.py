"""Params with some values replaced, as code or a command line asks for."""

from collections.abc import Iterable, Mapping

import yaml

from lmeraser.core.params import Params


def changed(params: Params, changes: Mapping[str, object]) -> Params:
    """Params with some values replaced, checked again. Args: changes: `section.key` or `key` to value."""
    raw = params.model_dump(mode="json")
    for name, value in changes.items():
        *path, key = name.split(".")
        section = raw
        for step in path:
            section = section[step]
        if key not in section:
            raise SystemExit(f"bench: unknown param {name}")
        section[key] = value
    return Params.model_validate(raw)


def read_changes(given: Iterable[str]) -> dict[str, object]:
    """`section.key=value` as people write it on a command line."""
    return {key: yaml.safe_load(value) for key, value in (change.split("=", 1) for change in given)}
