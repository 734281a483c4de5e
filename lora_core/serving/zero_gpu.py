"""Where this runs, as far as it changes anything: a ZeroGPU Space lends its GPU by the call.

There, CUDA seems to be present but works only inside functions that `spaces.GPU` decorates, each
in a process of its own, on a GPU for which callers wait. Fine-tuning the bundled base takes seconds
on a processor and streams its events from a thread, so the GPU would not pay: everything computes
on the CPU. ZeroGPU refuses to start an app that decorates nothing, so one function is.
"""

from __future__ import annotations

import os

import torch


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def prepare_zero_gpu() -> bool:
    """On ZeroGPU, compute on the CPU and decorate one function; True there. Elsewhere, nothing.

    Call it before anything asks torch for a device. `spaces` is installed by ZeroGPU itself, and
    imported nowhere else.
    """
    if not on_zero_gpu():
        return False
    os.environ.setdefault("LORA_LAB_DEVICE", "cpu")
    import spaces  # there on ZeroGPU alone

    spaces.GPU(duration=1)(device_name)
    # `spaces` makes CUDA look present in this process, where any use of it raises; torch's own
    # optimisers ask a GPU that is present whether it records a graph. So here it is absent again.
    torch.cuda.is_available = lambda: False
    return True


def device_name() -> str:
    """The name of the GPU that ZeroGPU would lend; nobody calls it."""
    return torch.cuda.get_device_name(0)
