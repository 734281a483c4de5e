"""Fine-tuning as a generator of events: list it in a test, draw it live, stop it at any step.

Nothing here prints, draws or starts threads. Every random number of a run comes from generators
of its own, so that runs in other threads cannot disturb it: one seed gives one adapter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lora_core.base.checkpoint import Base
from lora_core.batches import Batch, encode_text, sorted_batches, training_batches
from lora_core.classifier import Classifier, Score, batched_logits
from lora_core.config import ConfigError, LoRAConfig, Method, TrainConfig
from lora_core.devices import Device, choose_device
from lora_core.fast.engine import Engine, make_engine
from lora_core.lora import inject_lora, lora_layers
from lora_core.model import GPT
from lora_core.parameters import ParameterCount, count_parameters
from lora_core.tasks.task import Example, Task

# Peak learning rates, from the recorded sweep (tests/benchmarks/defaults.md); LoRA's at most.
DEFAULT_LEARNING_RATES: dict[Method, float] = {"lora": 2e-3, "full": 2e-3, "head": 3e-2}
_STEADY = 24.0  # scale x rank up to which LoRA's rate holds; a guess, a little above 16
_WATCHES = 50  # how often along a run the watched texts are classified
_ASK = 0.2  # seconds after which should_stop is asked even within a step or an evaluation
_RUNAWAY = 4.0  # a smoothed loss so many times the first one will not come back

Outcome = Literal["completed", "stopped", "diverged"]


@dataclass(frozen=True)
class Started:
    """The first event: what is about to happen."""

    steps: int
    batch_size: int
    learning_rate: float  # peak
    method: Method
    parameters: ParameterCount
    device: Device
    train_rows: int
    validation_rows: int
    epochs: float  # passes over the training texts
    step: int = 0


@dataclass(frozen=True)
class Step:
    """One optimiser step; `step` counts from 1."""

    step: int
    loss: float  # mean cross-entropy of this batch, nats, before the step
    learning_rate: float
    tokens_per_second: float  # real tokens, of the training steps so far
    seconds: float  # since the start


@dataclass(frozen=True)
class Evaluated:
    """Loss and accuracy after `step` steps; at step 0 the untrained classifier."""

    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    best: bool  # the highest validation accuracy so far, or as high at a lower loss: kept
    seconds: float


@dataclass(frozen=True)
class Watched:
    """Probabilities of the watched texts after `step` steps: one tuple (classes) a text."""

    step: int
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Diverged:
    """The loss became NaN or ran away; the run ends and keeps its best weights."""

    step: int
    loss: float
    message: str


@dataclass(frozen=True)
class Finished:
    """The last event, however the run ended. `classifier` has the best validated weights."""

    step: int  # steps done
    outcome: Outcome
    best_step: int
    validation_accuracy: float  # of the best weights
    seconds: float
    classifier: Classifier = field(repr=False)


Event = Started | Step | Evaluated | Watched | Diverged | Finished


def fine_tune(
    base: Base,
    task: Task,
    lora_config: LoRAConfig | None = None,
    train_config: TrainConfig | None = None,
    *,
    watch_texts: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    device: Device | None = None,
) -> Iterator[Event]:
    """Adapt `base` to `task`, yielding what happens: `Started`, then `Evaluated` and `Step`s (with
    `Watched` for the probabilities of `watch_texts`), and `Finished` with the classifier.

    AdamW; the learning rate warms up, then follows a cosine to zero, with many classes that of the
    head at a multiple of it (`default_head_rate`); gradients are clipped by their norm. The weights
    with the highest validation accuracy are kept, among equals those with the lower loss.
    `should_stop` is asked at every step; a stopped run finishes at once with the best weights so
    far. The base is shared, never written to (full fine-tuning works on a copy).
    Raises `ConfigError` before the first event when the settings do not fit the base or the task.
    """
    lora_config = lora_config or LoRAConfig()
    config = train_config or TrainConfig()
    if not task.train or not task.validation:
        raise ConfigError(f"The task '{task.name}' has no rows to train or to validate on.")
    device = device or choose_device()
    peak = config.learning_rate or default_learning_rate(config.method, lora_config)
    generator = torch.Generator().manual_seed(config.seed)
    model = build_model(base, len(task.labels), lora_config, config.method, generator)
    initial = {
        n: p.detach().clone()
        for n, p in model.named_parameters()
        if p.requires_grad and not _is_lora(n)
    }
    train_ids, train_labels = _encode(base, task.train)
    valid_ids, valid_labels = _encode(base, task.validation[: config.evaluation_rows])
    probe = _probe_rows(len(train_ids), config)
    on_probe = _evaluation_batches([train_ids[i] for i in probe], [train_labels[i] for i in probe])
    on_validation = _evaluation_batches(valid_ids, valid_labels)
    watched_ids = [encode_text(base.tokenizer, t, base.config.context_length) for t in watch_texts]
    batches = training_batches(train_ids, train_labels, config.batch_size, generator)
    patience = _Patience(should_stop)
    parameters = count_parameters(model)
    head_peak = config.head_learning_rate or default_head_rate(
        peak, len(task.labels), base.config.emb_dim
    )
    engine = make_engine(model, config, device, patience.check, head_peak / peak)
    evaluate_at = config.evaluation_steps
    watch_at = {round(config.steps * i / _WATCHES) for i in range(_WATCHES + 1)}

    yield Started(
        config.steps,
        config.batch_size,
        peak,
        config.method,
        parameters,
        engine.device,
        len(task.train),
        len(task.validation),
        config.steps * config.batch_size / len(task.train),
    )
    begin = time.perf_counter()
    best: Score | None = None
    best_step, step, tokens, training_seconds = 0, 0, 0, 0.0
    kept: list[Tensor] = []
    smoothed, ceiling = 0.0, _RUNAWAY * max(1.0, math.log(len(task.labels)))
    outcome: Outcome = "completed"
    try:
        while True:
            if step in evaluate_at:
                validation = evaluate(engine, on_validation)
                improved = best is None or _better(validation, best)
                if improved:
                    best, best_step, kept = validation, step, engine.snapshot()
                train = evaluate(engine, on_probe)
                yield Evaluated(
                    step,
                    train.loss,
                    train.accuracy,
                    validation.loss,
                    validation.accuracy,
                    improved,
                    time.perf_counter() - begin,
                )
            if watched_ids and step in watch_at:
                rows = _probabilities(model, watched_ids)
                yield Watched(step, tuple(tuple(row) for row in rows.tolist()))
            if step == config.steps:
                break
            patience.ask()
            started = time.perf_counter()
            batch = next(batches)
            rate = peak * schedule(step, config.steps, config.warmup)
            value, taken = engine.step(batch, rate)
            step += 1
            tokens += batch.real_tokens
            training_seconds += time.perf_counter() - started
            yield Step(step, value, rate, tokens / training_seconds, time.perf_counter() - begin)
            smoothed = value if step == 1 else 0.8 * smoothed + 0.2 * value
            if not taken or smoothed > ceiling:
                outcome = "diverged"
                yield Diverged(step, value, _advice(value, peak))
                break
    except _StopAskedError:
        outcome = "stopped"

    if best is None:  # stopped within the first evaluation: a small one, of the untouched weights
        patience.resting = True
        best = evaluate(engine, on_validation[:1])
    else:
        engine.restore(kept)
    engine.release()
    classifier = Classifier(
        model,
        base.tokenizer,
        task.labels,
        initial=initial,
        lora_config=lora_config if config.method == "lora" else None,
        train_config=config,
        base_name=base.name,
        base_source=base.source,
        task_name=task.name,
        scores={"validation_accuracy": best.accuracy, "validation_loss": best.loss},
    )
    seconds = time.perf_counter() - begin
    yield Finished(step, outcome, best_step, best.accuracy, seconds, classifier)


def default_learning_rate(method: Method, lora_config: LoRAConfig) -> float:
    """The peak learning rate of a run that asks for none.

    A step of Adam moves every entry of B by about the rate, whatever the gradient's size, and the
    layer's output by about rate x scale x rank. With `alpha/rank` that does not contain the rank,
    so one rate serves them all (Schulman et al. 2025, *LoRA Without Regret*, find the same); with
    the other rules, or a large alpha, the rate falls so that the product stays within bounds: that
    part follows from the argument and was not swept.
    """
    rate = DEFAULT_LEARNING_RATES[method]
    if method != "lora":
        return rate
    return rate * min(1.0, _STEADY / (lora_config.scale * lora_config.rank))


def default_head_rate(rate: float, classes: int, emb_dim: int) -> float:
    """The peak learning rate of a head that is trained beside the rest, which learns at `rate`.

    The same up to ten classes; with more of them, of which a batch shows but a few, the head learns
    faster in proportion, at most five times as fast (measured with 2, 8, 10 and 77 classes on the
    bundled base; `tests/benchmarks/defaults.md`). A step of Adam moves a logit by up to
    rate x sum |features|, so with the width the factor falls again, to one at the least (Yang et
    al. 2022, *Tensor Programs V*, table 3): that part was not measured.
    """
    return rate * min(5.0, max(1.0, classes / 10 * 256 / emb_dim))


def evaluate(engine: Engine, batches: Sequence[Batch]) -> Score:
    """Loss and accuracy over a labelled set in batches."""
    logits = torch.cat([engine.logits(batch) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    accuracy = (logits.argmax(-1) == labels).float().mean().item()
    return Score(F.cross_entropy(logits, labels).item(), accuracy, F.softmax(logits, -1))


def _better(new: Score, old: Score) -> bool:
    """Accuracy first: with few texts the loss rises again, out of too much confidence, while the
    accuracy still does."""
    return math.isfinite(new.loss) and (new.accuracy, -new.loss) > (old.accuracy, -old.loss)


class _StopAskedError(Exception):
    """Someone asked the run to stop; caught within this file."""


class _Patience:
    """Asks whether to stop: at every step, and within one that takes long."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._asked = time.perf_counter()
        self.resting = False  # do not interrupt what ends a stopped run

    def ask(self) -> None:
        """Raise if the run is to stop."""
        self._asked = time.perf_counter()
        if self._should_stop():
            raise _StopAskedError

    def check(self) -> None:
        """Ask, if the last time is long ago."""
        if not self.resting and time.perf_counter() - self._asked > _ASK:
            self.ask()


