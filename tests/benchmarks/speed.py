"""How fast a step is, beside the usual tools, and where its time goes.

    python -m tests.benchmarks.speed                 one thread; tables on the screen
    python -m tests.benchmarks.speed --quick         fewer repetitions, rank 8 only
    python -m tests.benchmarks.speed --threads 2     wall time with two threads
    python -m tests.benchmarks.speed --busy          another process keeps the core busy
    python -m tests.benchmarks.speed --json speed.json

Everything runs in one process, interleaved: each contender takes one step on the same batch, then
the next batch. With one thread the times are processor time (what other programs took does not
count, though they still cost caches); with more, or with `--busy`, wall time. Medians; ratios are
medians of the ratios on the same batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import lora_core as lc
from lora_core.batches import Batch, encode_text, training_batches
from lora_core.devices import choose_device
from lora_core.fast.packing import round_up
from tests.benchmarks.contenders import VARIANTS, Contender, Phases, Variant, everyone, peft

ROOT = Path(__file__).resolve().parents[2]
Clock = Callable[[], float]


def batches_of(base: lc.Base, task: lc.Task, size: int, count: int) -> list[Batch]:
    """The first batches of a run."""
    ids = [encode_text(base.tokenizer, row.text, base.config.context_length) for row in task.train]
    labels = [row.label for row in task.train]
    source = training_batches(ids, labels, size, torch.Generator().manual_seed(0))
    return [next(source) for _ in range(count)]


def interleaved(
    contenders: dict[str, Contender], batches: list[Batch], clock: Clock, warmup: int
) -> dict[str, list[dict[str, float]]]:
    """Seconds by phase of every contender on every batch; the first `warmup` left out."""
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for i, batch in enumerate(batches):
        for name, step in contenders.items():
            phases = Phases(clock)
            step(batch, phases)
            if i >= warmup:
                seconds[name].append({**phases.seconds, "step": phases.total})
    return seconds


def fastest_variant(rank: int, classes: int, batches: list[Batch], clock: Clock) -> Variant:
    """Which form of `peft` is fastest here."""
    contenders = {v.name: peft(rank, classes, None, v.attention, v.dtype, v.cast) for v in VARIANTS}
    times = interleaved(contenders, batches, clock, len(batches) // 2)
    medians = {name: statistics.median(s["step"] for s in rows) for name, rows in times.items()}
    return next(v for v in VARIANTS if v.name == min(medians, key=medians.__getitem__))


def step_flops(config: lc.GPTConfig, batch: Batch, rank: int) -> float:
    """Operations that a LoRA step needs, however it is computed: real tokens only.

    Forward and the gradient of activations through the frozen weights, forward and twice backward
    through A and B; the last block's query, output and MLP at one token a text; nothing below the
    first adapter. Attention's two products are counted over the real, causal pairs.
    """
    width, tokens, texts = config.emb_dim, batch.real_tokens, len(batch.rows)
    pairs = float((batch.lengths * (batch.lengths + 1) // 2).sum())
    shapes = [(width, width, 4), (width, 4 * width, 1), (4 * width, width, 1)]
    total = 0.0
    for depth in range(config.n_layers):
        for rows_in, rows_out, count in shapes:
            last = depth == config.n_layers - 1
            for i in range(count):
                rows = texts if last and not (count == 4 and i < 2) else tokens
                lowest = depth == 0 and count == 4 and i < 3
                total += 2 * rows * rows_in * rows_out * (1 if lowest else 2)
                total += 2 * rows * rank * (rows_in + rows_out) * 3
        total += 4 * width * 3 * (tokens if depth == config.n_layers - 1 else pairs)
    return total


def gemm_peak(config: lc.GPTConfig, batch: Batch, dtype: torch.dtype, clock: Clock) -> float:
    """FLOP/s of the frozen products alone, forward and to the input, on the shapes of a step."""
    rows, width = round_up(batch.real_tokens, 32), config.emb_dim
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    operands = []
    for rows_in, rows_out in shapes:
        x, w = torch.randn(rows, rows_in), torch.randn(rows_out, rows_in)
        y = torch.empty(rows, rows_out, dtype=dtype)
        operands.append((x.to(dtype), w.to(dtype), y, torch.empty(rows, rows_in, dtype=dtype)))
    best = float("inf")
    for _ in range(12):
        start = clock()
        for x, w, y, dx in operands:
            torch.mm(x, w.T, out=y)
            torch.mm(y, w, out=dx)
        best = min(best, clock() - start)
    return 4.0 * rows * sum(a * b for a, b in shapes) / best


def steps_table(base: lc.Base, task: lc.Task, rank: int, options: argparse.Namespace) -> list[dict]:
    """One row a contender."""
    clock: Clock = time.perf_counter if options.threads > 1 or options.busy else time.thread_time
    count = options.repeat + 3
    batches = batches_of(base, task, 16, count)
    classes = len(task.labels)
    variant = fastest_variant(rank, classes, batches[: 4 if options.quick else 6], clock)
    contenders = {n: make() for n, make in everyone(base, rank, classes, variant).items()}
    # A first round over all batches compiles the kernels of every shape, for every contender.
    interleaved(contenders, batches, clock, count)
    times = interleaved(contenders, batches, clock, 3)
    ours = [s["step"] for s in times["LoRA Lab"]]
    rows = []
    device = choose_device()
    shares = [
        step_flops(base.config, b, rank) / s / gemm_peak(base.config, b, device.dtype, clock)
        for b, s in list(zip(batches[3:], ours, strict=True))[:8]
    ]
    for name, steps in times.items():
        middle = {k: statistics.median(s[k] for s in steps) * 1e3 for k in steps[0]}
        ratio = statistics.median(s["step"] / o for s, o in zip(steps, ours, strict=True))
        row: dict = {"rank": rank, "contender": name, **middle, "ratio": ratio}
        if name == "LoRA Lab":
            row["share_of_gemm_peak"] = statistics.median(shares)
        rows.append(row)
    return rows


def memory_table(task: lc.Task, rank: int) -> dict[str, float]:
    """Megabytes that each contender needs for its model, optimiser and steps: the growth of the
    largest resident size of a process of its own, in which all libraries were loaded before.
    """
    megabytes: dict[str, float] = {}
    processes = multiprocessing.get_context("spawn")
    for index in range(len(everyone(lc.load_base("bundled"), rank, 2, VARIANTS[0]))):
        with processes.Pool(1) as pool:
            name, size = pool.apply(_peak_mb, (task.name, rank, index))
        megabytes[name] = size
    return megabytes


def _peak_mb(task_name: str, rank: int, index: int) -> tuple[str, float]:
    """In its own process: build one contender and take a few steps."""
    import peft  # noqa: F401 (so that the libraries do not count)
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    base, task = lc.load_base("bundled"), lc.load_task(task_name)
    contenders = everyone(base, rank, len(task.labels), VARIANTS[0])
    name, make = list(contenders.items())[index]
    batches = batches_of(base, task, 16, 8)
    # Not `ru_maxrss`: a child begins with its parent's.
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far
    before = _resident_kb("VmRSS")
    step = make()
    for batch in batches:
        step(batch, Phases(time.thread_time))
    return name, (_resident_kb("VmHWM") - before) / 1e3


def _resident_kb(field: str) -> int:
    """VmRSS, the resident size now, or VmHWM, the largest since it was last forgotten. Linux."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(field + ":")))


