"""JSON from outside has one reading, or none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.strict_json import RepeatedNameError, strict_json

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    assert strict_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [b'{"a": 1, "a": 1}', b'[{"b": {"a": 1, "a": 2}}]', b'{"a": 1, "\\u0061": 2}'])
def test_name_that_stands_twice_is_refused_at_any_depth(text: bytes) -> None:
    with pytest.raises(RepeatedNameError):
        strict_json(text)


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000, b"{} {}"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        strict_json(text)
    assert not isinstance(caught.value, RepeatedNameError)