def build_model(
    base: Base, num_classes: int, lora_config: LoRAConfig, method: Method, generator: Generator
) -> GPT:
    """The model that a method trains; over the base's own tensors unless it trains them all."""
    model = base.classifier_model(num_classes, generator, share=method != "full")
    if method == "lora":
        inject_lora(model, lora_config, generator)
        for _, layer in lora_layers(model):
            layer.lora.generator = generator
    elif method == "head":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model.eval()


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate before step `step` (from 0): linear warm-up, then cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _encode(base: Base, examples: Sequence[Example]) -> tuple[list[list[int]], list[int]]:
    limit = base.config.context_length
    ids = [encode_text(base.tokenizer, example.text, limit) for example in examples]
    return ids, [example.label for example in examples]


def _evaluation_batches(ids: Sequence[Sequence[int]], labels: Sequence[int]) -> list[Batch]:
    return list(sorted_batches(ids, labels, 64, max_tokens=1024))


def _probe_rows(rows: int, config: TrainConfig) -> list[int]:
    """Which training rows are evaluated: a fixed sample, an eighth as many as for
    validation."""
    size = min(rows, max(1, config.evaluation_rows // 8))
    sampler = torch.Generator().manual_seed(config.seed)
    return torch.randperm(rows, generator=sampler)[:size].tolist()


def _probabilities(model: GPT, ids: Sequence[Sequence[int]]) -> Tensor:
    return F.softmax(batched_logits(model, ids), -1)


def _is_lora(parameter_name: str) -> bool:
    return parameter_name.endswith((".lora.A", ".lora.B"))


def _advice(loss: float, rate: float) -> str:
    what = (
        "became infinite or not a number" if not math.isfinite(loss) else f"ran away ({loss:.1f})"
    )
    return (
        f"The loss {what}: the learning rate {rate:g} is too large here. "
        f"Try {rate / 4:.1g}, or a smaller alpha. The best weights so far were kept."
    )
