"""Runs of one setting are one row: the figures of seeds, and what a sweep says.

Pure functions over runs and plans. A group is one setting with all its seeds, whether the visitor
trained them one by one or a plan did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_core.explain.chance import Difference, Spread, difference, spread, wilson
from lora_core.serving.plans import Plan
from lora_core.serving.run import Run
from lora_core.ui.drawing.answer_figures import Answer, pc, points, signed
from lora_core.ui.names import short_names
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import Point
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say


@dataclass
class Group:
    """One setting, whatever the seed, and the test accuracy of each seed that has ended."""

    settings: Settings  # seed 0
    scores: dict[int, float]  # seed -> accuracy, 0 to 1
    rows: int  # test texts
    name: str = ""
    trainable: int | None = None

    @property
    def values(self) -> list[float]:
        """In the order of the seeds."""
        return [self.scores[seed] for seed in sorted(self.scores)]

    @property
    def spread(self) -> Spread:
        """Mean and standard deviation."""
        return spread(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """What is drawn beside the mean: one standard deviation, or Wilson's for one seed."""
        of = self.spread
        if of.count == 1:
            return wilson(round(of.mean * self.rows), self.rows)
        return of.mean - of.deviation, of.mean + of.deviation


def alike(settings: Settings) -> Settings:
    """The same settings whatever the seed: what makes runs one group."""
    return replace(settings, seed=0, seeds=1)


def groups(task: str, runs: Iterable[Run], plans: Iterable[Plan] = ()) -> list[Group]:
    """The settings of a task that have a test accuracy, named by what differs; oldest first."""
    by_settings: dict[Settings, Group] = {}

    def add(settings: Settings, accuracy: float, rows: int, trainable: int | None) -> None:
        key = alike(settings)
        group = by_settings.setdefault(key, Group(key, {}, rows, trainable=trainable))
        group.scores[settings.seed] = accuracy

    for run in runs:
        score = run.test_score
        if score is not None and run.task is not None and run.task.name == task and run.base:
            add(Settings.of(run), score.accuracy, score.rows, None)
    for plan in plans:
        if plan.task_name != task:
            continue
        for cell, result in zip(plan.cells, plan.results, strict=True):
            if result is not None and result.test is not None:
                point: Point = cell.about
                seeded = replace(point.settings, seed=cell.train_config.seed, seeds=1)
                add(seeded, result.test, result.rows, result.trainable)
    made = list(by_settings.values())
    for group, name in zip(made, short_names([g.settings for g in made]), strict=True):
        group.name = name
    return made


def compared(one: Group, two: Group, pairs: int = 1) -> Difference:
    """Welch's interval of the difference of two settings, knowing the grain of their texts, and
    from how many `pairs` these two were picked by their results."""
    return difference(one.values, two.values, 1 / max(1, min(one.rows, two.rows)), pairs)


def difference_words(one: Group, two: Group) -> str:
    """The difference of two settings in words, with its figures."""
    a, b, comparison = one.spread, two.spread, compared(one, two)
    places: dict[str, object] = {
        "first": one.name,
        "second": two.name,
        "one": pc(a.mean),
        "two": pc(b.mean),
    }
    if math.isinf(comparison.low):
        return say("experiments.luck_single", **places)
    places |= {
        "one_dev": points(a.deviation),
        "two_dev": points(b.deviation),
        "low": signed(comparison.low),
        "high": signed(comparison.high),
    }
    if comparison.told_apart:
        return say("experiments.luck_apart", **places)
    return say("experiments.luck_same", count=_counts(a.count, b.count), **places)


def luck(shown_groups: Sequence[Group], pair: Sequence[int] = ()) -> Answer:
    """Was it luck: every setting with its interval, and what can be said of two of them.

    `pair` are places in `found`; without them, the two last ones with the most seeds.
    """
    answer: Answer = {
        "question": "luck",
        "state": "done" if shown_groups else "none",
        "sentence": say("experiments.none"),
        "note": say("experiments.luck_note"),
        "figure": None,
    }
    if not shown_groups:
        return answer
    chosen = [i for i in dict.fromkeys(pair) if 0 <= i < len(shown_groups)][:2]
    if len(chosen) < 2 and len(shown_groups) > 1:
        order = sorted(range(len(shown_groups)), key=lambda i: (-shown_groups[i].spread.count, -i))
        chosen = sorted([*chosen, *[i for i in order if i not in chosen]][:2])
    if len(shown_groups) == 1:
        chosen = [0]
        answer["sentence"] = _alone(shown_groups[0])
    else:
        answer["sentence"] = difference_words(shown_groups[chosen[0]], shown_groups[chosen[1]])
    rows = [_row(group) for group in shown_groups]
    return answer | {"figure": {"kind": "dots", "rows": rows, "chosen": chosen}, "groups": rows}


def _alone(group: Group) -> str:
    of, (low, high) = group.spread, group.interval
    if of.count == 1:
        return say(
            "experiments.luck_one",
            name=group.name,
            mean=pc(of.mean),
            rows=group.rows,
            low=pc(low),
            high=pc(high),
        )
    return say(
        "experiments.luck_several",
        name=group.name,
        mean=pc(of.mean),
        deviation=points(of.deviation),
        count=of.count,
    )


