"""Thirty visitors in the same minute: real clients over the whole path, against `python app.py`.

    python -m tests.benchmarks.load               the table of waits, times, memory and losses
    python -m tests.benchmarks.load --stops 100   stops at random moments
    python -m tests.benchmarks.load --runs 500    many short runs: does memory grow?
    python -m tests.benchmarks.load --dask        the table again, over a scheduler with two workers

Every visitor has settings, a table and labels of its own, comes at a random moment of the first
minute, loses the connection once and watches on from where it was. Afterwards each run is repeated
alone in this process, and the adapter that came over the wire must be the same to the last bit.
Clients and server share the machine, so the server alone would be quicker.

On threads: a worker trains with one torch thread, also for a visitor who is alone. See
`tests/benchmarks/threads.py` for what two would bring.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from gradio_client import Client
from safetensors.torch import load_file

import lora_core as lc
from lora_core.adapters.adapter import save_adapter
from lora_core.config import TARGETS
from lora_core.cores import fix_order_of_sums, set_threads
from lora_core.devices import choose_device
from lora_core.tasks.task import make_task
from tests.benchmarks.hall import hall
from tests.benchmarks.served import Sampler, resident_mb, server
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("good", "bad", "the", "very", "film", "phone", "late", "price", "free", "call", "thanks")
_PATIENT = {"timeout": 600.0}


@dataclass
class Visit:
    """What one visitor asked for, and what happened."""

    number: int
    settings: dict[str, Any]
    state: str = "lost"
    wait: float = 0.0  # seconds from the click to the start of training
    training: float = 0.0
    whole: float = 0.0  # seconds from the click to the downloaded adapter
    lost: int = 0  # events that did not arrive, or arrived twice
    mixed: int = 0  # answers with labels that are not this visitor's
    returns: int = 0  # broken connections after which it watched on
    places: list[int] = field(default_factory=list)
    adapter: Path | None = None
    error: str = ""


def settings_of(number: int, steps: int) -> dict[str, Any]:
    """Settings, table and labels that no other visitor has."""
    chance = random.Random(number)
    labels = [f"first{number}", f"second{number}", f"third{number}"][: 2 + number % 2]
    rows = []
    for i in range(120):
        label = labels[i % len(labels)]
        text = " ".join(chance.choices(WORDS, k=chance.randint(4, 20)))
        rows.append([f"{text} {WORDS[i % len(labels)] * 2} {i}", label])
    return {
        "task": f"table{number}",
        "rows": rows,
        "rank": (1, 2, 4, 8, 16, 32)[number % 6],
        "alpha": float(8 + number % 100),
        "targets": list(TARGETS[: 2 + number % 5]),
        "scaling": ("alpha/rank", "alpha/sqrt(rank)")[number % 2],
        "dropout": (0.0, 0.1)[number % 2],
        "steps": steps + number % 7,
        "batch_size": (8, 16)[number % 2],
        "seed": number,
    }


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    """Milliseconds that a call takes."""

    def measure() -> float:
        begin = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - begin)

    return measure


def connect(url: str, folder: Path | None = None) -> Client:
    """A client of its own, patient enough for a machine that does other things, too."""
    return Client(
        url, verbose=False, download_files=str(folder) if folder else False, httpx_kwargs=_PATIENT
    )


def visit(url: str, one: Visit, delay: float, folder: Path) -> None:
    """The whole path of one visitor."""
    try:
        time.sleep(delay)
        client = connect(url, folder / str(one.number))
        clicked = time.monotonic()
        run = client.predict(**one.settings, api_name="/fine_tune")
        steps, seen, started, leave = [], 0, 0.0, random.Random(one.number).randint(2, 12)
        while one.state in ("lost", "waiting", "running"):
            job = client.submit(run, seen, api_name="/watch")
            for count, update in enumerate(job):
                one.state = update["state"]
                one.lost += abs(update["next"] - len(update["events"]) - seen)
                seen = update["next"]
                one.places.append(update["place"])
                steps += [e["step"] for e in update["events"] if e["kind"] == "step"]
                if one.state == "running" and not started:
                    started = time.monotonic()
                if count >= leave > 0 and one.state == "running":  # the connection breaks
                    one.returns += 1
                    client = connect(url, folder / str(one.number))
                    break
            leave = -1
        ended = time.monotonic()
        one.wait, one.training = (started or ended) - clicked, ended - (started or ended)
        wanted = range(1, one.settings["steps"] + 1)
        one.lost += sum(1 for step in wanted if steps.count(step) != 1)
        own = {row[1] for row in one.settings["rows"]}
        texts = [row[0] for row in one.settings["rows"][:4]]
        for answer in client.predict(run, texts, api_name="/classify"):
            one.mixed += set(answer["probabilities"]) != own
        one.adapter = Path(client.predict(run, api_name="/export_adapter"))
        one.whole = time.monotonic() - clicked
        client.close()
    except Exception as error:
        one.state, one.error = "lost", f"{type(error).__name__}: {error}"


def same_alone(base: lc.Base, one: Visit, folder: Path) -> bool:
    """Repeat a run here, alone; whether its adapter is that of the visitor to the last bit."""
    s = one.settings
    lora = lc.LoRAConfig(s["rank"], s["alpha"], tuple(s["targets"]), s["scaling"], s["dropout"])
    train = lc.TrainConfig(steps=s["steps"], batch_size=s["batch_size"], seed=s["seed"])
    task = make_task(s["task"], [(text, label) for text, label in s["rows"]])
    set_threads(1)  # as a worker does; with more, some processors give other bits
    *_, finished = lc.fine_tune(base, task, lora, train)
    assert isinstance(finished, lc.Finished) and one.adapter is not None
    save_adapter(finished.classifier, folder / "alone")
    with zipfile.ZipFile(one.adapter) as archive:
        archive.extract("adapter_model.safetensors", folder / "wire")
    theirs = load_file(folder / "wire" / "adapter_model.safetensors")
    ours = load_file(folder / "alone" / "adapter_model.safetensors")
    return theirs.keys() == ours.keys() and all(torch.equal(theirs[n], ours[n]) for n in ours)


def asked_plainly(url: str, run: str) -> Callable[[], None]:
    """`/classify` as curl asks it; gradio_client itself takes far longer than the answer."""
    client = httpx.Client(timeout=120)
    address = f"{url}/gradio_api/call/classify"

    def ask() -> None:
        asked = client.post(address, json={"data": [run, ["a good film, thanks"], 1]}).json()
        assert "event: complete" in client.get(f"{address}/{asked['event_id']}").text

    return ask


def row(name: str, values: Sequence[float], unit: str) -> str:
    """One line of the table: median, 95th percentile, worst."""
    if not values:
        return f"| {name} | - | - | - |"
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    numbers = (statistics.median(ordered), high, ordered[-1])
    return f"| {name} | " + " | ".join(f"{n:,.1f} {unit}" for n in numbers) + " |"


def visitors(number: int, steps: int, spread: float, verify: int, dask: bool) -> int:
    """The load of the title; the number of things that went wrong."""
    chance = random.Random(0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = ["--dask", stack.enter_context(hall())] if dask else []
        url, pid = stack.enter_context(server(free_port(), *options))
        probe = connect(url)
        first = probe.predict(**settings_of(999, 5), api_name="/fine_tune")
        list(probe.submit(first, api_name="/watch"))
        memory = [resident_mb(pid)]

        def classify() -> None:
            probe.predict(first, "a good film, thanks", api_name="/classify")

        visits = [Visit(i, settings_of(i, steps)) for i in range(number)]
        threads = [
            threading.Thread(target=visit, args=(url, v, chance.uniform(0, spread), folder))
            for v in visits
        ]
        begin = time.monotonic()
        page = timed(lambda: httpx.get(url, timeout=120))
        with (
            Sampler(timed(classify), 0.5) as answers,
            Sampler(timed(asked_plainly(url, first)), 0.5) as plain,
            Sampler(page, 2.0) as loads,
            Sampler(lambda: resident_mb(pid), 1.0) as resident,
        ):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        seconds = time.monotonic() - begin
        done = [v for v in visits if v.state == "finished"]
        base = lc.load_base("bundled")
        torch.set_num_threads(1)
        checked = done[:verify]
        different = sum(not same_alone(base, v, folder) for v in checked)
    print(
        f"\n{number} visitors within {spread:g} s, {steps} to {steps + 6} steps each; all done "
        f"after {seconds:.0f} s; {os.cpu_count()} cores, {choose_device().format}\n"
    )
    print("| | median | 95 % | worst |\n|---|---|---|---|")
    print(row("waiting for the first step", [v.wait for v in done], "s"))
    print(row("training", [v.training for v in done], "s"))
    print(row("whole path, to the downloaded adapter", [v.whole for v in done], "s"))
    print(row("classifying meanwhile, by gradio_client", answers.values, "ms"))
    print(row("classifying meanwhile, by plain HTTP", plain.values, "ms"))
    print(row("loading the page meanwhile", loads.values, "ms"))
    peak = max(resident.values, default=float("nan"))
    print(f"\nserver's memory: {memory[0]:,.0f} MB before, {peak:,.0f} MB at most")
    lost, mixed = sum(v.lost for v in visits), sum(v.mixed for v in visits)
    overtaken = sum(a < b for v in visits for a, b in zip(v.places, v.places[1:], strict=False))
    unanswered = answers.errors + plain.errors + loads.errors
    print(
        f"finished: {len(done)} of {number}; connections broken and taken up again: "
        f"{sum(v.returns for v in visits)}; lost events: {lost}; mixed results: {mixed}; "
        f"unanswered requests: {unanswered}"
    )
    print(
        f"adapters bit for bit as alone: {len(checked) - different} of {len(checked)}; "
        f"places that grew while waiting: {overtaken}"
    )
    for v in visits:
        if v.error:
            print(f"visitor {v.number}: {v.error}")
    return number - len(done) + lost + mixed + different + unanswered


def stops(number: int, at_once: int = 8) -> int:
    """Stops at random moments, of waiting and of running runs."""
    wrong: list[str] = []
    waits: dict[str, list[float]] = {"waiting": [], "running": [], "over": []}
    lock = threading.Lock()

    def worker(url: str, share: int, seed: int) -> None:
        chance = random.Random(seed)
        client = connect(url)
        for i in range(share):
            settings = settings_of(seed * 1000 + i, 1500)
            run = client.predict(**settings, api_name="/fine_tune")
            time.sleep(chance.uniform(0, 8))
            before = next(iter(client.submit(run, api_name="/watch")))["state"]
            begin = time.monotonic()
            client.predict(run, api_name="/stop")
            last = list(client.submit(run, api_name="/watch"))[-1]
            seconds = time.monotonic() - begin
            with lock:
                waits[before if before in waits else "over"].append(seconds)
                if last["state"] != "stopped":
                    wrong.append(f"{before}, then {last['state']}: {last['reason']}")

    with server(free_port()) as (url, _):
        shares = [number // at_once + (i < number % at_once) for i in range(at_once)]
        threads = [
            threading.Thread(target=worker, args=(url, share, i + 1))
            for i, share in enumerate(shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client = connect(url)
        run = client.predict(**settings_of(0, 5), api_name="/fine_tune")
        after = list(client.submit(run, api_name="/watch"))[-1]["state"]
    print(f"\n{sum(map(len, waits.values()))} stops of {number}\n")
    print("| stopped while | median | 95 % | worst |\n|---|---|---|---|")
    for state, values in waits.items():
        print(row(f"{state} ({len(values)})", values, "s"))
    print(f"not stopped: {len(wrong)}; a run afterwards: {after}")
    for line in wrong:
        print(line)
    missing = number - sum(map(len, waits.values()))
    return len(wrong) + missing + (after != "finished")


def many(number: int, at_once: int = 4, warm: int = 60) -> int:
    """Short runs one after another; memory of the server when warm and at the end.

    Each client keeps its table: oneDNN compiles a product for each new shape and keeps 1,024 of
    them, so new shapes grow the process until that cache is full, whatever the server does.
    """
    unfinished = [0]

    def worker(url: str, share: int, seed: int) -> None:
        client = connect(url)
        for i in range(share):
            mine = {"seed": i, "visitor": f"visitor number {seed} {pid}"}
            settings = settings_of(seed, 3) | mine
            run = client.predict(**settings, api_name="/fine_tune")
            last = list(client.submit(run, api_name="/watch"))[-1]["state"]
            unfinished[0] += last != "finished"
        client.close()

    def batch(url: str, size: int, seed: int) -> None:
        threads = [
            threading.Thread(target=worker, args=(url, size // at_once, seed + i))
            for i in range(at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with server(free_port(), "--runs-kept", "3") as (url, pid):
        batch(url, warm, 1)
        points = [resident_mb(pid)]
        for _ in range(5):
            batch(url, (number - warm) // 5, 1)
            points.append(resident_mb(pid))
    growth = points[-1] / points[0] - 1
    print(f"\n{number} short runs in one process, unfinished: {unfinished[0]}")
    print(
        "server's memory in MB, after the first",
        warm,
        "and then after each fifth:",
        ", ".join(f"{p:,.0f}" for p in points),
        f"({growth:+.1%})",
    )
    return unfinished[0] + (growth > 0.05)


def main() -> int:
    """The command line; 0 when nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30, help="visitors (default 30)")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run (default 60)")
    parser.add_argument("--spread", type=float, default=60.0, help="seconds in which they come")
    parser.add_argument("--verify", type=int, default=30, help="runs to repeat alone (default 30)")
    parser.add_argument("--dask", action="store_true", help="train on workers of a scheduler")
    parser.add_argument("--stops", type=int, help="instead: so many stops at random moments")
    parser.add_argument("--runs", type=int, help="instead: so many short runs")
    options = parser.parse_args()
    fix_order_of_sums()  # as app.py does
    if options.stops:
        return min(1, stops(options.stops))
    if options.runs:
        return min(1, many(options.runs))
    wrong = visitors(options.clients, options.steps, options.spread, options.verify, options.dask)
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
