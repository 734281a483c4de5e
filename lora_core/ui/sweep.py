"""A sweep: the same task at several ranks and with every weight, one run each."""

from __future__ import annotations

from dataclasses import replace

from lora_core.config import MAX_ALPHA
from lora_core.limits import Limits
from lora_core.ui.settings import Settings

RANKS = (1, 4, 16, 64)


def ranks_of(limits: Limits) -> list[int]:
    """The ranks of a sweep that this server takes; its highest where the largest are beyond it."""
    return sorted({min(rank, limits.max_rank) for rank in RANKS})


def sweep_of(settings: Settings, limits: Limits) -> list[Settings]:
    """The runs of a sweep: each rank at the effective scale of `settings`, and all weights.

    A rank whose alpha would be beyond what `LoRAConfig` takes is left out. Raises `ConfigError`
    when `settings` cannot be used.
    """
    scale = settings.lora_config().scale
    power = {"alpha/rank": 1.0, "alpha/sqrt(rank)": 0.5, "alpha": 0.0}[settings.scaling]
    swept = [
        replace(settings, method="lora", rank=rank, alpha=alpha, learning_rate=0.0)
        for rank in ranks_of(limits)
        if (alpha := scale * rank**power) <= MAX_ALPHA
    ]
    return [*swept, replace(settings, method="full", learning_rate=0.0)]
