"""The settings of one run as the page, its address and the web API know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lora_core.config import TARGETS, ConfigError, LoRAConfig, TrainConfig
from lora_core.limits import Limits
from lora_core.serving.run import Run
from lora_core.ui.values import names_of, real, string, whole

SEEDS = (1, 3, 5)  # how many runs of one setting can be asked for at once
_READERS: dict[str, Callable[[str, object], Any]] = {
    "int": whole,
    "float": real,
    "str": string,
    "tuple[str, ...]": names_of,
}


@dataclass(frozen=True)
class Settings:
    """Everything that a visitor chooses; plain types, so that it fits an address and JSON."""

    task: str = "sms-spam"
    base: str = "bundled"
    method: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    scaling: str = "alpha/rank"
    head: str = "train"
    dropout: float = 0.0
    learning_rate: float = 0.0  # 0: the measured default of the method
    steps: int = 0  # 0: as many as were measured for the method and so many labels
    batch_size: int = 16
    seed: int = 0
    seeds: int = 1  # runs of one press: with this seed and the ones after it

    @classmethod
    def names(cls) -> list[str]:
        """The settings' names, in the order of `Context.controls`."""
        return [field.name for field in fields(cls)]

    @classmethod
    def within(cls, limits: Limits) -> Settings:
        """The defaults, as far as a server takes them."""
        default = cls()
        return replace(
            default,
            rank=min(default.rank, limits.max_rank),
            batch_size=min(default.batch_size, limits.max_batch),
        )

    @classmethod
    def of(cls, run: Run) -> Settings:
        """The settings that a run was submitted with."""
        lora = run.lora_config or LoRAConfig()
        train = run.train_config or TrainConfig()
        return cls(
            task=run.task.name if run.task else "",
            base=run.base.name if run.base else "",
            method=train.method,
            rank=lora.rank,
            alpha=lora.alpha,
            targets=lora.targets,
            scaling=lora.scaling,
            head=lora.head,
            dropout=lora.dropout,
            learning_rate=train.learning_rate or 0.0,
            steps=train.steps,
            batch_size=train.batch_size,
            seed=train.seed,
        )

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Settings:
        """Settings out of JSON, an address or controls, each value of its type; not yet validated.

        What is not named keeps its default. Raises `ConfigError`.
        """
        values = {
            field.name: _READERS[str(field.type)](field.name, mapping[field.name])
            for field in fields(cls)
            if field.name in mapping
        }
        return cls(**values)

    @classmethod
    def from_values(cls, *values: Any) -> Settings:
        """Settings from what the controls of step 1 hold, in their order.

        A control that was emptied gives its default. Raises `ConfigError`.
        """
        named = zip(cls.names(), values, strict=True)
        return cls.read({name: v for name, v in named if v is not None and v != ""})

    def values(self) -> list[Any]:
        """What the controls of step 1 show for these settings, in their order."""
        return [list(v) if isinstance(v, tuple) else v for v in asdict(self).values()]

    def lora_config(self) -> LoRAConfig:
        """Validated; raises `ConfigError`."""
        return LoRAConfig(
            rank=self.rank,
            alpha=self.alpha,
            targets=self.targets,
            scaling=self.scaling,  # type: ignore[arg-type]  # validated there
            dropout=self.dropout,
            head=self.head,  # type: ignore[arg-type]
        )

    def train_config(self) -> TrainConfig:
        """Validated; raises `ConfigError`."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate or None,
            method=self.method,  # type: ignore[arg-type]
            seed=self.seed,
        )

    def for_labels(self, labels: int, limits: Limits) -> Settings:
        """The same with the steps that so many labels need, where none are set. Raises
        `ConfigError`."""
        train = self.train_config().for_labels(labels, limits.max_steps)
        return replace(self, steps=train.steps)

    def each_seed(self) -> list[Settings]:
        """The runs of one press, one a seed. Raises `ConfigError` unless `seeds` is offered."""
        if self.seeds not in SEEDS:
            raise ConfigError(f"seeds must be one of {SEEDS}, not {self.seeds!r}.")
        return [replace(self, seed=self.seed + i, seeds=1) for i in range(self.seeds)]

    @classmethod
    def from_query(cls, query: Mapping[str, Any]) -> Settings:
        """Settings of an address; unknown keys are ignored. Raises `ConfigError` for bad values."""
        values: dict[str, Any] = {k: v for k, v in query.items() if k in cls.names()}
        if "targets" in values:
            values["targets"] = [t for t in str(values["targets"]).split(",") if t]
        settings = cls.read(values)
        settings.train_config()
        settings.each_seed()
        # `*` is every layer: what that means here, as the page shows it.
        return replace(settings, targets=settings.lora_config().targets)