def _row(group: Group) -> Answer:
    of, (low, high) = group.spread, group.interval
    said = f"{pc(of.mean)} ± {points(of.deviation)}" if of.count > 1 else pc(of.mean)
    return {
        "name": group.name,
        "mean": of.mean,
        "deviation": of.deviation if of.count > 1 else None,
        "low": max(0.0, low),
        "high": min(1.0, high),
        "values": group.values,
        "seeds": sorted(group.scores),
        "rows": group.rows,
        "words": f"{said}, n = {of.count}",
    }


# Sweeps ------------------------------------------------------------------------------------------


def sweep_answer(plan: Plan) -> Answer:
    """What a sweep has shown so far, with its sentence at the end."""
    state = plan.state  # before the results: what is over has all of them
    by_point: dict[Point, Group] = {}
    for cell, result in zip(plan.cells, plan.results, strict=True):
        if result is None or result.test is None:
            continue
        point: Point = cell.about
        group = by_point.setdefault(
            point, Group(point.settings, {}, result.rows, point.name, result.trainable)
        )
        group.scores[cell.train_config.seed] = result.test
    left = plan.seconds_left()
    total, done = len(plan.cells), plan.done
    progress = (
        say("experiments.sweep_stopped", done=done, n=total)
        if state == "stopped"
        else say("experiments.progress", done=done, n=total)
        if left is None
        else say("experiments.progress_left", done=done, n=total, left=words.duration(left))
    )
    answer: Answer = {
        "question": "rate",
        "sweep": plan.id,
        "kind": plan.kind,
        "state": "waiting" if state == "running" else "done",
        "done": done,
        "runs": total,
        "progress": f"{progress}. {plan.reason}".strip() if plan.reason else progress,
        "sentence": say(f"experiments.sweep_{'none' if state == 'stopped' else 'wait'}"),
        "note": "",
        "figure": None,
        "groups": [
            {**_row(group), "rate": point.rate, "scale": point.scale, "trainable": group.trainable}
            for point, group in by_point.items()
        ],
    }
    if not by_point:
        return answer
    answer["figure"] = _figure(plan, by_point)
    answer["sentence"] = _sentence(plan.kind, by_point)
    notes = [f"{plan.kind}_note"] if plan.kind in ("grid", "rates") else []
    if len(by_point) > 1:
        notes.append("picked_note")
    answer["note"] = " ".join(say(f"experiments.{name}") for name in notes)
    return answer


def _figure(plan: Plan, by_point: dict[Point, Group]) -> Answer:
    if plan.kind == "grid":
        return _heat(plan, by_point)
    if plan.kind == "rates":
        series = []
        for name, colour in (("lora", "trainable"), ("full", "frozen-ink")):
            some = sorted(
                ((p.rate, g) for p, g in by_point.items() if p.series == name),
                key=lambda pair: pair[0],
            )
            if some:
                series.append(
                    {
                        "name": "LoRA" if name == "lora" else words.METHOD_NAMES["full"],
                        "colour": colour,
                        "x": [rate for rate, _ in some],
                        "y": [g.spread.mean for _, g in some],
                        "low": [max(0.0, g.interval[0]) for _, g in some],
                        "high": [min(1.0, g.interval[1]) for _, g in some],
                    }
                )
        return {
            "kind": "lines",
            "series": series,
            "x": say("experiments.rates_axis"),
            "y": say("experiments.accuracy"),
            "percent": True,
            "log": True,
        }
    return {"kind": "dots", "rows": [_row(group) for group in by_point.values()], "chosen": []}


def _heat(plan: Plan, by_point: dict[Point, Group]) -> Answer:
    points_ = list(dict.fromkeys(cell.about for cell in plan.cells))
    ranks = sorted({p.settings.rank for p in points_})
    alphas = sorted({p.settings.alpha for p in points_})
    cells: list[list[Any]] = [[None] * len(alphas) for _ in ranks]
    scales: list[list[float]] = [[0.0] * len(alphas) for _ in ranks]
    for p in points_:
        row, column = ranks.index(p.settings.rank), alphas.index(p.settings.alpha)
        scales[row][column] = p.scale or 0.0
        if p in by_point:
            mean = by_point[p].spread.mean
            cells[row][column] = {
                "value": mean,
                "words": pc(mean),
                "count": by_point[p].spread.count,
            }
    return {
        "kind": "heat",
        "rows": [f"r {rank}" for rank in ranks],
        "columns": [f"α {words.number(alpha, 6)}" for alpha in alphas],
        "cells": cells,
        "scales": [[words.number(scale) for scale in row] for row in scales],
    }


