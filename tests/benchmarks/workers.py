"""Where runs execute: threads of the server, processes beside it, or workers of a scheduler.

    python -m tests.benchmarks.workers              one run, two at once, a classification meanwhile
    python -m tests.benchmarks.workers --dask       the same over a scheduler with two workers, too

The same run of the real base (`sms-spam`, the defaults but fewer steps) in each filling of the
executor, alone and two at once, interleaved; medians. A run that is alone takes both cores, so two
at once stand against it and against one that is held to one core. Beside the seconds on the clock
stands what the processor did in them, for on a machine that others use the clock tells of them. A
visitor who classifies meanwhile takes a tenth of a core, so that is measured in rounds of its own.
How much of a step holds Python's lock, and what follows for more cores, is measured by
`tests.benchmarks.lock`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

import lora_core as lc
from lora_core.base.checkpoint import Base
from lora_core.serving.executors import Executor, Threads, available_cores
from lora_core.serving.processes import Processes
from lora_core.serving.registry import Registry, Run, new_visitor
from lora_core.tasks.task import Task
from tests.benchmarks.hall import hall

TEXT = "You have won a prize! Text CLAIM to collect it."
ONE_CORE = "threads of one core"
_HERTZ = os.sysconf("SC_CLK_TCK")


class OneCoreEach(Threads):
    """Threads whose runs never take a second core."""

    def _free_cores(self) -> int:
        return 1


def submit(registry: Registry, base: Base, task: Task, steps: int, seed: int) -> Run:
    """A run of a visitor of its own."""
    config = lc.TrainConfig(steps=steps, seed=seed)
    return registry.submit(new_visitor(), base, task, lc.LoRAConfig(), config)


def finish(*runs: Run) -> None:
    """Wait for them; fails for one that did not finish."""
    while not all(run.is_over for run in runs):
        time.sleep(0.01)
    assert all(run.state == "finished" for run in runs), [run.reason for run in runs]


def processor_seconds() -> float:
    """Of this process and the children it has now."""
    total = 0.0
    own = os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == own or int(fields[1]) == own:
                total += (int(fields[11]) + int(fields[12])) / _HERTZ
    return total


@contextlib.contextmanager
def asking(classifier: lc.Classifier, milliseconds: list[float]) -> Iterator[None]:
    """A visitor who classifies a text ten times a second, within this process as on the server."""
    ended = threading.Event()

    def ask() -> None:
        torch.set_num_threads(1)
        while not ended.wait(0.1):
            begin = time.perf_counter()
            classifier.classify(TEXT)
            milliseconds.append(1e3 * (time.perf_counter() - begin))

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextlib.contextmanager
def fillings(with_dask: bool) -> Iterator[dict[str, Executor]]:
    """The executors, two workers each, ready."""
    executors: dict[str, Executor] = {
        ONE_CORE: OneCoreEach(2),
        "threads": Threads(2),
        "processes": Processes(2),
    }
    with contextlib.ExitStack() as stack:
        if with_dask:
            from lora_core.serving.machines import Machines  # an extra

            machines = Machines(stack.enter_context(hall()), Threads(1))
            executors["dask"] = machines
            while machines.workers < 2:
                time.sleep(0.1)
        yield executors


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="of a run (default 100)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--dask", action="store_true", help="a scheduler with two workers, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base, task = lc.load_base("bundled"), lc.load_task("sms-spam")
    clock: dict[tuple[str, int], list[float]] = defaultdict(list)
    processor: dict[tuple[str, int], list[float]] = defaultdict(list)
    answers: dict[tuple[str, int], list[float]] = defaultdict(list)
    with fillings(options.dask) as executors, contextlib.ExitStack() as stack:
        registries = {
            name: stack.enter_context(Registry(executor=executor))
            for name, executor in executors.items()
        }
        for registry in registries.values():  # imports, the base's way there, compiled products
            warm = submit(registry, base, task, 5, 0)
            finish(warm, submit(registry, base, task, 5, 0))
        classifier = warm.classifier
        assert classifier is not None

        def work(name: str, count: int, seed: int) -> None:
            """So many runs at once, to their end; the first of them is of this seed."""
            seeds = [seed, *[9] * (count - 1)]
            finish(*[submit(registries[name], base, task, options.steps, s) for s in seeds])

        for turn in range(options.rounds):
            for key in product(registries, (1, 2)):
                before, begin = processor_seconds(), time.perf_counter()
                work(*key, turn)
                clock[key].append(time.perf_counter() - begin)
                processor[key].append(processor_seconds() - before)
        for key in product(registries, (1, 2)):
            with asking(classifier, answers[key]):
                work(*key, 0)
    print(f"{available_cores()} cores, {options.steps} steps, {options.rounds} rounds; medians\n")
    print("| | one run, s | two at once, s | throughput | against one core", end="")
    print(" | processor, s | a text meanwhile, ms |\n|---|--:|--:|--:|--:|--:|--:|")
    held = statistics.median(clock[ONE_CORE, 1])
    for name in registries:
        one, two = (statistics.median(clock[name, count]) for count in (1, 2))
        busy = " and ".join(f"{statistics.median(processor[name, c]):.1f}" for c in (1, 2))
        asked = " and ".join(f"{statistics.median(answers[name, c]):.0f}" for c in (1, 2))
        print(
            f"| {name} | {one:.1f} | {two:.1f} | {2 * one / two:.2f} | {2 * held / two:.2f} "
            f"| {busy} | {asked} |"
        )


if __name__ == "__main__":
    main()
