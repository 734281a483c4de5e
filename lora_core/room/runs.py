"""What a room keeps of a run: figures, none of its texts, none of its ids; and what they say."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_core.config import LoRAConfig
from lora_core.events import Evaluated, Started
from lora_core.serving.run import Run

OWN_TABLE = ""  # the task of a run on a visitor's own table: its name is a visitor's text
OTHER_BASE = "other"  # the base of a run on one that a visitor named


@dataclass(frozen=True)
class Record:
    """A run that is over. Accuracies are from 0 to 1."""

    number: int  # in the order in which the room's runs ended, from 1
    pupil: int  # number of the pupil
    exercise: int  # its number when the run was queued; 0: none
    task: str  # name of a bundled task, or OWN_TABLE
    base: str
    method: str
    rank: int
    alpha: float
    scaling: str
    targets: tuple[str, ...]
    head: str
    dropout: float
    learning_rate: float  # the peak
    steps: int  # asked for
    steps_done: int
    batch_size: int
    seed: int
    trained: int  # numbers that are trained; 0 where it never started
    total: int
    validation: float | None  # of the weights that were kept
    test: float | None
    waited: float  # seconds
    seconds: float  # of training, by the clock: with others' runs beside it they are more
    state: str  # "finished", "stopped" or "failed"
    processor_seconds: float = 0.0  # of this run alone; 0 where it is not known

    @property
    def group(self) -> str:
        """With which runs it is compared: those of its rank, or of its method."""
        return f"{self.rank}" if self.method == "lora" else self.method

    def accuracy(self, revealed: bool) -> float | None:
        """Of the test texts once they are revealed, of the validation texts until then."""
        return self.test if revealed else self.validation

    @classmethod
    def of(cls, run: Run, number: int, pupil: int, exercise: int, task: str, base: str) -> Record:
        """The figures of a run that is over."""
        assert run.train_config is not None
        lora, train = run.lora_config or LoRAConfig(), run.train_config
        started = next((e for e in run.events if isinstance(e, Started)), None)
        best = [e for e in run.events if isinstance(e, Evaluated) and e.best]
        begin = run.started if run.started is not None else run.ended or run.created
        return cls(
            number=number,
            pupil=pupil,
            exercise=exercise,
            task=task,
            base=base,
            method=train.method,
            rank=lora.rank if train.method == "lora" else 0,
            alpha=lora.alpha,
            scaling=lora.scaling,
            targets=tuple(lora.targets),
            head=lora.head,
            dropout=lora.dropout,
            learning_rate=started.learning_rate if started else train.learning_rate or 0.0,
            steps=train.steps,
            steps_done=run.step,
            batch_size=train.batch_size,
            seed=train.seed,
            trained=started.parameters.trainable if started else 0,
            total=started.parameters.total if started else 0,
            validation=best[-1].validation_accuracy if best else None,
            test=run.test_score.accuracy if run.test_score else None,
            waited=max(0.0, begin - run.created),
            seconds=max(0.0, (run.ended or begin) - begin),
            state=run.state,
            processor_seconds=run.processor_seconds,
        )

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Record:
        """The record of what `kept` gave."""
        return cls(**{**kept, "targets": tuple(kept["targets"])})

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Point:
    """A run in the scatter."""

    number: int
    pupil: int
    group: str
    trained: int
    accuracy: float


@dataclass(frozen=True)
class Group:
    """The runs of one rank, or of one method."""

    name: str
    trained: float  # median
    median: float
    low: float
    high: float
    runs: int


def points(records: Sequence[Record], task: str, revealed: bool) -> list[Point]:
    """The runs of a task that have an accuracy, in the order in which they ended."""
    return [
        Point(r.number, r.pupil, r.group, r.trained, accuracy)
        for r in records
        if r.task == task and (accuracy := r.accuracy(revealed)) is not None and r.trained > 0
    ]


def groups(some: Sequence[Point]) -> list[Group]:
    """Median and spread of each rank and method, the smallest first."""
    by_name: dict[str, list[Point]] = {}
    for point in some:
        by_name.setdefault(point.group, []).append(point)
    made = []
    for name, members in by_name.items():
        accuracies = [p.accuracy for p in members]
        made.append(
            Group(
                name,
                statistics.median(p.trained for p in members),
                statistics.median(accuracies),
                min(accuracies),
                max(accuracies),
                len(members),
            )
        )
    return sorted(made, key=lambda group: group.trained)


def best_of_each(records: Iterable[Record]) -> list[Record]:
    """Each pupil's best run by validation accuracy, the first among equals; in the order in which
    those ended. Runs without an accuracy do not count."""
    best: dict[int, tuple[float, Record]] = {}
    for record in records:
        accuracy = record.validation
        if accuracy is None:
            continue
        held = best.get(record.pupil)
        if held is None or (accuracy, -record.number) > (held[0], -held[1].number):
            best[record.pupil] = accuracy, record
    return sorted((record for _, record in best.values()), key=lambda record: record.number)


def pareto_front(some: Sequence[Point]) -> list[Point]:
    """The runs that none beats with as few numbers, from the fewest on."""
    front: list[Point] = []
    for point in sorted(some, key=lambda p: (p.trained, -p.accuracy, p.number)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def best_within(some: Sequence[Point], most_trained: int) -> Point | None:
    """Who reached the goal best: the highest accuracy with at most so many numbers, the fewest
    among equals, the first among those."""
    within = [p for p in some if p.trained <= most_trained]
    return min(within, key=lambda p: (-p.accuracy, p.trained, p.number), default=None)