def _sentence(kind: str, by_point: dict[Point, Group]) -> str:
    best = max(by_point, key=lambda p: by_point[p].spread.mean)
    if len(by_point) == 1:
        return _alone(by_point[best])
    if kind == "rates":
        return _rates_words(by_point)
    if kind == "grid":
        return _grid_words(best, by_point)
    if kind == "layers":
        worst = min(by_point, key=lambda p: by_point[p].spread.mean)
        mean = round(sum(_size(by_point[p]) for p in by_point) / len(by_point), -3)
        same = by_point[best].spread.mean == by_point[worst].spread.mean
        said = say(
            "experiments.result_layers_same" if same else "experiments.result_layers",
            parameters=int(mean),
            best=best.name,
            best_mean=_mean(by_point[best]),
            worst=worst.name,
            worst_mean=_mean(by_point[worst]),
        )
        pairs = math.comb(len(by_point), 2)  # any two could have been the best and the worst
        return f"{said} {_pair_words(by_point[best], by_point[worst], pairs)}"
    small = min(by_point, key=lambda p: _size(by_point[p]))
    if small == best:
        small = min((p for p in by_point if p != best), key=lambda p: _size(by_point[p]))
    said = say(
        "experiments.result_ranks",
        best=best.name,
        best_mean=_mean(by_point[best]),
        small=small.name,
        small_mean=_mean(by_point[small]),
    )
    return f"{said} {_pair_words(by_point[best], by_point[small], len(by_point) - 1)}"


def _rates_words(by_point: dict[Point, Group]) -> str:
    best = {}
    for series in ("lora", "full"):
        some = [p for p in by_point if p.series == series]
        if some:
            best[series] = max(some, key=lambda p: by_point[p].spread.mean)
    if len(best) < 2:
        (one,) = best.values()
        return say(
            "experiments.result_rates_half",
            lora=_mean(by_point[one]),
            lora_rate=words.number(one.rate),
        )
    lora, full = best["lora"], best["full"]

    def near(series: str, rate: float) -> Point:
        tried = (p for p in by_point if p.series == series)
        return min(tried, key=lambda p: abs(math.log(p.rate / rate)))

    lora_near, full_near = near("lora", full.rate), near("full", lora.rate)

    edges = [
        words.METHOD_NAMES["lora" if series == "lora" else "full"]
        for series, point in best.items()
        if point.rate in _ends(p.rate for p in by_point if p.series == series)
    ]
    said = say(
        "experiments.result_rates",
        lora=_mean(by_point[lora]),
        lora_rate=words.number(lora.rate),
        full=_mean(by_point[full]),
        full_rate=words.number(full.rate),
        lora_other=_mean(by_point[lora_near]),
        lora_near=words.number(lora_near.rate),
        full_other=_mean(by_point[full_near]),
        full_near=words.number(full_near.rate),
    )
    if edges:
        said += " " + say("experiments.result_rates_edge", names=say("experiments.and").join(edges))
    return f"{said} {_pair_words(by_point[lora], by_point[full])}"


def _ends(rates: Iterable[float]) -> tuple[float, float]:
    tried = sorted(rates)
    return tried[0], tried[-1]


def _grid_words(best: Point, by_point: dict[Point, Group]) -> str:
    def variation(some: list[Point]) -> str:
        means = [by_point[p].spread.mean for p in some]
        return points(max(means) - min(means))

    scale = best.scale or 0.0
    top = [p for p in by_point if by_point[p].spread.mean == by_point[best].spread.mean]
    said = say(
        "experiments.result_grid" if len(top) == 1 else "experiments.result_grid_ties",
        count=len(top),
        cells=len(by_point),
        rank=best.settings.rank,
        alpha=words.number(best.settings.alpha, 6),
        best=_mean(by_point[best]),
        scale=words.number(scale),
        along=variation([p for p in by_point if math.isclose(p.scale or 0.0, scale)]),
        across=variation([p for p in by_point if p.settings.rank == best.settings.rank]),
    )
    others = [p for p in by_point if p != best]
    second = max(others, key=lambda p: by_point[p].spread.mean)
    compared_words = _pair_words(by_point[best], by_point[second])
    if min(by_point[p].spread.count for p in (best, second)) > 1:
        compared_words = f"{say('experiments.grid_second')} {compared_words}"
    return f"{said} {compared_words}"


def _mean(group: Group) -> str:
    of = group.spread
    return f"{pc(of.mean)} ± {points(of.deviation)}" if of.count > 1 else pc(of.mean)


def _pair_words(one: Group, two: Group, pairs: int = 1) -> str:
    """`pairs`: from how many these two were picked, as the best and the worst are."""
    comparison = compared(one, two, pairs)
    if math.isinf(comparison.low):
        return say("experiments.pair_one_seed")
    test = say("experiments.pair_test")
    if pairs > 1:
        test = say("experiments.pair_test_picked", pairs=pairs)
    if comparison.told_apart:
        bounds = {"low": signed(comparison.low), "high": signed(comparison.high)}
        return say("experiments.pair_apart", test=test, **bounds)
    count = _counts(one.spread.count, two.spread.count)
    return say("experiments.pair_same", count=count, test=test)


def _counts(one: int, two: int) -> str:
    return f"{one}" if one == two else f"{one} and {two}"


def _size(group: Group) -> int:
    return group.trainable or 0
