"""Memory: freed blocks are kept for the next step, and what does not fit is told with the batch to try."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lmeraser.core.errors import ParamsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT_BYTES = 1 << 30
_OLD_LIMIT = 32 << 20  # older glibc take no more


def keep_freed_memory() -> None:
    """Blocks of up to a gibibyte stay with the process when they are freed.

    glibc gives large blocks, and what is free at the heap's end, back at once, so that every step asked the kernel for zeroed
    pages anew: at batch 128 that was 5 to 10 % of a training step of the lab's backbone. Other C libraries keep their ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        if not mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
            mallopt(_M_MMAP_THRESHOLD, _OLD_LIMIT)


def is_full(error: Exception) -> bool:
    """Whether an error of torch says that the device's memory is full. On the CPU torch has no kind of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def batch_that_fits(param: str, batch: int) -> Iterator[None]:
    """Work on batches of `batch` records, which `param` of params.yaml sets.

    Raises: ParamsError naming the param and half the batch where the device's memory is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not is_full(error):
            raise
        hint = f"set {param} to {batch // 2}" if batch > 1 else "take a smaller pretrain.model or image.size, or a larger device"
        raise ParamsError(
            f"params.yaml: {param}: the device runs out of memory with {batch} records at once; {hint} and retry"
        ) from error
