"""A training step of this version against one of an earlier commit, side by side.

    python -m tests.benchmarks.versions a73f4a9
    python -m tests.benchmarks.versions a73f4a9 --steps 20 --rounds 1       a first look

Two processes, one of each version, take the same step of the same run by turns, so both meet the
same state of the machine; who goes first alternates. Processor time of the thread that trains, one
thread. Printed are the median of a step, and the median and the quartiles of the ratios. Both train
on the earlier commit's bundled base, so that what is compared is the code; with `--own-bases` each
takes its own.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys, time
import torch
import lora_core as lc
from lora_core.devices import Device

rank, dtype, steps = int(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
base = sys.argv[4]
torch.set_num_threads(1)
run = lc.fine_tune(
    lc.load_base(base), lc.load_task("sms-spam"), lc.LoRAConfig(rank=rank, alpha=2 * rank),
    lc.TrainConfig(steps=steps, batch_size=16, evaluations=1),
    device=Device(torch.device("cpu"), dtype, "for the benchmark"),
)
for event in run:
    if isinstance(event, lc.Evaluated):
        break
print("ready", flush=True)
for _ in sys.stdin:
    begin = time.thread_time()
    step = next(run)
    print(time.thread_time() - begin, step.loss, flush=True)
"""


class Version:
    """One version in a process of its own, which takes a step when asked."""

    def __init__(self, root: Path, *settings: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, settings)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A version ended before its time.")
        return line

    def step(self) -> tuple[float, float]:
        """Seconds of processor time, and the loss."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, loss = self._answer().split()
        return float(seconds), float(loss)

    def end(self) -> None:
        """Let go of it."""
        self._process.kill()
        self._process.wait()


def extracted(commit: str, folder: Path) -> Path:
    """The tree of a commit, in a folder."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def compare(old: Path, base: str, rank: int, dtype: str, steps: int, rounds: int) -> None:
    """One row of the table. `base`: a name or a folder, which both versions load."""
    seconds: tuple[list[float], list[float]] = [], []
    same = True
    for _ in range(rounds):
        versions = [Version(root, rank, dtype, steps + 5, base) for root in (old, ROOT)]
        for number in range(steps):
            losses = [0.0, 0.0]
            for which in (0, 1) if number % 2 else (1, 0):
                taken, losses[which] = versions[which].step()
                if number >= 5:  # the first steps fill caches
                    seconds[which].append(taken)
            same &= losses[0] == losses[1]
        for version in versions:
            version.end()
    ratios = [new / before for before, new in zip(*seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    before, new = (1000 * statistics.median(column) for column in seconds)
    print(
        f"| {rank} | {dtype} | {before:.1f} | {new:.1f} | {middle:.3f} | {low:.3f} to {high:.3f} | "
        f"{'the same' if same else 'different'} |",
        flush=True,
    )


def main() -> None:
    """The table on the screen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--own-bases", action="store_true", help="each with its bundled one")
    arguments = parser.parse_args()
    print("| rank | format | before, ms | now, ms | now / before | quartiles | losses |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        old = extracted(arguments.commit, Path(folder))
        base = "bundled" if arguments.own_bases else str(old / "assets" / "base")
        for dtype in arguments.dtypes:
            for rank in arguments.ranks:
                compare(old, base, rank, dtype, arguments.steps, arguments.rounds)


if __name__ == "__main__":
    main()
