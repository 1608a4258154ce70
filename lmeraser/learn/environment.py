"""What torch computes with in this process: the network's part of the environment (see `core/environment.py`)."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from lmeraser.core import determinism
from lmeraser.core.digest import sha256
from lmeraser.core.environment import Environment, as_line, environment, fraction, require_gpu

# oneDNN does not tell its instruction set; torch tells parts of it, and the known answers the rest.
ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the first counts where both are set
NO_LIMIT = ("ALL", "DEFAULT")


def network_environment(device: str) -> Environment:
    """All that made an artifact in which the network had a part. Imports torch; computed once a process.

    Args: device: cpu or cuda.
    Raises: StepFailedError where torch was imported before its settings were made; ParamsError if there is no GPU.
    """
    determinism.require()
    return environment() | dict(_own(device))


@cache
def _own(device: str) -> tuple[tuple[str, str], ...]:
    import torch

    from lmeraser.learn.precision import resolve

    facts = {
        "device": device,
        "torch_instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": _onednn(),
        "precision": resolve("auto", device),  # what `auto` means here
        "network_answers": network_answers(device),
    }
    if device == "cuda":
        facts |= _gpu()
    return tuple((key, as_line(value)) for key, value in sorted(facts.items()))


def _onednn() -> str:
    import torch

    if not torch.backends.mkldnn.is_available():
        return "absent"
    limit = next((os.environ[name].upper() for name in ONEDNN_LIMITS if os.environ.get(name)), "ALL")
    free = limit in NO_LIMIT
    special = {
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
        # These two are what the processor has: behind a limit they do not count.
        "avx512_bf16": free and torch.cpu._is_avx512_bf16_supported(),
        "amx": free and torch.cpu._is_amx_tile_supported(),
    }
    has = " ".join(name for name, there in special.items() if there) or "float32 alone"
    return has if free else f"{has}, limit {limit}"


def _driver() -> str:
    version = ctypes.c_int()
    try:
        return "unknown" if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) else str(version.value)
    except OSError:
        return "unknown"


def _gpu() -> dict[str, str]:
    import torch

    require_gpu()
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "gpu_driver": _driver(),
    }


def switch_kernels() -> None:
    """Torch's switches under which stages compute: deterministic kernels alone, and float32 that is float32."""
    import torch

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def kernels_of_stages() -> Iterator[None]:
    """The same switches for a while: a process that only compares environments leaves torch as it found it."""
    import torch

    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = (cudnn.benchmark, products.allow_tf32, cudnn.allow_tf32)
    switch_kernels()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark, products.allow_tf32, cudnn.allow_tf32 = before


def network_answers(device: str) -> str:
    """Digest of a small training step: a convolution, a product and their gradients, in float32 and in what `auto` takes.

    Computed under the stages' switches, whatever this process has set: on a GPU torch's defaults give other answers.
    """
    import torch
    from torch.nn import functional

    from lmeraser.learn.precision import PRECISIONS, resolve

    def tensor(*shape: int, step: int) -> torch.Tensor:
        count = 1
        for side in shape:
            count *= side
        return torch.from_numpy(fraction(count, step)).to(torch.float32).reshape(shape).to(device)

    answers: list[torch.Tensor] = []
    with kernels_of_stages(), torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        for dtype in dict.fromkeys((torch.float32, PRECISIONS[resolve("auto", device)])):
            images = tensor(4, 8, 10, 10, step=1327).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
            kernels = tensor(16, 8, 3, 3, step=769).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
            maps = functional.conv2d(images, kernels, padding=1)  # (4, 16, 10, 10)
            weight = tensor(10, 16, step=577).to(dtype).requires_grad_()
            rows = functional.linear(functional.gelu(maps).mean((2, 3)), weight)  # (4, 10)
            wide = tensor(60, 90, step=977).to(dtype) @ tensor(90, 40, step=1607).to(dtype)
            loss = functional.cross_entropy(rows.float(), torch.arange(4, device=device))
            answers += [maps, rows, wide, *torch.autograd.grad(loss, (images, kernels, weight))]
    data = b"".join(answer.detach().float().cpu().contiguous().numpy().tobytes() for answer in answers)
    return sha256(data)[:16]
