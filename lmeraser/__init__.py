"""Exact, cheap, complete and provable forgetting for a vision model tuned on people's images.

The domain of the project: records, params, learning, erasing, proving. It imports neither prefect nor dvc (see
docs/architecture.md); `stages/` and `flows/` call it.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers read it; importing `typing` costs every start of a command
if TYPE_CHECKING:
    from lmeraser.serve.live import load as load


def __getattr__(name: str) -> object:
    """`lmeraser.load`, the served model for programs (`serve/live.py`): torch is imported when it is asked for."""
    if name == "load":
        from lmeraser.core import determinism

        determinism.settle()  # before the first import of numpy
        from lmeraser.serve.live import load

        return load
    raise AttributeError(f"module 'lmeraser' has no attribute {name!r}")
