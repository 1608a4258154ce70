"""YAML from outside has the reading of PyYAML's own loader, and no text of it ends the process."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.strict_yaml import DEEPEST, strict_yaml

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)

DEEP = {
    "brackets, a line each": "[\n" * 40_000,
    "braces": "{a: " * 40_000,
    "lists in a line": "- " * 40_000,
    "keys in a line": "? " * 40_000,
    "lists over lines": "\n".join("  " * (600 * line) + "- " * 600 for line in range(60)),
}
# PyYAML's own scanner asks each bracket of a line about those before it.
BRACKETS = pytest.param("[" * 40_000, marks=pytest.mark.campaign("half a minute on a slow processor"))


@given(VALUES, st.booleans(), st.booleans())
def test_every_value_comes_back(value: object, flow: bool, once: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert strict_yaml(text, once=once) == strict_yaml(text.encode(), once=once) == yaml.safe_load(text) == value


@pytest.mark.slow
@pytest.mark.parametrize("text", [*DEEP.values(), BRACKETS], ids=[*DEEP.keys(), "brackets in a line"])
@pytest.mark.parametrize("once", [False, True])
def test_no_depth_ends_the_process(text: str, once: bool) -> None:
    for given_as in (text, text.encode()):
        with pytest.raises((RecursionError, yaml.YAMLError)):
            strict_yaml(given_as, once=once)


def test_the_deepest_that_libyaml_is_given_is_read() -> None:
    text = "[" * (DEEPEST // 2) + "]" * (DEEPEST // 2)
    assert str(strict_yaml(text)) == text


@pytest.mark.parametrize("text", ["a: 1\na: 2", "b: {a: 1, a: 2}", "- {1: 1, 1: 2}"])
@pytest.mark.parametrize("padding", ["", f"# {'long' * DEEPEST}\n"])
def test_key_that_stands_twice_is_refused_at_any_depth(text: str, padding: str) -> None:
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        strict_yaml(padding + text, once=True)
