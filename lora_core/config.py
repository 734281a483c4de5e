"""Every setting of a model, an adapter and a training run, validated where it is made.

Frozen dataclasses only: no torch, no files, no state. A setting that makes no sense raises
`ConfigError` with a sentence that can be shown to the person who chose it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lora_core.errors import LabError

Scaling = Literal["alpha/rank", "alpha", "alpha/sqrt(rank)"]
HeadMode = Literal["train", "lora"]
Method = Literal["lora", "full", "head"]

# A target is the end of a module's dotted name, as in PEFT's `target_modules`.
LINEAR_TARGETS = ("query", "key", "value", "attention.output", "mlp.up", "mlp.down")
EMBEDDING_TARGET = "token_embedding"
POSITIONS_TARGET = "position_embedding"  # possible, and never among what "every layer" means
TARGETS = (*LINEAR_TARGETS, EMBEDDING_TARGET)
EVERY_LAYER = ("*",)
HEAD = "head"

MAX_RANK = 256
MAX_CLASSES = 100
MAX_ALPHA = 65_536.0  # a sweep keeps the scale of rank 1 at rank 64 and beyond


class ConfigError(LabError, ValueError):
    """A setting that cannot be used; the message says what is wrong and what to do."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def is_target(name: str, target: str) -> bool:
    """Whether `target` is the dotted name of a layer or the end of it: "mlp.up" is a target of
    "blocks.0.mlp.up". PEFT's rule, too."""
    return name == target or name.endswith("." + target)


def _whole(name: str, value: object, low: int, high: int) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _require(ok, f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}.")


