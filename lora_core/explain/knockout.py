"""Which layers did it: what is left when some of them are put back to what they were.

A layer is switched off by leaving out its dW: a LoRA layer's A B, or the change of a matrix that
was trained whole. The head is a part like the others; off, it is the random head of step 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

from lora_core.classifier import Classifier
from lora_core.config import HEAD
from lora_core.explain.exam import Exam, ExperimentError
from lora_core.lora import lora_layers

_WHOLE, _ADAPTER_OFF = _NAMES = ("all on", "adapter off")  # no layer has a blank in its name


@dataclass(frozen=True)
class Without:
    """What is right without one part."""

    part: str  # dotted name of a layer, or "head"
    right: int


@dataclass(frozen=True)
class Knockout:
    """What is right with all parts, without one, and with the head alone; None: not yet known."""

    parts: tuple[Without, ...]
    whole: int | None  # right with everything on
    adapter_off: int | None  # the head on, every layer off: the base under the trained head
    rows: int


class Switchboard:
    """One classifier whose trained parts can be switched; the classifier itself is not changed.

    Not thread-safe: one board for one thread. Raises `ExperimentError` before any training.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._copy = classifier.private_copy()
        self._scales = {name: layer.lora.scale for name, layer in lora_layers(self._copy.model)}
        self._trained = dict(self._copy.trained)
        self.parts = parts_of(classifier)
        if not self.parts:
            raise ExperimentError("Nothing is trained yet: there is no layer to switch off.")

    @property
    def layers(self) -> tuple[str, ...]:
        """All parts but the head."""
        return tuple(part for part in self.parts if part != HEAD)

    def without(self, off: Collection[str]) -> Classifier:
        """The classifier with the parts `off` switched off, all others on; until the next call.

        Raises `ExperimentError` for a part that is not there.
        """
        unknown = [part for part in off if part not in self.parts]
        if unknown:
            raise ExperimentError(f"No part called '{unknown[0]}' was trained by this run.")
        for name, layer in lora_layers(self._copy.model):
            layer.lora.scale = 0.0 if name in off else self._scales[name]
        for name, first in self._copy.initial.items():
            part = name.rpartition(".")[0]
            self._copy.trained[name] = first if part in off else self._trained[name]
        return self._copy


def parts_of(classifier: Classifier) -> tuple[str, ...]:
    """The dotted names of what a run trained: adapted layers, layers trained whole, the head."""
    adapted = [name for name, _ in lora_layers(classifier.model)]
    whole = [name.rpartition(".")[0] for name in classifier.initial]
    return tuple(dict.fromkeys([*adapted, *whole]))


def knockouts(
    board: Switchboard, exam: Exam, parts: Sequence[str] | None = None
) -> Generator[Knockout | None, None, Knockout]:
    """The answers without each part in turn; yields what is known so far, returns all of it."""
    known: dict[str, int] = {}
    layers = board.layers
    steps: list[tuple[str, Collection[str]]] = [(_WHOLE, ())]
    if layers and HEAD in board.parts:
        steps.append((_ADAPTER_OFF, layers))
    steps += [(part, (part,)) for part in (board.parts if parts is None else parts)]
    result = _result(known, exam.rows)
    for name, off in steps:
        turns = exam.right(board.without(off))
        while name not in known:
            try:
                next(turns)
            except StopIteration as end:
                known[name] = end.value
            else:
                yield None
                board.without(off)  # somebody may have switched meanwhile
        result = _result(known, exam.rows)
        yield result
    return result


def _result(known: dict[str, int], rows: int) -> Knockout:
    parts = [Without(name, right) for name, right in known.items() if name not in _NAMES]
    return Knockout(tuple(parts), known.get(_WHOLE), known.get(_ADAPTER_OFF), rows)


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation, -1 to 1; None for fewer than three pairs or a constant."""
    if len(first) < 3:
        return None
    a, b = sum(first) / len(first), sum(second) / len(second)
    products = sum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    squares = sum((x - a) ** 2 for x in first) * sum((y - b) ** 2 for y in second)
    return products / math.sqrt(squares) if squares > 0 else None
