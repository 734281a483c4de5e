"""What a run, or several of them, showed: one sentence, computed from their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lora_core.config import Method, default_steps
from lora_core.events import Started
from lora_core.parameters import ParameterCount, predict_parameters
from lora_core.serving.registry import Run
from lora_core.tasks.task import Task
from lora_core.ui.names import short_names
from lora_core.ui.seeds import Seen, accuracy_words, gathered
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

AS_GOOD = 0.01  # a rank counts as good as the best one when it is at most so much behind it


def conclusion(seen: Sequence[Seen]) -> str:
    """Of the setting that ended last, all its seeds together; of all settings of its task where
    they can be compared."""
    over, last = _over(seen), latest(seen)
    if last is None:
        return ""
    settings = [Setting(name, [run for run, _, _ in members]) for name, members in gathered(over)]
    own = next(one for one in settings if last in one.runs)
    peers = _renamed([one for one in settings if _comparable(one.runs[0], last)])
    return " ".join(part for part in (of_setting(own), of_several(peers)) if part)


def _comparable(run: Run, other: Run) -> bool:
    """Whether their figures may stand in one sentence: the same texts, as many steps of as many,
    or each method with the steps that it needs."""
    if run.task is not other.task or run.base is not other.base:
        return False
    one, two = run.train_config, other.train_config
    assert one is not None and two is not None
    if one.batch_size != two.batch_size:
        return False
    return one.steps == two.steps or (takes_default_steps(run) and takes_default_steps(other))


def takes_default_steps(run: Run) -> bool:
    """Whether it has the steps that its method and its task's labels need."""
    assert run.train_config is not None and run.task is not None
    needed = default_steps(len(run.task.labels), run.train_config.method)
    return run.train_config.steps == needed


def _renamed(settings: Sequence[Setting]) -> list[Setting]:
    """The same, each called by what tells it from the others here, whatever its seed."""
    names = short_names([replace(Settings.of(one.runs[0]), seed=0) for one in settings])
    return [
        replace(one, name=say("names.seeds", name=name, n=n) if (n := len(one.runs)) > 1 else name)
        for one, name in zip(settings, names, strict=True)
    ]


def latest(seen: Sequence[Seen]) -> Run | None:
    """The run that ended last, of those whose test texts were judged."""
    return max((run for run, _, _ in _over(seen)), key=lambda run: run.ended or 0.0, default=None)


def _over(seen: Sequence[Seen]) -> list[Seen]:
    return [entry for entry in seen if entry[0].test_score is not None and entry[0].is_over]


@dataclass(frozen=True)
class Setting:
    """The ended runs of one setting, a seed each."""

    name: str
    runs: Sequence[Run]

    @property
    def scores(self) -> list[float]:
        """Test accuracy of each seed, 0 to 1."""
        return [run.test_score.accuracy for run in self.runs if run.test_score]

    @property
    def accuracy(self) -> float:
        """Their mean."""
        return fmean(self.scores)

    @property
    def method(self) -> Method:
        """How it trains."""
        config = self.runs[0].train_config
        assert config is not None
        return config.method

    @property
    def trainable(self) -> int:
        """How many numbers it trains."""
        return counted(self.runs[0]).trainable


def of_setting(one: Setting) -> str:
    """How many unseen texts it gets right, with how much trained, and what habit reaches."""
    run = one.runs[0]
    assert run.test_score is not None and run.task is not None
    share, label = habit(run.task)
    return say(
        "result.run" if len(one.runs) == 1 else "result.seeds",
        n=len(one.runs),
        accuracy=accuracy_words(one.scores),
        rows=run.test_score.rows,
        share=words.percent(counted(run).percent),
        label=label,
        habit=words.accuracy(share),
    )


def of_several(settings: Sequence[Setting]) -> str:
    """The smallest rank that is about as good as the best, against full fine-tuning, or against
    the largest rank; "" where there is nothing to compare."""
    adapted = [one for one in settings if one.method == "lora"]
    full = [one for one in settings if one.method == "full"]
    if not adapted or (len(adapted) < 2 and not full):
        return ""
    best = max(one.accuracy for one in adapted)
    good = [one for one in adapted if one.accuracy >= best - AS_GOOD]
    small = min(good, key=lambda one: one.trainable)
    if full:
        large = max(full, key=lambda one: one.accuracy)
    else:
        large = max(adapted, key=lambda one: one.trainable)
    times = large.trainable / small.trainable
    if times <= 1:
        return ""
    return say(
        "result.several",
        small=small.name,
        small_accuracy=accuracy_words(small.scores),
        large=large.name,
        large_accuracy=accuracy_words(large.scores),
        times=words.number(times, 2),
    )


def counted(run: Run) -> ParameterCount:
    """What a run trains, known before it starts; of one whose base is another one now, what it
    trained then."""
    if (told := next((e for e in run.events if isinstance(e, Started)), None)) is not None:
        return told.parameters
    assert run.base is not None and run.task is not None and run.train_config is not None
    return predict_parameters(
        run.base.config, run.lora_config, len(run.task.labels), run.train_config.method
    )


def habit(task: Task) -> tuple[float, str]:
    """(share of the test texts, label): what answering the commonest label always would reach.

    Of the validation texts where there are none to test with.
    """
    share, label = task.majority
    if not task.test:
        return share, label
    index = task.labels.index(label)
    return sum(row.label == index for row in task.test) / len(task.test), label
