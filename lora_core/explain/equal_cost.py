"""Which layers to adapt, compared fairly: each choice at the rank that makes its cost the same."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.config import EMBEDDING_TARGET, HEAD, LINEAR_TARGETS, TARGETS, GPTConfig, LoRAConfig
from lora_core.parameters import predict_parameters


@dataclass(frozen=True)
class Choice:
    """Layers to adapt, at a rank."""

    name: str  # "every", "attention", "mlp", "pieces", "first", "last"
    targets: tuple[str, ...]
    rank: int
    parameters: int  # of A and B, without the head


def choices(config: GPTConfig, rank: int, max_rank: int) -> list[Choice]:
    """All layers at `rank`, and five parts of them at about the same number of parameters.

    Ranks are whole, so counts agree to half a rank; where a part would need more than `max_rank`,
    all are smaller. A base of one block has no halves.
    """
    groups = {
        "every": TARGETS,
        "attention": LINEAR_TARGETS[:4],
        "mlp": LINEAR_TARGETS[4:],
        "pieces": (EMBEDDING_TARGET,),
    }
    half = config.n_layers // 2
    if half:
        groups["first"] = _blocks(range(half))
        groups["last"] = _blocks(range(config.n_layers - half, config.n_layers))
    costs = {name: _per_rank(config, targets) for name, targets in groups.items()}
    budget = min(rank * costs["every"], max_rank * min(costs.values()))
    made = []
    for name, targets in groups.items():
        fitting = min(max_rank, max(1, round(budget / costs[name])))
        made.append(Choice(name, targets, fitting, fitting * costs[name]))
    return made


def _blocks(numbers: range) -> tuple[str, ...]:
    """Every linear layer of some blocks, by its whole name."""
    kinds = [name if "." in name else f"attention.{name}" for name in LINEAR_TARGETS]
    return tuple(f"blocks.{number}.{kind}" for number in numbers for kind in kinds)


def _per_rank(config: GPTConfig, targets: tuple[str, ...]) -> int:
    """Parameters that one more rank costs."""
    count = predict_parameters(config, LoRAConfig(rank=1, targets=targets), 2)
    return count.trainable - count.by_module[HEAD].trainable
