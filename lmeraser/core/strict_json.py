"""JSON from outside, read in one way only: two readers may pick different values of a repeated name, so that is refused."""

import json
from typing import Any, NoReturn


class RepeatedNameError(ValueError):
    """An object has a name twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise RepeatedNameError("an object has a name twice")
    return read


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def strict_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises: RepeatedNameError, which is a ValueError; ValueError if it is no JSON or no UTF-8, or nested too deeply to read.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
