"""One run from its first step to its test score; and in which words it fails.

The same code runs in a thread, in a process beside the server and on another machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from lora_core.base.checkpoint import Base
from lora_core.batches import Batch, encode_text, sorted_batches
from lora_core.classifier import Classifier, batched_logits
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.cores import Cores, set_threads
from lora_core.devices import Device
from lora_core.errors import LabError
from lora_core.events import Diverged, Evaluated, Event, Finished, Step
from lora_core.preparation import build_model, load_trained
from lora_core.scores import Answers, confusion, right
from lora_core.serving import heap, log
from lora_core.serving.run import Best, State, TestScore
from lora_core.tasks.task import Task
from lora_core.training import fine_tune

KEPT = "The best weights so far were kept."
_ROWS_A_LOOK, _TOKENS_A_LOOK = 16, 1024  # scored between two looks at the stop flag


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know of a run."""

    id: str = field(repr=False)
    base: Base
    task: Task
    lora_config: LoRAConfig
    train_config: TrainConfig
    watch_texts: tuple[str, ...] = field(default=(), repr=False)
    resume: Best | None = None  # go on from here
    device: Device | None = None  # None: whoever trains it chooses


Report = Event | Best


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `finished` is missing only where it broke before its first evaluation."""

    state: State
    reason: str = ""
    finished: Finished | None = None
    test_score: TestScore | None = None
    processor_seconds: float = 0.0  # of the thread that trained: others' runs are not in it


def use_one_thread() -> None:
    """Let the calling thread compute with one core. It is a setting of each thread."""
    set_threads(1)


def train(
    job: Job,
    report: Callable[[Report], None],
    should_stop: Callable[[], bool],
    free_cores: Callable[[], int] = lambda: 1,
) -> Outcome:
    """Train and test; events and best weights are reported as they come, all but `Finished`.

    `free_cores` says how many cores the run may use now.

    Never raises: whatever breaks the run off, a `SystemExit` and a full memory included, it has
    the best weights of before, and says why.
    """
    state: State = "finished"
    reason = ""
    progress = Progress(job)
    cores = Cores(free_cores)

    def tell(item: Report) -> None:
        progress.note(item)
        report(item)

    finished: Finished | None = None
    begin = time.thread_time()

    def ended(state: State, reason: str, score: TestScore | None = None) -> Outcome:
        return Outcome(state, reason, finished, score, time.thread_time() - begin)

    try:
        for event in fine_tune(
            job.base,
            job.task,
            job.lora_config,
            job.train_config,
            watch_texts=job.watch_texts,
            should_stop=should_stop,
            device=job.device,
            cores=cores,
            on_best=lambda step, weights: tell(Best(step, weights)),
            resume=(job.resume.step, job.resume.weights) if job.resume else None,
        ):
            if isinstance(event, Finished):
                finished = event
                continue  # where an error broke the run off, it is raised now
            tell(event)
            if isinstance(event, Diverged):
                state, reason = "failed", event.message
        assert finished is not None, "fine_tune ended without Finished"
        if finished.outcome == "stopped":
            return ended("stopped", "")
        test_score = score_test(job.task, finished.classifier, should_stop, cores)
        return ended(state, reason, test_score)
    except BaseException as error:
        log.broke(job.id, error)
        finished = finished or progress.finished("failed")
        sentence = reason or (f"{why(error)} {KEPT}" if finished else why(error))
        return ended("failed", sentence)
    finally:
        heap.trim()


class Progress:
    """What is known of a run from its reports: enough to end it when its worker is gone."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.best = job.resume
        self.step = 0
        self.seconds = 0.0
        self.validation = math.nan, math.nan  # accuracy and loss of the best weights

    def note(self, item: Report) -> None:
        """Take a report in."""
        if isinstance(item, Best):
            self.best = item
        elif isinstance(item, Step | Evaluated):
            self.step, self.seconds = item.step, item.seconds
            if isinstance(item, Evaluated) and item.best:
                self.validation = item.validation_accuracy, item.validation_loss

    def finished(self, outcome: str) -> Finished | None:
        """The last event of a run that could not make its own; None before any weights."""
        if self.best is None:
            return None
        accuracy, loss = self.validation
        scores = {"validation_accuracy": accuracy, "validation_loss": loss}
        classifier = rebuild(self.job, self.best.weights, scores)
        return Finished(self.step, outcome, self.best.step, accuracy, self.seconds, classifier)  # type: ignore[arg-type]


def rebuild(
    job: Job, weights: Mapping[str, Tensor] | None, scores: Mapping[str, float]
) -> Classifier:
    """The classifier of a run, from its settings and its trained weights, bit for bit.

    No `weights`: it was never evaluated, so they are those of before the first step.
    """
    train, lora = job.train_config, job.lora_config
    generator = Generator().manual_seed(train.seed)
    model = build_model(job.base, len(job.task.labels), lora, train.method, generator)
    initial = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.endswith((".lora.A", ".lora.B"))
    }
    if weights is not None:
        load_trained(model, weights)
    return Classifier(
        model,
        job.base.tokenizer,
        job.task.labels,
        initial=initial,
        lora_config=lora if train.method == "lora" else None,
        train_config=train,
        base_name=job.base.name,
        base_source=job.base.source,
        task_name=job.task.name,
        scores=dict(scores),
    )


def score_test(
    task: Task, classifier: Classifier, should_stop: Callable[[], bool], cores: Cores
) -> TestScore | None:
    """Accuracy and confusion on the test split; None without one, or when stopped meanwhile."""
    rows, context = task.test, classifier.model.config.context_length
    if not rows:
        return None
    ids = [encode_text(classifier.tokenizer, row.text, context) for row in rows]
    labels = [row.label for row in rows]
    # All of them by length, not in parts as they come: padding would be most of the work.
    batches = list(sorted_batches(ids, labels, _ROWS_A_LOOK, _TOKENS_A_LOOK))

    def predict(batch: Batch) -> Tensor | None:
        if should_stop():
            return None
        return batched_logits(classifier.model, [ids[row] for row in batch.rows]).softmax(-1)

    parts = cores.map(predict, batches)
    predicted = [part for part in parts if part is not None]
    if len(predicted) < len(parts):
        return None
    order = torch.tensor([row for batch in batches for row in batch.rows]).argsort()
    probabilities, said = torch.cat(predicted)[order].max(-1)
    counts = confusion(said, torch.tensor(labels), len(task.labels))
    return TestScore(right(counts) / len(rows), len(rows), counts, Answers(said, probabilities))


def why(error: BaseException) -> str:
    """The sentence for a visitor whose run broke; never the program's own words."""
    if isinstance(error, LabError):
        return str(error)
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return "The machine ran out of memory: choose a smaller batch, a lower rank or LoRA."
    return "The program failed in this run, and only in this one. The server's log says where."
