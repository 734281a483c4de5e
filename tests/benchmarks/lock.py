"""The share of a run's time in which it holds Python's lock, and what that means for many cores.

    python -m tests.benchmarks.lock

Runs in threads can share cores only while they do not hold the lock: torch gives it back for the
length of every operation. `py-spy` looks at a running process many times a second and says who has
the lock; the share of looks at which the training thread has it is the share of its time. Two
controls with a known share show what the method is worth. From the share, the throughput on n cores
follows by arithmetic (mean value analysis of n threads that take turns at one lock), with a
process for each core as 1 a core.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import lora_core as lc

ROOT = Path(__file__).resolve().parents[2]
RATE = 400  # looks a second
CASES = {
    "control: Python alone": "1.0",
    "control: Python a third, a product two thirds": "0.333",
    "LoRA, 16 texts a step (the default)": "lora 16",
    "LoRA, 4 texts a step": "lora 4",
    "LoRA, 1 text a step": "lora 1",
    "full fine-tuning, 16 texts": "full 16",
    "head alone, 16 texts": "head 16",
}
CORES = (2, 4, 8, 16)


def work(case: str) -> None:
    """What is looked at: train, or keep the lock for a known share; until it is ended."""
    torch.set_num_threads(1)
    method, _, size = case.partition(" ")
    if not size:
        control(float(case))
    config = lc.TrainConfig(
        steps=100_000, batch_size=int(size), evaluations=1, evaluation_rows=1, method=method
    )  # type: ignore[arg-type]
    for event in lc.fine_tune(lc.load_base("bundled"), lc.load_task("sms-spam"), None, config):
        if isinstance(event, lc.Step) and event.step == 20:
            print("ready", flush=True)


def control(share: float) -> None:
    """Python for `share` of the processor time, the rest in matrix products."""
    print("ready", flush=True)
    matrix = torch.randn(400, 400)
    python = product = 0.0
    while True:
        begin = time.thread_time()
        if python <= share * (python + product):
            sum(i * i for i in range(500))
            python += time.thread_time() - begin
        else:
            matrix @ matrix
            product += time.thread_time() - begin


def looks(spy: str, process: int, seconds: int, *, with_lock: bool) -> int:
    """How often py-spy saw the process at work, or at work and with the lock."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "looks"
        command = [spy, "record", "-r", f"{RATE}", "-d", f"{seconds}", "-f", "raw", "-o", str(file)]
        command += ["--pid", f"{process}", *(["--gil"] if with_lock else [])]
        subprocess.run(command, check=True, capture_output=True)
        lines = file.read_text(encoding="utf-8").splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines)


def share_of(spy: str, case: str, rounds: int, seconds: int) -> list[float]:
    """The share of the time with the lock, once a round."""
    command = [sys.executable, "-m", "tests.benchmarks.lock", "--work", case]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            return [
                looks(spy, process.pid, seconds, with_lock=True)
                / looks(spy, process.pid, seconds, with_lock=False)
                for _ in range(rounds)
            ]
        finally:
            process.kill()


def throughput(share: float, cores: int) -> float:
    """Of `cores` threads with one lock, as a multiple of one thread's.

    Each thread computes without the lock for 1 - share and then needs it for share (exponential
    times): mean value analysis of a closed network with one queue.
    """
    waiting = 0.0  # threads at the lock
    rate = 1.0
    for threads in range(1, cores + 1):
        at_lock = share * (1.0 + waiting)
        rate = threads / (1.0 - share + at_lock)
        waiting = rate * at_lock
    return rate


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one (default 5)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        parser.error("this needs py-spy: pip install -r tests/requirements.txt")
    print("| | with the lock | " + " | ".join(f"{n} cores" for n in CORES) + " |")
    print("|---|---|" + "---|" * len(CORES))
    for name, case in CASES.items():
        shares = share_of(spy, case, options.rounds, options.seconds)
        share = statistics.median(shares)
        spread = f"{share:.0%} ({min(shares):.0%} to {max(shares):.0%})"
        rates = " | ".join(f"{throughput(share, n):.1f}" for n in CORES)
        print(f"| {name} | {spread} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
