"""What does not fit into the device's memory is told with the batch to try."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lmeraser.core.errors import ParamsError


def _is_full(error: RuntimeError) -> bool:
    # On the CPU torch has no kind of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def batch_that_fits(param: str, batch: int) -> Iterator[None]:
    """Work on batches of `batch` records, which `param` of params.yaml sets.

    Raises: ParamsError naming the param and half the batch where the device's memory is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_full(error):
            raise
        hint = f"set {param} to {batch // 2}" if batch > 1 else "take a smaller pretrain.model or image.size, or a larger device"
        raise ParamsError(
            f"params.yaml: {param}: the device has no memory for {batch} records at once; {hint} and retry"
        ) from error
