"""Runs of one setting are one row and one curve with a band: pure functions over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lora_core.explain.chance import spread
from lora_core.serving.run import Run
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.names import short_names
from lora_core.ui.settings import Settings
from lora_core.ui.text.catalogue import say

Seen = tuple[Run, Curve, str]  # a run, its points, its name
_MEANS = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")


def gathered(seen: Sequence[Seen]) -> list[tuple[str, list[Seen]]]:
    """(name, runs): the ended runs of one setting with several seeds together, all others alone.

    In the order of their first runs. Only curves that were evaluated at the same steps go together:
    one that was stopped stays alone.
    """
    groups: dict[Any, list[Seen]] = {}
    for run, curve, name in seen:
        key: Any = run.id
        if run.state == "finished" and run.task is not None and run.base is not None:
            steps = tuple(e.step for e in curve.evaluated)
            key = (replace(Settings.of(run), seed=0), id(run.task), steps)
        groups.setdefault(key, []).append((run, curve, name))
    made = []
    for members in groups.values():
        seeds = {run.train_config.seed for run, _, _ in members if run.train_config}
        if len(seeds) > 1 and len(seeds) == len(members):
            made.append((_name(members[0][0], seen, len(seeds)), members))
        else:
            made += [(member[2], [member]) for member in members]
    order = {run.id: index for index, (run, _, _) in enumerate(seen)}
    return sorted(made, key=lambda group: order[group[1][0][0].id])


def _name(run: Run, seen: Sequence[Seen], seeds: int) -> str:
    """What the setting is called among those of its task, whatever the seed."""
    alike = [
        replace(Settings.of(other), seed=0)
        for other, _, _ in seen
        if other.task is not None and run.task is not None and other.task.name == run.task.name
    ]
    known = list(dict.fromkeys(alike))
    named = dict(zip(known, short_names(known), strict=True))
    return say("names.seeds", name=named[replace(Settings.of(run), seed=0)], n=seeds)


def together(curves: Sequence[Curve]) -> dict[str, Any]:
    """Several curves of one setting as one, as `Curve.data`: their mean, with the lowest and the
    highest of the validation in `band`."""
    each = [curve.data() for curve in curves]
    if len(each) == 1:
        return each[0]
    made = dict(each[0])  # the band needs the first as it was
    if all(one["step"] == made["step"] for one in each):
        for key in ("loss", "smooth"):
            made[key] = _mean([one[key] for one in each])
    for key in _MEANS:
        made[key] = _mean([one[key] for one in each])
    made["band"] = {
        key: [_ends([one[key] for one in each], pick) for pick in (min, max)]
        for key in ("validation_loss", "validation_accuracy")
    }
    return made


def accuracy_words(values: Sequence[float]) -> str:
    """95.9 %, or of several seeds 95.9 % ± 0.4 (one standard deviation)."""
    of = spread(values)
    mean = f"{100 * of.mean:.1f}"
    if of.count == 1:
        return f"{mean} %"
    return say("names.spread", mean=mean, deviation=f"{100 * of.deviation:.1f}")


def _columns(rows: Sequence[Sequence[float | None]]) -> list[list[float]]:
    return [[v for v in column if v is not None] for column in zip(*rows, strict=True)]


def _mean(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [round(sum(c) / len(c), 5) if c else None for c in _columns(rows)]


def _ends(rows: Sequence[Sequence[float | None]], pick: Any) -> list[float | None]:
    return [pick(c) if c else None for c in _columns(rows)]
