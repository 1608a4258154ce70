"""`precision: auto` takes bfloat16 where the processor has instructions for it, and says so beside the artifact."""

from pathlib import Path

import pytest
import torch
from builders import make_lab, make_params, refused

from lmeraser.core.errors import ParamsError
from lmeraser.data.tensors import read_note
from lmeraser.learn import precision
from lmeraser.learn.backbone import build

NATIVE = {"mkldnn": True, "avx512": True, "amx": False, "capability": "AVX512"}


def processor(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Let torch report another processor."""
    support = NATIVE | changes
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: support["mkldnn"])
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: support["avx512"])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: support["amx"])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: support["capability"])
    for name in precision.LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("changes", "native"),
    [
        pytest.param({}, True, id="AVX512-BF16"),
        pytest.param({"avx512": False, "amx": True}, True, id="AMX"),
        pytest.param({"mkldnn": False, "avx512": False, "capability": "AVX2"}, False, id="AVX2"),
        pytest.param({"avx512": False}, False, id="AVX512 without bfloat16: oneDNN says yes and emulates"),
        pytest.param({"avx512": False, "capability": "SVE256"}, True, id="ARM with bfloat16"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_has_instructions(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], native: bool
) -> None:
    processor(monkeypatch, **changes)
    assert precision.resolve("auto", "cpu") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(("limit", "native"), [("AVX2", False), ("AVX512_CORE_VNNI", False), ("AVX512_CORE_BF16", True)])
def test_auto_keeps_to_the_instructions_that_onednn_may_use(monkeypatch: pytest.MonkeyPatch, limit: str, native: bool) -> None:
    processor(monkeypatch)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.has_bfloat16("cpu") == native


def test_a_precision_that_is_named_is_taken_whatever_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, mkldnn=False)
    assert precision.resolve("bfloat16", "cpu") == "bfloat16"
    processor(monkeypatch)
    assert precision.resolve("float32", "cpu") == "float32"


def test_auto_is_float32_where_bfloat16_would_not_be_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    params = make_params({"pretrain.precision": "auto", "image.size": 8})
    model = build(params.pretrain, params.image, 2)
    assert precision.pretraining_precision(model, params.pretrain, params.image, "cpu") == "float32"
    asked = params.pretrain.model_copy(update={"precision": "bfloat16"})
    refused(ParamsError, lambda: precision.pretraining_precision(model, asked, params.image, "cpu"))
    wide = params.image.model_copy(update={"size": 32})
    assert precision.pretraining_precision(model, params.pretrain, wide, "cpu") == "bfloat16"


def test_the_backbone_says_what_it_was_trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, mkldnn=False)
    # Four channels, as others of these tests have, corrupt memory in oneDNN's AVX2 kernels at this size (torch 2.15.0).
    wide = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}
    lab = make_lab(tmp_path, {"pretrain.precision": "auto", "image.size": 16, "pretrain.kwargs": wide})
    assert read_note(lab.backbone_file)["precision"] == "float32"
