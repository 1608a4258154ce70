"""params.yaml changed by a command: every byte but the value stays, comments and order too."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from lmeraser.core.errors import ParamsError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, read_params


def write_checked(layout: Layout, text: str, wanted: Params, problem: str) -> None:
    """Write params.yaml, if the text says what is wanted. Raises: ParamsError with the problem if not; the file stays then."""
    draft = layout.private_state / "params.yaml"
    write_atomically(draft, text.encode())
    try:
        if read_params(draft) != wanted:
            raise ParamsError(problem)
    finally:
        draft.unlink()
    if text != layout.params.read_text(encoding="utf-8"):
        write_atomically(layout.params, text.encode())


def with_values(text: str, values: Mapping[tuple[str, ...], str | bool]) -> str:
    """The text of a params file with others for some values; all else stays as it is written, comments too.

    Args: values: keys on the way to a value, which must be there.
    Raises: ParamsError for a text that no file of UTF-8 can hold.
    """
    changes = []
    for keys, value in values.items():
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        for name in keys:
            node = next(inner for key, inner in node.value if key.value == name)
        if isinstance(value, str) and not value.isprintable():
            raise ParamsError(f"params.yaml: {'.'.join(keys)} would hold characters that nobody sees; rename the file or folder")
        changes.append((node.start_mark.index, node.end_mark.index, json.dumps(value, ensure_ascii=False)))
    for start, end, written in sorted(changes, reverse=True):
        text = f"{text[:start]}{written}{text[end:]}"
    return text


def set_shards(layout: Layout, shards: int) -> None:
    """Raises: ParamsError if the file cannot be edited in the way it is written."""
    params = read_params(layout.params)
    text = layout.params.read_text(encoding="utf-8")
    tree: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    node = next(value for key, value in tree.value if key.value == "shards")
    changed = f"{text[: node.start_mark.index]}{shards}{text[node.end_mark.index :]}"
    problem = "params.yaml: cannot change shards in the way it is written; write the number by hand and retry"
    write_checked(layout, changed, params.model_copy(update={"shards": shards}), problem)
