"""YAML from outside: by libyaml where it is there, six times as fast, and never so deep that its recursion ends the process."""

from typing import Any

import yaml

DEEPEST = 1000  # libyaml's composer calls itself once a level, unbounded: PyYAML 6.0 with 8 MB of stack dies of 20,000 to 40,000


class _Once:
    """Each key stands once (YAML 1.2, 3.2.1.3): PyYAML alone keeps the last of two in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[attr-defined]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", mark)
        made: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return made


Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FastOnce: Any = type("FastOnce", (_Once, Fast), {})
PlainOnce: Any = type("PlainOnce", (_Once, yaml.SafeLoader), {})


def strict_yaml(text: bytes | str, *, once: bool = False) -> Any:
    """The value of a YAML text; `once` refuses a key that stands twice in a mapping.

    Raises: yaml.YAMLError, UnicodeDecodeError, RecursionError.
    """
    plain, fast = (PlainOnce, FastOnce) if once else (yaml.SafeLoader, Fast)
    return yaml.load(text, Loader=fast if _is_flat(text) else plain)  # noqa: S506 (all four are SafeLoaders)


def _is_flat(text: bytes | str) -> bool:
    """Whether it cannot nest by much more than DEEPEST: a bracket opens a level, and a block's level stands a column further
    to the right, or is a list in the column of its mapping."""
    opening, end = ((b"[", b"{"), b"\n") if isinstance(text, bytes) else (("[", "{"), "\n")
    return sum(map(text.count, opening)) <= DEEPEST and max(map(len, text.split(end))) <= DEEPEST  # type: ignore[arg-type]
