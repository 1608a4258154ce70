"""Freed blocks are kept; a full device is told with the param and the batch to try; nothing else is called a lack of memory."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import Lab, pixels, refused, striped, tiny_params
from torch import Tensor, nn

from lmeraser.core.errors import ParamsError
from lmeraser.learn import pretraining
from lmeraser.learn.backbone import build
from lmeraser.learn.memory import batch_that_fits
from lmeraser.learn.tuning import tune_cluster


class Full(nn.Module):
    """A network that fits for one record and not for a batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        refuse(1, inputs)
        outputs: Tensor = self.inner(inputs)
        return outputs


def refuse(fits: int, inputs: Tensor) -> None:
    if len(inputs) > fits:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 78 GiB")


def full(network: nn.Module, fits: int) -> nn.Module:
    """A network of timm for which the device has memory up to so many records at once."""
    network.register_forward_pre_hook(lambda _, given: refuse(fits, given[0]))
    return network


def test_embedding_that_does_not_fit_names_half_the_batch(lab: Lab) -> None:
    backbone = replace(lab.backbone, model=Full(lab.backbone.model))
    message = refused(ParamsError, lambda: backbone.features(pixels(1, 8 * 3, 8, 1).reshape(3, 8, 8, 1), 64))
    assert "runs out of memory with 64 records at once; set embed.batch to 32" in message


def test_tuning_that_does_not_fit_names_half_of_the_batch_in_use(lab: Lab) -> None:
    backbone = replace(lab.backbone, model=Full(lab.backbone.model))
    ids, images, labels = striped(9, 7)

    def tune() -> object:  # 9 records: tune.batch 8 is halved to 4
        return tune_cluster(ids, images, labels, backbone, lab.skeleton, tiny_params(), "c00")

    assert "set tune.batch to 2 and retry" in refused(ParamsError, tune)


def test_pretraining_that_does_not_fit_names_half_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "build", lambda *given: full(build(*given), fits=8))
    ids, images, labels = striped(48, 0)
    message = refused(ParamsError, lambda: pretraining.pretrain_backbone(ids, images, labels, tiny_params()))
    assert "pretrain.batch" in message
    assert "set pretrain.batch to 8" in message


def test_backbone_that_does_not_fit_for_two_names_the_batch_of_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "build", lambda *given: full(build(*given), fits=1))
    ids, images, labels = striped(48, 0)
    message = refused(ParamsError, lambda: pretraining.pretrain_backbone(ids, images, labels, tiny_params()))
    assert "embed.batch" in message


def fails(error: Exception, batch: int = 8) -> Callable[[], None]:
    def act() -> None:
        with batch_that_fits("tune.batch", batch):
            raise error

    return act


def test_one_record_that_does_not_fit_asks_for_another_network() -> None:
    message = refused(ParamsError, fails(torch.OutOfMemoryError("CUDA out of memory"), 1))
    assert "pretrain.model" in message
    assert "to 0" not in message


def test_memory_of_the_processor_counts_too() -> None:
    refused(ParamsError, fails(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")))
    refused(ParamsError, fails(MemoryError()))
    refused(ParamsError, fails(np._core._exceptions._ArrayMemoryError((9,), np.dtype("f8"))))  # type: ignore[attr-defined]


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fails(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))()


def test_refusal_of_memory_names_no_path(tmp_path: Path) -> None:
    assert str(tmp_path) not in refused(ParamsError, fails(torch.OutOfMemoryError(str(tmp_path))))


# In a process of its own: what a suite left in the allocator decides where the next block comes from. The allocator is asked,
# not the kernel, whose count of faults is of all threads.
KEPT = """
import ctypes, torch
from lmeraser.learn.memory import keep_freed_memory

class Mallinfo2(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

asked = ctypes.CDLL(None).mallinfo2
asked.restype = Mallinfo2
for keep in (lambda: None, keep_freed_memory):
    keep()
    torch.ones(64 << 20, dtype=torch.uint8)  # above the 32 MiB that glibc keeps by itself
    print(asked().fordblks >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="mallinfo2 is of glibc from 2.33 on")
def test_freed_blocks_stay_with_the_process_only_when_kept() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True)
    before, kept = map(int, done.stdout.split())
    assert before < 64 <= kept  # MiB
