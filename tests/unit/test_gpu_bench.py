"""The GPU bench's small run: every section, on the CPU, without the packages that a GPU machine lacks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from builders import ROOT
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.flops import Shape

ABSENT = ("dvc", "prefect", "great_expectations", "pandas", "pyarrow", "pydantic")
RUN = (
    "import runpy, sys\n"
    f"sys.modules.update(dict.fromkeys({ABSENT!r}))  # importing one is an error\n"
    "runpy.run_module('bench.gpu', run_name='__main__', alter_sys=True)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-c", RUN, "--small", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "All equal: yes" in (folder / "gpu.md").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads((folder / "gpu.json").read_bytes())
    return facts


@pytest.mark.slow
def test_the_small_run_says_equal_and_leaves_nothing_out(report: dict[str, Any]) -> None:
    assert report["equal"]
    assert report["failed"] == report["unequal"] == []
    kinds = {name.split()[0] for name in report["sections"]}
    assert kinds == {"environment", "products", "tuning", "rows", "erasing", "training", "embedding", "attention", "another"}


@pytest.mark.slow
def test_what_it_compares_could_differ(report: dict[str, Any]) -> None:
    """A frame that moved, an erasure that changed the head, two precisions with two results, and a case for each process."""
    sections = report["sections"]
    tuned = {name: section for name, section in sections.items() if name.startswith("tuning")}
    assert all(section["largest_frame_value"] > 0 and section["steps"] == 2 for section in tuned.values())
    assert len({section["digests"][0] for section in tuned.values()}) == len(tuned) == 2
    assert len(sections["another process"]["compared"]) == 2
    erased = sections["erasing vit_tiny_patch16_224"]
    assert erased["head_before"] != erased["head_subtracted"] == erased["head_rebuilt"]


def test_the_formula_counts_the_products_that_torch_counts() -> None:
    kwargs: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 48, "num_heads": 2, "mlp_ratio": 3.0}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **kwargs).eval().requires_grad_(False)
    shape, images = Shape.of(model), torch.zeros(2, 3, 32, 32, requires_grad=True)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(images)
    assert forward.get_total_flops() == 2 * shape.forward
    with FlopCounterMode(display=False) as step:
        model(images).sum().backward()
    # Torch counts flash attention's fifth product, which is computed anew, and every image's gradient behind the stem.
    assert step.get_total_flops() == 2 * (shape.step + shape.attention // 2 + shape.stem)
