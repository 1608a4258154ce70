"""How many processes may train at once on this machine, and which GPU each gets."""

import os

from lmeraser.core.params import Params


def gpus(params: Params) -> int:
    """How many GPUs there are; 0 unless params ask for them."""
    if params.device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def processes(params: Params) -> int:
    """How many processes train at once: one a GPU, or one a core, as each uses one thread."""
    return gpus(params) or max(1, len(os.sched_getaffinity(0)))


def place(number: int, of: int) -> dict[str, str]:
    """The environment of the process of that number, so that it sees a GPU of its own."""
    return {"CUDA_VISIBLE_DEVICES": str(number % of)} if of else {}