def seconds_to_accuracy(base: lc.Base, task: lc.Task, goal: float) -> dict:
    """Default runs of LoRA and full fine-tuning until validation accuracy first reaches `goal`."""
    report: dict = {"goal": goal}
    adapted: lc.Classifier
    for method in ("lora", "full"):
        begin, reached, evaluating, last = time.process_time(), None, 0.0, time.process_time()
        config = lc.TrainConfig(method=method)  # type: ignore[arg-type]
        for event in lc.fine_tune(base, task, lc.LoRAConfig(), config):
            now = time.process_time()
            if isinstance(event, lc.Evaluated):
                evaluating += now - last
                if reached is None and event.validation_accuracy >= goal:
                    reached = (event.step, now - begin)
            last = now
        assert isinstance(event, lc.Finished)
        report[method] = {
            "reached": reached,
            "whole_run": last - begin,
            "share_of_evaluation": evaluating / (last - begin),
            "best": event.validation_accuracy,
        }
        if method == "lora":
            adapted = event.classifier
    texts = [row.text for row in task.test][:256]
    for size, repeats in ((1, 30), (len(texts), 2)):
        spent = []
        for i in range(repeats):
            start = time.thread_time()
            adapted.classify_many(texts[i : i + size])
            spent.append((time.thread_time() - start) / size)
        report[f"classify_{size}_ms_a_text"] = statistics.median(spent) * 1e3
    return report


