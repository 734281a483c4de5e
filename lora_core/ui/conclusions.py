"""What a run, or several of them, showed: one sentence, computed from their figures."""

from __future__ import annotations

from collections.abc import Sequence

from lora_core.config import Method
from lora_core.parameters import ParameterCount, predict_parameters
from lora_core.serving.registry import Run
from lora_core.tasks.task import Task
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_AS_GOOD = 0.01  # a rank counts as good as the best one when it is at most so much behind it


def conclusion(seen: Sequence[tuple[Run, Curve, str]]) -> str:
    """Of the run that ended last; of all runs of its task where they can be compared."""
    over = [entry for entry in seen if entry[0].test_score is not None and entry[0].is_over]
    if not over:
        return ""
    last = max(over, key=lambda entry: entry[0].ended or 0.0)[0]
    peers = [(run, name) for run, _, name in over if run.task is last.task]
    return " ".join(part for part in (of_run(last), of_several(peers)) if part)


def of_run(run: Run) -> str:
    """How many unseen texts a run gets right, with how much trained, and what habit reaches."""
    assert run.test_score is not None and run.task is not None
    share, label = _habit(run.task)
    return say(
        "result.run",
        accuracy=words.accuracy(run.test_score.accuracy),
        rows=run.test_score.rows,
        share=words.percent(counted(run).percent),
        label=label,
        habit=words.accuracy(share),
    )


def of_several(runs: Sequence[tuple[Run, str]]) -> str:
    """The smallest rank that is about as good as the best, against full fine-tuning, or against
    the largest rank; "" where there is nothing to compare."""
    adapted = [(run, name) for run, name in runs if _method(run) == "lora"]
    full = [(run, name) for run, name in runs if _method(run) == "full"]
    if not adapted or (len(adapted) < 2 and not full):
        return ""
    best = max(_accuracy(run) for run, _ in adapted)
    good = [pair for pair in adapted if _accuracy(pair[0]) >= best - _AS_GOOD]
    small, small_name = min(good, key=lambda pair: counted(pair[0]).trainable)
    if full:
        large, large_name = max(full, key=lambda pair: _accuracy(pair[0]))
    else:
        large, large_name = max(adapted, key=lambda pair: counted(pair[0]).trainable)
    times = counted(large).trainable / counted(small).trainable
    if times <= 1:
        return ""
    return say(
        "result.several",
        small=small_name,
        small_accuracy=words.accuracy(_accuracy(small)),
        large=large_name,
        large_accuracy=words.accuracy(_accuracy(large)),
        times=words.number(times, 2),
    )


def counted(run: Run) -> ParameterCount:
    """What a run trains, known before it starts."""
    assert run.base is not None and run.task is not None
    return predict_parameters(run.base.config, run.lora_config, len(run.task.labels), _method(run))


def _method(run: Run) -> Method:
    assert run.train_config is not None
    return run.train_config.method


def _accuracy(run: Run) -> float:
    assert run.test_score is not None
    return run.test_score.accuracy


def _habit(task: Task) -> tuple[float, str]:
    """(share of the test texts, label): what answering the commonest label always would reach."""
    label = task.labels.index(task.majority[1])
    return sum(row.label == label for row in task.test) / len(task.test), task.majority[1]
