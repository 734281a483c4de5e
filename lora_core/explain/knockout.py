"""Which layers did it: what is left when some of them are put back to what they were.

A layer is switched off by leaving out its dW: a LoRA layer's A B, or the change of a matrix that
was trained whole. The head is a part like the others; off, it is the random head of step 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_core.batches import Batch
from lora_core.classifier import Classifier
from lora_core.config import HEAD
from lora_core.explain.exam import Exam, ExperimentError
from lora_core.lora import lora_layers
from lora_core.model import GPT
from lora_core.scores import correct

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
    """The answers without each part alone; yields those of the texts so far, returns all of it."""
    asked = board.parts if parts is None else tuple(parts)
    steps: list[tuple[str, Collection[str]]] = [(_WHOLE, ())]
    if board.layers and HEAD in board.parts:
        steps.append((_ADAPTER_OFF, board.layers))
    steps += [(part, (part,)) for part in asked]
    switches = _Switches(board.without(()))
    right = {name: 0 for name, _ in steps}
    rows = 0
    for batch in exam.batches():
        reading = _Reading(switches.model, batch)
        for name, off in steps:
            switches.turn_off(off)
            right[name] += correct(reading.logits_without(off), batch.labels)
            switches.turn_on(off)
            yield None
        rows += len(batch.rows)
        yield _result(right, rows)
    return _result(right, rows)


class _Switches:
    """A model whose parts are put back to what they were, and on again, in no time."""

    def __init__(self, classifier: Classifier) -> None:
        self.model = classifier.model_at()
        self._adapted = {name: layer.lora for name, layer in lora_layers(self.model)}
        # part -> where its tensors stand, as trained, as before
        self._tensors: dict[str, list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]]] = {}
        for name, first in classifier.initial.items():
            part, _, attribute = name.rpartition(".")
            module = self.model.get_submodule(part)
            before = nn.Parameter(first.detach(), requires_grad=False)
            place = module, attribute, getattr(module, attribute), before
            self._tensors.setdefault(part, []).append(place)

    def turn_off(self, parts: Collection[str]) -> None:
        """Put these back to what they were before training."""
        for part in parts:
            if part in self._adapted:
                self._adapted[part].strength = 0.0
            for module, attribute, _, before in self._tensors.get(part, ()):
                setattr(module, attribute, before)

    def turn_on(self, parts: Collection[str]) -> None:
        """And to what they are as trained."""
        for part in parts:
            if part in self._adapted:
                self._adapted[part].strength = 1.0
            for module, attribute, trained, _ in self._tensors.get(part, ()):
                setattr(module, attribute, trained)


class _Reading:
    """A batch as the model reads it, with what each block is given: a change of one block leaves
    all that lies below it as it was, and that is not computed again."""

    @torch.no_grad()
    def __init__(self, model: GPT, batch: Batch) -> None:
        device = next(model.parameters()).device
        self._model = model
        self._tokens, self._last = batch.tokens.to(device), batch.lengths.to(device) - 1
        self._states = [model.embed(self._tokens)]  # before each block: (b, t, emb)
        for i in range(len(model.blocks)):
            self._states.append(self._block(i, self._states[-1]))  # in the end (b, 1, emb)

    @torch.no_grad()
    def logits_without(self, off: Collection[str]) -> Tensor:
        """(b, classes), float32 on the CPU, when nothing but these parts has changed."""
        model = self._model
        lowest = min((self._place(part) for part in off), default=len(model.blocks))
        x = model.embed(self._tokens) if lowest < 0 else self._states[lowest]
        for i in range(max(0, lowest), len(model.blocks)):
            x = self._block(i, x)
        logits: Tensor = model.head(model.final_norm(x)).squeeze(1)
        return logits.float().cpu()

    def _block(self, number: int, x: Tensor) -> Tensor:
        ends = number == len(self._model.blocks) - 1
        made: Tensor = self._model.blocks[number](x, self._last if ends else None)
        return made

    def _place(self, part: str) -> int:
        """The block that a part is in; -1 for what is below the first, above the last the head."""
        if part.startswith("blocks."):
            return int(part.split(".")[1])
        return len(self._model.blocks) if part in (HEAD, "final_norm") else -1


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