def import_seconds() -> float:
    """Processor seconds of `import lora_core` in a fresh process, torch included."""
    code = "import time, lora_core; print(time.process_time())"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout)
        for _ in range(3)
    ]  # fmt: skip
    return min(runs)


def page_seconds() -> dict[str, float]:
    """Wall and processor seconds from `python app.py` until the page is served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), "--no-browser", "--data", "none"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while app.poll() is None and time.perf_counter() - begin < 300:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
                wall = time.perf_counter() - begin
                usage = Path(f"/proc/{app.pid}/stat")
                ticks = usage.read_text().rsplit(")", 1)[1].split()[11:13] if usage.exists() else []
                cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") if ticks else float("nan")
                return {"wall": wall, "cpu": cpu}
            time.sleep(0.1)
    finally:
        app.terminate()
        app.wait(30)
    return {}


def slider_ms(base: lc.Base) -> float:
    """From a moved slider to the numbers: the counts of every layer."""
    spent = []
    for rank in range(1, 65):
        start = time.thread_time()
        lc.predict_parameters(base.config, lc.LoRAConfig(rank=rank), 2)
        spent.append(time.thread_time() - start)
    return statistics.median(spent) * 1e3


@contextlib.contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """Another process that computes without end on the same cores."""
    if not wanted:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def print_steps(rows: list[dict], unit: str) -> None:
    """The steps as Markdown."""
    print(f"\n| rank | step of | forward | backward | optimiser | step, ms {unit} | times ours |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for row in rows:
        parts = " | ".join(f"{row[k]:.1f}" for k in ("forward", "backward", "optimiser", "step"))
        print(f"| {row['rank']} | {row['contender']} | {parts} | {row['ratio']:.2f} |")
    for row in rows:
        if "share_of_gemm_peak" in row:
            share = row["share_of_gemm_peak"]
            print(f"\nRank {row['rank']}: {share:.0%} of the peak of its own matrix products.")


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--task", default="sms-spam")
    parser.add_argument("--ranks", type=int, nargs="+")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--goal", type=float, default=0.90, help="validation accuracy to reach")
    parser.add_argument("--steps-only", action="store_true", help="the first table alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.repeat = options.repeat or (8 if options.quick else 24)
    ranks = options.ranks or ([8] if options.quick else [8, 64])
    torch.set_num_threads(options.threads)
    base, task = lc.load_base("bundled"), lc.load_task(options.task)
    device = choose_device()
    unit = "wall" if options.threads > 1 or options.busy else "CPU"
    print(
        f"{base.config.n_layers} x {base.config.emb_dim}, 16 texts of {options.task}; "
        f"{options.threads} thread(s){', a busy core' if options.busy else ''}; {device.format}. "
        f"{device.reason}"
    )
    result: dict = {"threads": options.threads, "busy": options.busy, "format": device.format}
    with busy_core(options.busy):
        result["steps"] = [r for rank in ranks for r in steps_table(base, task, rank, options)]
    print_steps(result["steps"], unit)
    if not options.steps_only:
        result["memory_mb"] = {rank: memory_table(task, rank) for rank in ranks}
        for rank, table in result["memory_mb"].items():
            print(f"\n| memory at rank {rank} | MB |\n|---|--:|")
            for name, size in table.items():
                print(f"| {name} | {size:.0f} |")
        result["run"] = seconds_to_accuracy(base, task, options.goal)
        result["import_cpu_seconds"] = import_seconds()
        result["page"] = page_seconds()
        result["slider_ms"] = slider_ms(base)
        for name in ("run", "import_cpu_seconds", "page", "slider_ms"):
            print(f"\n{name}: {json.dumps(result[name])}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
