"""Which floating-point type training computes in. `auto` takes bfloat16 where the processor has instructions for it.

Elsewhere torch emulates bfloat16: a training step was 4 to 16 times slower than in float32 (docs/exactness.md). The choice is
stored beside each artifact, and two choices never meet in one model.
"""

import copy
import os

import torch
from torch import Tensor, nn

from lmeraser.core.errors import ParamsError
from lmeraser.core.params import ImageParams, Precision, Pretrain

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # oneDNN's variables: instructions beyond the one named are not used
WITH_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")  # what the names of instruction sets hold that have it


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own, as torch reports them. Args: device: cpu or cuda."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86 that says yes to AVX-512 alone, without its bfloat16 instructions.
    limited = [os.environ[name].upper() for name in LIMITS if os.environ.get(name)]
    if not all(any(word in limit for word in WITH_BFLOAT16) for limit in limited):
        return False
    x86 = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2", "AVX512")
    return not x86 or bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve(precision: Precision, device: str) -> Precision:
    """`float32` or `bfloat16`: what a param means on this device."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def pretraining_precision(model: nn.Module, settings: Pretrain, image: ImageParams, device: str) -> Precision:
    """What a backbone is trained in: as `resolve`, but float32 for `auto` where bfloat16 gives other bits each time.

    Raises: ParamsError where the params ask for bfloat16 there.
    """
    chosen = resolve(settings.precision, device)
    if chosen == "float32" or not _strides_over_one_pixel(model, image):
        return chosen
    if settings.precision == "auto":
        return "float32"
    raise ParamsError(
        f"params.yaml: pretrain.precision {settings.precision} is not reproducible where {settings.model} strides over a "
        "1 x 1 map, as at this image.size; set it to auto or float32, or enlarge image.size"
    )


def _strides_over_one_pixel(model: nn.Module, image: ImageParams) -> bool:
    """Whether a strided convolution is given a map of 1 x 1.

    Measured on AVX512-BF16, deterministic algorithms or not: the bits of its weight gradient differ from run to run.
    """
    shrunk: list[nn.Module] = []

    def watch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        strided = isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1
        if strided and min(given[0].shape[-2:]) == 1:
            shrunk.append(module)

    trial = copy.deepcopy(model).to("cpu").eval()  # batch norms would count what they see
    for module in trial.modules():
        module.register_forward_pre_hook(watch)
    with torch.no_grad():
        trial(torch.zeros(1, image.channels, image.size, image.size))
    return bool(shrunk)
