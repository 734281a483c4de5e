"""Fine-tuning as a generator of events: list it in a test, draw it live, stop it at any step.

Nothing here prints, draws or starts threads. Every random number of a run comes from generators
of its own, so that runs in other threads cannot disturb it: one seed gives one adapter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lora_core.base.checkpoint import Base
from lora_core.batches import Batch
from lora_core.config import ConfigError, LoRAConfig, TrainConfig
from lora_core.cores import Cores
from lora_core.devices import Device
from lora_core.events import Diverged, Evaluated, Event, Finished, Outcome, Step, Watched
from lora_core.fast.engine import Engine
from lora_core.preparation import Preparation, trained_weights
from lora_core.scores import Score, best_temperature, score
from lora_core.tasks.task import Task

_WATCHES = 50  # how often along a run the watched texts are classified
ASK_SECONDS = 0.2  # seconds after which should_stop is asked even within a step or an evaluation
_RUNAWAY = 4.0  # a smoothed loss so many times the first one will not come back


def fine_tune(
    base: Base,
    task: Task,
    lora_config: LoRAConfig | None = None,
    train_config: TrainConfig | None = None,
    *,
    watch_texts: Iterable[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    on_best: Callable[[int, dict[str, Tensor]], None] | None = None,
    resume: tuple[int, Mapping[str, Tensor]] | None = None,
    device: Device | None = None,
    cores: Cores | None = None,
) -> Iterator[Event]:
    """Adapt `base` to `task`, yielding what happens: `Started`, then `Evaluated` and `Step`s (with
    `Watched` for the probabilities of `watch_texts`, the last one those of the classifier that the
    run ends with), and `Finished` with the classifier.

    AdamW; the learning rate warms up, then follows a cosine to zero, that of a head with many
    classes at times above it (`default_head_rate`); gradients are clipped by norm. The weights
    with the highest validation accuracy are kept, among equals those with the lower loss; in the
    end a head that was trained is divided by the temperature that makes its probabilities true on
    the validation texts (`best_temperature`; `Evaluated` tells of the head as it was).
    `should_stop` is asked at every step; a stopped run finishes at once with the best weights so
    far. An error within a run that has been evaluated does not lose them either: `Finished` comes
    first, with the outcome "failed", then the error is raised. The base is shared, never written to
    (full fine-tuning works on a copy).
    `on_best` gets the step and a copy of the trained weights, by their names, whenever they are the
    best so far. `resume` goes on from such weights: the texts and the learning rate of the later
    steps are those of the whole run, AdamW's moments start anew. `cores` says how many cores it may
    use from step to step, with the same bits; None: as many as torch is set to.
    Raises `ConfigError` before the first event when the settings do not fit the base or the task.
    """
    lora_config, config = lora_config or LoRAConfig(), train_config or TrainConfig()
    config = config.for_labels(len(task.labels))
    if isinstance(watch_texts, str):
        raise ConfigError("watch_texts must be a list of texts, not one text.")
    watched = tuple(watch_texts)
    patience = _Patience(should_stop)
    run = Preparation(base, task, lora_config, config, watched, device, patience.check, cores)
    best = _BestWeights(run, on_best)
    evaluation_steps = config.evaluation_steps
    watch_steps = {round(config.steps * i / _WATCHES) for i in range(_WATCHES)}
    runaway_loss = _RUNAWAY * max(1.0, math.log(len(task.labels)))
    outcome: Outcome = "completed"
    step = run.resume(*resume) if resume else 0
    tokens, training_seconds, smoothed = 0, 0.0, math.nan

    yield run.started()
    begin = time.perf_counter()
    try:
        while True:
            if step in evaluation_steps:
                answers = answered(run.engine, run.validation)
                validation = score(*answers)
                improved = best.offer(step, validation, answers)
                train = evaluate(run.engine, run.train_sample)
                scores = train.loss, train.accuracy, validation.loss, validation.accuracy
                yield Evaluated(step, *scores, improved, time.perf_counter() - begin)
            if watched and step in watch_steps and step < config.steps:
                yield Watched(step, run.watched_probabilities())
            if step == config.steps:
                break
            patience.ask()
            step_begin = time.perf_counter()
            batch = next(run.batches)
            rate = run.peak * schedule(step, config.steps, config.warmup)
            loss, taken = run.engine.step(batch, rate)
            step += 1
            tokens += batch.real_tokens
            training_seconds += time.perf_counter() - step_begin
            yield Step(step, loss, rate, tokens / training_seconds, time.perf_counter() - begin)
            smoothed = loss if math.isnan(smoothed) else 0.8 * smoothed + 0.2 * loss
            if not taken or smoothed > runaway_loss:
                outcome = "diverged"
                yield Diverged(step, loss, _advice(loss, run.peak))
                break
    except _StopAskedError:
        outcome = "stopped"
        patience.resting = True
    except Exception:
        if best.score is not None:
            yield from best.ending(step, "failed", begin)
        raise
    yield from best.ending(step, outcome, begin)


class _BestWeights:
    """Keeps the trained weights of the best evaluation so far, and ends the run with them."""

    def __init__(
        self, run: Preparation, on_best: Callable[[int, dict[str, Tensor]], None] | None
    ) -> None:
        self._run, self._on_best = run, on_best
        self.score: Score | None = None
        self.step = 0
        self._weights: list[Tensor] = []
        self._answers: tuple[Tensor, Tensor] | None = None

    def offer(self, step: int, score: Score, answers: tuple[Tensor, Tensor]) -> bool:
        """Keep the present weights if they are the best.

        Accuracy first: with few texts the loss rises again, out of too much confidence, while the
        accuracy still does.
        """
        if self.score is not None:
            ahead = (score.accuracy, -score.loss) > (self.score.accuracy, -self.score.loss)
            if not (ahead and math.isfinite(score.loss)):
                return False
        self.step, self.score, self._answers = step, score, answers
        self._weights = self._run.engine.snapshot()
        if self._on_best is not None:
            self._on_best(step, trained_weights(self._run.model))
        return True

    def ending(self, step: int, outcome: Outcome, begin: float) -> Iterator[Watched | Finished]:
        """The last events: what the classifier says of the watched texts, and the classifier."""
        finished = self._finish(step, outcome, begin)
        if watched := self._run.watched_probabilities():
            yield Watched(step, watched)
        yield finished

    def _finish(self, step: int, outcome: Outcome, begin: float) -> Finished:
        """Put the best weights back, make their confidence mean something on the validation
        texts, and leave the model as an ordinary module.
        """
        run = self._run
        if self.score is None:  # stopped within the first evaluation: the weights are untouched
            self.score = evaluate(run.engine, run.validation[:1])
        else:
            run.engine.restore(self._weights)
        run.engine.release()
        temperature = 1.0
        if self.step and self._answers is not None:
            temperature = run.cool(best_temperature(*self._answers))
        classifier = run.classifier(self.score, temperature)
        seconds = time.perf_counter() - begin
        return Finished(step, outcome, self.step, self.score.accuracy, seconds, classifier)


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
        if not self.resting and time.perf_counter() - self._asked > ASK_SECONDS:
            self.ask()


def evaluate(engine: Engine, batches: Sequence[Batch]) -> Score:
    """Loss and accuracy over a labelled set in batches."""
    return score(*answered(engine, batches))


def answered(engine: Engine, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """(rows, classes) logits and (rows,) labels of a labelled set in batches."""
    return engine.logits(batches), torch.cat([batch.labels for batch in batches])


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate before step `step` (from 0): linear warm-up, then cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _advice(loss: float, rate: float) -> str:
    what = (
        "became infinite or not a number" if not math.isfinite(loss) else f"ran away ({loss:.1f})"
    )
    return (
        f"The loss {what}: the learning rate {rate:g} is too large here. "
        f"Try {rate / 4:.1g}, or a smaller alpha. The best weights so far were kept."
    )
