"""How cost grows with each thing that a person can make larger, one at a time.

    python -m tests.benchmarks.growth                     tables
    python -m tests.benchmarks.growth --plot growth.html  and a page with the curves
    python -m tests.benchmarks.growth --only rank length  some of them

Rank, tokens a text, texts a step, rows of the task, classes, and the model from the bundled shape
up to GPT-2 124M (random weights: speed does not depend on their values). Processor time with one
thread, median of steps taken in turns, so that a disturbance meets every size alike.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import lora_core as lc
from lora_core.batches import make_batch
from lora_core.devices import choose_device
from lora_core.tasks.task import Example
from tests.benchmarks.contenders import Phases, ours

SIZES: dict[str, tuple[int, ...]] = {
    "rank": (1, 2, 4, 8, 16, 32, 64),
    "length": (1, 8, 16, 32, 64, 128, 256),
    "texts": (1, 4, 8, 16, 32, 64),
    "rows": (100, 1_000, 10_000, 50_000),
    "classes": (2, 10, 30, 100),
}
MODELS = {
    "bundled": lc.GPTConfig(16384, 256, 256, 5, 4),
    "6 x 384": lc.GPTConfig(8192, 256, 384, 6, 6),
    "8 x 512": lc.GPTConfig(8192, 256, 512, 8, 8),
    "GPT-2 124M": lc.GPTConfig(50257, 1024, 768, 12, 12),
}


def random_base(config: lc.GPTConfig) -> lc.Base:
    """A base of this shape; its tokenizer is never asked."""
    tokenizer = lc.load_base("bundled").tokenizer
    return lc.Base("random", lc.GPT(config, None).requires_grad_(False).eval(), tokenizer, "random")


def step_of(base: lc.Base, rank: int, length: int, texts: int, classes: int) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    step = ours(base, "lora", rank, classes, choose_device(), lc.TARGETS)
    draw = random.Random(0)
    ids = [[draw.randrange(8000) for _ in range(length)] for _ in range(texts)]
    batch = make_batch(ids, [draw.randrange(classes) for _ in ids], range(texts))

    def once() -> float:
        phases = Phases(time.thread_time)
        step(batch, phases)
        return phases.total

    return once


def in_turns(steps: dict[str, Callable[[], float]], repeat: int) -> dict[str, float]:
    """Median milliseconds of each, after two steps to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(repeat + 2):
        for name, step in steps.items():
            spent = step()
            if i >= 2:
                seconds[name].append(spent)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def growth(what: str, base: lc.Base, repeat: int) -> dict[str, float]:
    """Milliseconds of a step over the sizes of one thing, the others at their usual value."""
    usual = {"rank": 8, "length": 30, "texts": 16, "classes": 2}
    return in_turns({str(n): step_of(base, **{**usual, what: n}) for n in SIZES[what]}, repeat)


def models(repeat: int) -> dict[str, float]:
    """Milliseconds of a step over model sizes."""
    return in_turns(
        {name: step_of(random_base(shape), 8, 30, 16, 2) for name, shape in MODELS.items()}, repeat
    )


def rows(base: lc.Base) -> dict[str, float]:
    """Seconds of processor time before the first step of a run: tokenising, sorting, evaluating."""
    task = lc.load_task("sms-spam")
    seconds = {}
    for size in SIZES["rows"]:
        texts = [task.train[i % len(task.train)] for i in range(size)]
        train = tuple(Example(f"{row.text} {i}", row.label) for i, row in enumerate(texts))
        large = lc.Task("rows", task.labels, train, train[: max(1, size // 10)], ())
        begin = time.process_time()
        for event in lc.fine_tune(base, large, None, lc.TrainConfig(steps=1)):
            if isinstance(event, lc.Step):
                break
        seconds[str(size)] = time.process_time() - begin
    return seconds


def plot(curves: dict[str, dict[str, float]], path: Path) -> None:
    """All curves on one page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=3, subplot_titles=list(curves))
    for i, (what, values) in enumerate(curves.items()):
        line = go.Scatter(x=list(values), y=list(values.values()), mode="lines+markers", name=what)
        figure.add_trace(line, row=i // 3 + 1, col=i % 3 + 1)
    figure.update_yaxes(rangemode="tozero")  # else noise looks like a mountain
    figure.update_layout(showlegend=False, title="Milliseconds a step; rows: seconds to the first")
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*SIZES, "model"])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = lc.load_base("bundled")
    curves: dict[str, dict[str, float]] = {}
    for what in options.only or [*SIZES, "model"]:
        if what == "rows":
            curves[what] = rows(base)
        elif what == "model":
            curves[what] = models(max(2, options.repeat // 3))
        else:
            curves[what] = growth(what, base, options.repeat)
        unit = "s to the first step" if what == "rows" else "ms a step"
        print(f"\n| {what} | " + " | ".join(curves[what]) + " |")
        print("|---|" + "--:|" * len(curves[what]))
        print(f"| {unit} | " + " | ".join(f"{v:.3g}" for v in curves[what].values()) + " |")
    if options.plot:
        plot(curves, options.plot)
    if options.json:
        options.json.write_text(json.dumps(curves, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
