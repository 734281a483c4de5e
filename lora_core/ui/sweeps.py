"""What a sweep varies: ranks, learning rates, rank by alpha, or layers at equal cost.

The button of step 2 queues `sweep_of`; Experiments ask `points_of`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lora_core.config import MAX_ALPHA, ConfigError, GPTConfig, lora_scale
from lora_core.explain.equal_cost import choices
from lora_core.limits import Limits
from lora_core.preparation import default_learning_rate
from lora_core.serving.plans import Cell
from lora_core.ui.settings import SEEDS, Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

KINDS = ("ranks", "rates", "grid", "layers")
SWEPT_RANKS = (1, 4, 16, 64)
_RATES = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)  # of the default rate


@dataclass(frozen=True)
class Point:
    """One setting of a sweep; its seeds share it."""

    settings: Settings
    name: str
    series: str  # "lora" or "full"
    rate: float  # peak learning rate
    scale: float | None


def ranks_of(limits: Limits) -> list[int]:
    """The ranks of a sweep that this server takes; its highest where the largest are beyond it."""
    return sorted({min(rank, limits.max_rank) for rank in SWEPT_RANKS})


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


def points_of(
    kind: str, settings: Settings, limits: Limits, shape: GPTConfig, labels: int
) -> list[Point]:
    """The settings that a sweep of this kind tries, around `settings`, as far as they can be had at
    its effective scale, on a task of so many labels. Raises `ConfigError`."""
    if kind == "ranks":
        tried = sweep_of(settings, limits)
    elif kind == "rates":
        tried = [
            replace(settings, method=method, learning_rate=_round(rate * factor))
            for method in ("lora", "full")
            for rate in [default_learning_rate(method, settings.lora_config())]
            for factor in _RATES
        ]
    elif kind == "grid":
        rate = default_learning_rate("lora", settings.lora_config())
        tried = [
            replace(settings, method="lora", rank=rank, alpha=alpha, learning_rate=_round(rate))
            for rank in ranks_of(limits)
            for alpha in alphas_of(limits)
        ]
    elif kind == "layers":
        scale = settings.lora_config().scale
        power = {"alpha/rank": 1.0, "alpha/sqrt(rank)": 0.5, "alpha": 0.0}[settings.scaling]
        tried, names = [], []
        for choice in choices(shape, min(settings.rank, limits.max_rank), limits.max_rank):
            alpha = scale * choice.rank**power
            if alpha > MAX_ALPHA:
                continue  # of another scale it would be another comparison
            tried.append(
                replace(
                    settings,
                    method="lora",
                    head="train",
                    rank=choice.rank,
                    alpha=alpha,
                    targets=choice.targets,
                    learning_rate=0.0,
                )
            )
            names.append(say(f"experiments.group_{choice.name}") + f" (r {choice.rank})")
        tried = [one.for_labels(labels, limits) for one in tried]
        return [_point(one, name) for one, name in zip(tried, names, strict=True)]
    else:
        raise ConfigError(f"A sweep is one of {', '.join(KINDS)}, not {kind!r}.")
    return [_point(one.for_labels(labels, limits), _name(kind, one)) for one in tried]


def alphas_of(limits: Limits) -> list[float]:
    """The alphas of the grid: with the ranks they make diagonals of equal scale."""
    return [2.0 * rank for rank in ranks_of(limits)]


def cells_of(points: list[Point], seeds: int, first: int) -> list[Cell]:
    """Every point with `seeds` seeds from `first` on; all points of one seed come before the next,
    so that there is something to compare early. Raises `ConfigError`."""
    if seeds not in SEEDS:
        raise ConfigError(f"seeds must be one of {SEEDS}, not {seeds!r}.")
    return [
        Cell(point, seeded.lora_config(), seeded.train_config())
        for number in range(seeds)
        for point in points
        for seeded in [replace(point.settings, seed=first + number, seeds=1)]
    ]


def _point(settings: Settings, name: str) -> Point:
    lora, method = settings.lora_config(), settings.train_config().method
    rate = settings.learning_rate or default_learning_rate(method, lora)
    scale = None
    if method == "lora":
        scale = lora_scale(lora.rank, lora.alpha, lora.scaling)
    return Point(settings, name, method, rate, scale)


def _name(kind: str, settings: Settings) -> str:
    what = f"r {settings.rank}" if settings.method == "lora" else "full"
    if kind == "rates":
        rate = words.number(settings.learning_rate)
        return f"{'LoRA' if settings.method == 'lora' else 'full'}, {rate}"
    return f"{what}, α {words.exact(settings.alpha)}" if kind == "grid" else what


def _round(rate: float) -> float:
    """Two significant digits: a rate that a person would write."""
    return float(f"{rate:.2g}")
