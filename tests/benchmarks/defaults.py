"""The sweep behind the defaults: rank x learning rate x task, and what each run reached.

    python -m tests.benchmarks.defaults            LoRA at five ranks, and the other methods
    python -m tests.benchmarks.defaults --check    the defaults themselves, at every power of two
    python -m tests.benchmarks.defaults --json sweep.jsonl      a line a run, added to the file

A row is a whole run with the app's own `fine_tune`. `loss` (nats) and `accuracy` are those of the
weights that were kept, on validation; `steps to 95 %` is when validation accuracy first was within
a twentieth of the best that any run of the sweep reached on the task.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import lora_core as lc

TASKS = ("sentiment", "support-topic", "sms-spam", "prompt-injection")
RATES: dict[str, tuple[float, ...]] = {
    "lora": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "full": (3e-4, 1e-3, 3e-3),
    "head": (3e-3, 1e-2, 3e-2, 1e-1),
}
RANKS = (1, 4, 8, 16, 64)


@dataclass(frozen=True)
class Row:
    """One run."""

    task: str
    method: str
    rank: int
    scaling: str
    learning_rate: float | None
    steps: int
    batch_size: int
    seed: int
    loss: float
    accuracy: float
    outcome: str
    cpu_seconds: float
    curve: list[tuple[int, float, float]]  # step, validation loss, validation accuracy


def one_run(base: lc.Base, task: lc.Task, lora: lc.LoRAConfig, train: lc.TrainConfig) -> Row:
    """Run `fine_tune` to its end."""
    begin = time.process_time()
    events = list(lc.fine_tune(base, task, lora, train))
    started = next(e for e in events if isinstance(e, lc.Started))
    evaluated = [e for e in events if isinstance(e, lc.Evaluated)]
    best = [e for e in evaluated if e.best][-1]
    finished = events[-1]
    assert isinstance(finished, lc.Finished)
    return Row(
        task.name,
        train.method,
        lora.rank if train.method == "lora" else 0,
        lora.scaling,
        started.learning_rate,
        train.steps,
        train.batch_size,
        train.seed,
        best.validation_loss,
        best.validation_accuracy,
        finished.outcome,
        time.process_time() - begin,
        [(e.step, e.validation_loss, e.validation_accuracy) for e in evaluated],
    )


def plan(options: argparse.Namespace) -> Iterator[tuple[str, lc.LoRAConfig, lc.TrainConfig]]:
    """Every run of the sweep: task, LoRA, training. Outer loop over tasks, so that all compare."""
    for task in options.tasks:
        for seed in range(options.seeds):
            for method in options.methods:
                ranks = options.ranks if method == "lora" else [8]
                rates = [None] if options.check else options.rates or RATES[method]
                for rank in ranks:
                    for rate in rates:
                        lora = lc.LoRAConfig(rank=rank, scaling=options.scaling)
                        yield (
                            task,
                            lora,
                            lc.TrainConfig(
                                steps=options.steps,
                                batch_size=options.batch,
                                learning_rate=rate,
                                method=method,
                                seed=seed,
                                evaluations=options.evaluations,
                                evaluation_rows=256,
                            ),
                        )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| task | method | rank | rate | steps x batch | loss | accuracy | steps to 95 % | CPU s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        top = max(r.accuracy for r in rows if r.task == row.task)
        reached = next((step for step, _, acc in row.curve if acc >= 0.95 * top), None)
        lines.append(
            f"| {row.task} | {row.method} | {row.rank or ''} | {row.learning_rate:g} | "
            f"{row.steps} x {row.batch_size} | {row.loss:.3f} | {row.accuracy:.1%} | "
            f"{'-' if reached is None else reached} | {row.cpu_seconds:.1f} |"
            + ("" if row.outcome == "completed" else f" {row.outcome}")
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="default rates; every power of two")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=["lora", "full", "head"])
    parser.add_argument("--ranks", nargs="+", type=int)
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--scaling", default="alpha/rank")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=lc.TrainConfig().batch_size)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="add a line a run to this file")
    options = parser.parse_args()
    options.ranks = options.ranks or ([1, 2, 4, 8, 16, 32, 64] if options.check else RANKS)
    torch.set_num_threads(1)
    base = lc.load_base("bundled")
    tasks = {name: lc.load_task(name) for name in options.tasks}
    rows: list[Row] = []
    for name, lora, train in plan(options):
        rows.append(one_run(base, tasks[name], lora, train))
        row = rows[-1]
        print(
            f"{row.task} {row.method} r{row.rank} {row.learning_rate:g}: {row.loss:.3f} "
            f"{row.accuracy:.1%} {row.outcome} {row.cpu_seconds:.1f} s",
            flush=True,
        )
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    print(f"\nBase {base.digest()[:12]}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