def _number(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ok = number and (low < value if above else low <= value) and value <= high  # type: ignore[operator]
    bound = f"above {low:g} and at most" if above else f"from {low:g} to"
    _require(ok, f"{name} must be a number {bound} {high:g}, not {value!r}.")


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2 style model (Radford et al. 2019)."""

    vocab_size: int  # tokens in the vocabulary, `<|endoftext|>` included
    context_length: int  # the longest text in tokens: learned positions end here
    emb_dim: int  # width of the residual stream
    n_layers: int
    n_heads: int
    drop_rate: float = 0.0  # after the embeddings, attention and MLP, in training only
    qkv_bias: bool = True  # GPT-2 has biases on query, key and value

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_layers", "n_heads"):
            _whole(name, getattr(self, name), 1, 10_000_000)
        _number("drop_rate", self.drop_rate, 0.0, 0.95)
        _require(
            self.emb_dim % self.n_heads == 0,
            f"emb_dim ({self.emb_dim}) must be a multiple of n_heads ({self.n_heads}).",
        )

    @property
    def hidden_dim(self) -> int:
        """Width of the MLP: four times the residual stream, as in GPT-2."""
        return 4 * self.emb_dim


def _gpt2(emb_dim: int, n_layers: int, n_heads: int) -> GPTConfig:
    return GPTConfig(50257, 1024, emb_dim, n_layers, n_heads)


GPT2_CONFIGS: dict[str, GPTConfig] = {
    "gpt2-small (124M)": _gpt2(768, 12, 12),
    "gpt2-medium (355M)": _gpt2(1024, 24, 16),
    "gpt2-large (774M)": _gpt2(1280, 36, 20),
    "gpt2-xl (1558M)": _gpt2(1600, 48, 25),
}


@dataclass(frozen=True)
class LoRAConfig:
    """What is adapted, and how strongly (Hu et al. 2021, section 4)."""

    rank: int = 8  # r: A has r columns, B has r rows
    alpha: float = 16.0  # numerator of the scale
    # Ends of the names of the layers to adapt. `("*",)` becomes `TARGETS`; with LoRA on the head,
    # which is the form of appendix E, `LINEAR_TARGETS`: every linear layer and no other.
    targets: tuple[str, ...] = EVERY_LAYER
    scaling: Scaling = "alpha/rank"  # the paper; `alpha`: older code; `alpha/sqrt(rank)`: rsLoRA
    dropout: float = 0.0  # on the input of A, in training only
    head: HeadMode = "train"  # `lora`: frozen random head with LoRA on it (appendix E)

    def __post_init__(self) -> None:
        _whole("rank", self.rank, 1, MAX_RANK)
        _number("alpha", self.alpha, 0.0, MAX_ALPHA, above=True)
        _number("dropout", self.dropout, 0.0, 0.95)
        choices = get_args(Scaling)
        _require(
            self.scaling in choices, f"scaling must be one of {choices}, not {self.scaling!r}."
        )
        choices = get_args(HeadMode)
        _require(self.head in choices, f"head must be one of {choices}, not {self.head!r}.")
        targets: Iterable[str] = self.targets
        _require(not isinstance(targets, str), "targets must be a list of names, not one string.")
        named = tuple(dict.fromkeys(targets))
        if named == EVERY_LAYER:
            named = LINEAR_TARGETS if self.head == "lora" else TARGETS
        object.__setattr__(self, "targets", named)
        words = all(isinstance(t, str) and t for t in self.targets)
        _require(words, "targets must be names of layers, such as 'query'.")
        _require(
            bool(self.targets) or self.head == "lora",
            "Choose at least one layer to adapt, or train the head only.",
        )

    @property
    def scale(self) -> float:
        """The factor before A·B."""
        return lora_scale(self.rank, self.alpha, self.scaling)


def literal(value: float) -> str:
    """A setting with every digit that it has, for what reads it back: 16, 0.1, 22.627416997969522.

    `f"{value:g}"` keeps six digits, and a run that is repeated with them is another run.
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def lora_scale(rank: int, alpha: float, scaling: Scaling = "alpha/rank") -> float:
    """The factor that multiplies A·B under one of the three rules in use.

    `alpha/rank`: Hu et al. 2021, section 4.1. `alpha/sqrt(rank)`: rsLoRA, Kalajdzievski 2023.
    `alpha`: the form of many early implementations, where the rank does not enter.
    """
    divisor = {"alpha/rank": float(rank), "alpha": 1.0, "alpha/sqrt(rank)": math.sqrt(rank)}
    if scaling not in divisor:
        raise ConfigError(f"scaling must be one of {tuple(divisor)}, not {scaling!r}.")
    return alpha / divisor[scaling]


def default_steps(labels: int, method: Method = "lora") -> int:
    """The optimiser steps of a run that asks for no number.

    With LoRA 150 up to three labels, 300 from eight on, on a line between; the other methods need
    300 with two labels, too (measured with 2 and 8 labels on the bundled base:
    `tests/benchmarks/defaults.md`).
    """
    return min(300, max(150, 150 + 30 * (labels - 3))) if method == "lora" else 300


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run."""

    steps: int = 0  # optimiser steps; 0: as many as the labels need (`default_steps`)
    batch_size: int = 16  # texts a step
    learning_rate: float | None = None  # peak; None: the measured default of the method
    # Peak, of a head that is trained in full beside other weights; None: with many classes at times
    # more than the learning rate (`preparation.default_head_rate`). A head alone has the latter.
    head_learning_rate: float | None = None
    method: Method = "lora"
    seed: int = 0  # head, A, order of the batches, dropout
    weight_decay: float = 0.01  # AdamW's decoupled decay
    warmup: float = 0.06  # share of the steps with a rising learning rate
    max_grad_norm: float = 1.0  # gradient clipping
    # Besides the one at step 0; None: every 40 steps, at least 8. Of fewer than 24 steps after one
    # in three, at least 4: it takes as long as some six of them.
    evaluations: int | None = None
    evaluation_rows: int = 256  # of validation, at most, at each; of train an eighth as many

    def __post_init__(self) -> None:
        _whole("steps", self.steps, 0, 100_000)
        _whole("batch_size", self.batch_size, 1, 4096)
        for name in ("learning_rate", "head_learning_rate"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), 0.0, 10.0, above=True)
        choices = get_args(Method)
        _require(self.method in choices, f"method must be one of {choices}, not {self.method!r}.")
        _whole("seed", self.seed, 0, 2**31 - 1)
        _number("weight_decay", self.weight_decay, 0.0, 1.0)
        _number("warmup", self.warmup, 0.0, 1.0)
        _number("max_grad_norm", self.max_grad_norm, 0.0, 1e6, above=True)
        if self.evaluations is not None:
            _whole("evaluations", self.evaluations, 1, 1000)
        _whole("evaluation_rows", self.evaluation_rows, 1, 1_000_000)

    def for_labels(self, labels: int, most: int = 100_000) -> TrainConfig:
        """The same, with the steps that so many labels need if none are set; `most` at most."""
        if self.steps:
            return self
        return replace(self, steps=min(most, default_steps(labels, self.method)))

    @property
    def evaluation_steps(self) -> frozenset[int]:
        """The steps after which is evaluated, evenly spread, with 0 and the last one.

        Of settings that know their steps (`for_labels`).
        """
        often = min(max(8, round(self.steps / 40)), max(4, math.ceil(self.steps / 3)))
        number = self.evaluations or often
        return frozenset(round(self.steps * i / number) for i in range(number + 1))
