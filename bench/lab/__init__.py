"""What every bench has: where things lie, data and presets, the pipeline in one process, and reports."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the repository
RESULTS = ROOT / "bench" / "results"
