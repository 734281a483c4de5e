"""One run from its first step to its test score; and in which words it fails."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lora_core.batches import encode_text
from lora_core.classifier import Classifier, batched_logits
from lora_core.errors import LabError
from lora_core.events import Diverged, Finished, Step
from lora_core.scores import confusion, right
from lora_core.serving import log
from lora_core.serving.run import Run, State, TestScore
from lora_core.training import fine_tune

_TEST_ROWS = 128  # rows scored between two looks at the stop flag


def use_one_thread() -> None:
    """Let the calling thread compute with one core. It is a setting of each thread: a new one
    starts with as many as `OMP_NUM_THREADS` says, or all cores, whatever was set elsewhere."""
    torch.set_num_threads(1)


def execute(run: Run, on_step: Callable[[Run], None]) -> tuple[State, str, Finished]:
    """Train and test; events go to the run as they come, all but the last, which is returned
    together with the state and the reason.

    An error after the first evaluation does not lose the weights: the run is "failed" and has the
    best of them. Before it, what `fine_tune` raises is raised.
    """
    assert run.base is not None and run.task is not None
    state: State = "finished"
    reason = ""
    finished: Finished | None = None
    try:
        for event in fine_tune(
            run.base,
            run.task,
            run.lora_config,
            run.train_config,
            watch_texts=run.watch_texts,
            should_stop=run.stopping.is_set,
        ):
            if isinstance(event, Finished):
                finished = event
                continue  # where an error broke the run off, it is raised now
            run.events.append(event)
            if isinstance(event, Diverged):
                state, reason = "failed", event.message
            if isinstance(event, Step):
                run.step = event.step
                on_step(run)
        assert finished is not None, "fine_tune ended without Finished"
        if finished.outcome == "stopped":
            return "stopped", "", finished
        run.test_score = score_test(run, finished.classifier)
    except Exception as error:
        if finished is None:
            raise
        log.broke(run, error)
        return "failed", reason or f"{why(error)} The best weights so far were kept.", finished
    return state, reason, finished


def score_test(run: Run, classifier: Classifier) -> TestScore | None:
    """Accuracy and confusion on the test split; None without one, or when stopped meanwhile."""
    assert run.task is not None
    rows, context = run.task.test, classifier.model.config.context_length
    if not rows:
        return None
    predicted = []
    for start in range(0, len(rows), _TEST_ROWS):
        if run.stopping.is_set():
            return None
        part = rows[start : start + _TEST_ROWS]
        ids = [encode_text(classifier.tokenizer, row.text, context) for row in part]
        predicted.append(batched_logits(classifier.model, ids).argmax(-1))
    truth = torch.tensor([row.label for row in rows])
    counts = confusion(torch.cat(predicted), truth, len(run.task.labels))
    return TestScore(right(counts) / len(rows), len(rows), counts)


def why(error: Exception) -> str:
    """The sentence for a visitor whose run broke; never the program's own words."""
    if isinstance(error, LabError):
        return str(error)
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return "The machine ran out of memory: choose a smaller batch, a lower rank or LoRA."
    return "The program failed in this run, and only in this one. The server's log says where."
