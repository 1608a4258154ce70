"""Exact, cheap, complete and provable forgetting for a vision model tuned on people's images.

The domain of the project: records, params, learning, erasing, proving. It imports neither prefect nor dvc (see
docs/architecture.md); `stages/` and `flows/` call it.
"""

__version__ = "0.1.0"
