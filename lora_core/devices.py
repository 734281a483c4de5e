"""Where and in which number format to train: chosen once, with the reason in words."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lora_core.errors import LabError


class DeviceError(LabError, RuntimeError):
    """A device that was asked for and is not here."""


@dataclass(frozen=True)
class Device:
    """A place to train and the format of its matrix products; weights and sums stay float32."""

    device: torch.device
    dtype: torch.dtype
    reason: str  # one sentence for the page

    @property
    def format(self) -> str:
        """`float32` or `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")


@functools.cache
def choose_device() -> Device:
    """The fastest device and format of this machine, found by looking and, on a CPU, by a probe.

    `LORA_LAB_DEVICE` (cpu, cuda, mps) and `LORA_LAB_DTYPE` (float32, bfloat16) overrule it. Raises
    `DeviceError` for one that is not here.
    """
    wanted = os.environ.get("LORA_LAB_DEVICE", "").strip().lower()
    if wanted not in ("", "cpu", "cuda", "mps"):
        raise DeviceError(f"LORA_LAB_DEVICE must be cpu, cuda or mps, not {wanted!r}.")
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(wanted):
        raise DeviceError(
            f"LORA_LAB_DEVICE asks for {wanted}, which PyTorch does not find on this machine. "
            "Leave it unset, or say cpu."
        )
    if wanted == "cuda" or (not wanted and torch.cuda.is_available()):
        name = torch.cuda.get_device_name(0)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Device(torch.device("cuda"), torch.bfloat16, f"{name} computes in bfloat16.")
        return Device(torch.device("cuda"), torch.float32, f"{name} has no bfloat16 units.")
    if wanted == "mps" or (not wanted and torch.backends.mps.is_available()):
        return Device(torch.device("mps"), torch.float32, "Apple GPU; float32 is safe there.")
    cpu = torch.device("cpu")
    asked = os.environ.get("LORA_LAB_DTYPE", "").strip().lower()
    if asked not in ("", "float32", "bfloat16"):
        raise DeviceError(f"LORA_LAB_DTYPE must be float32 or bfloat16, not {asked!r}.")
    if asked:
        return Device(cpu, getattr(torch, asked), f"LORA_LAB_DTYPE asks for {asked}.")
    ratio = probe_bfloat16()
    if ratio >= 1.2:
        reason = (
            f"No GPU. In bfloat16 (16 bits a number) products take {100 / ratio:.0f} % of the time "
            "that they take in float32 here."
        )
        return Device(cpu, torch.bfloat16, reason)
    reason = f"No GPU. bfloat16 (16 bits a number) would be {ratio:.2f} times as fast: no gain."
    return Device(cpu, torch.float32, reason)


def probe_bfloat16(rows: int = 512, width: int = 256, repeats: int = 15) -> float:
    """Speed of a bfloat16 matrix product on this CPU, as a multiple of float32's.

    Interleaved runs on the shape of a small model's layer with one thread, fastest third of each,
    by the processor time of this thread: other programs on the same core must not decide. About
    30 ms.
    """
    x, w = torch.randn(rows, width), torch.randn(4 * width, width)
    operands = {d: (x.to(d), w.to(d)) for d in (torch.float32, torch.bfloat16)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    fine = time.get_clock_info("thread_time").resolution <= 1e-5  # not so on Windows
    clock = time.thread_time if fine else time.perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats):
            for dtype, (a, b) in operands.items():
                start = clock()
                F.linear(a, b)
                seconds[dtype].append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    third = {dtype: sorted(values)[repeats // 3] for dtype, values in seconds.items()}
    return third[torch.float32] / third[torch.bfloat16]
