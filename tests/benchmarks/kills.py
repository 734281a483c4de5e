"""A server that is killed at random moments, over one store: what is lost, what is damaged?

    python -m tests.benchmarks.kills                 100 kills, eight visitors
    python -m tests.benchmarks.kills --start 500     a start with 500 stored runs, and an empty one
    python -m tests.benchmarks.kills --halt 60       a server that stands still (SIGSTOP)

Each round starts a server in a process of its own, lets eight visitors queue, train, stop, remove
and go on at random, and kills it (SIGKILL) after a random time. Before it answers a visitor that a
run is finished, the server says so on its output; every run that was ever said to be finished and
was not removed must be there after the next start, with all its events and an adapter that answers
to the last bit what it answered then.
A base of random weights and short runs make the moments dense; the store is the real one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
from gradio_client import Client

from lora_core.base.checkpoint import Base
from lora_core.limits import Limits
from lora_core.serving.registry import Registry, Run, RunError
from lora_core.serving.store import Store
from lora_core.serving.weight_files import weights_of
from lora_core.tasks.task import Task
from tests.servers import served
from tests.serving.registry import submit, tiny_base, words_task

ROOT = Path(__file__).resolve().parents[2]
KEEP_ALL = Limits(runs_kept=1_000_000)  # no cap forgets a run by right
VISITORS = [f"visitor number {i} of the class" for i in range(8)]


def say(*words: object) -> None:
    """A line of output, in one piece: several threads speak, and the kill may come within."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def answer(run: Run) -> str:
    """What a run's classifier says of a text, bit for bit; "" without one."""
    if run.classifier is None:
        return ""
    said = run.classifier.classify("win cash and see you").probabilities
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def visit(registry: Registry, visitor: str, seed: int, tiny: Base, words: Task) -> None:
    """One visitor's random acts, until the process is killed."""
    chance, pause = random.Random(seed), threading.Event()
    promised: set[str] = set()
    while True:
        pause.wait(0.05)  # eight of these threads without a rest would leave the workers nothing
        runs = registry.runs(visitor)
        try:
            act = chance.random()
            if act < 0.5 or not runs:
                steps = chance.choice([2, 10, 200])
                run = submit(registry, tiny, words, visitor, steps=steps, evaluations=2)
                while not run.is_over and chance.random() < 0.9:
                    pause.wait(0.05)
            elif act < 0.6:
                registry.stop(visitor, chance.choice(runs).id)
            elif act < 0.62:
                victim = chance.choice(runs).id
                say("removed", victim)  # before it is: it may go at any moment now
                registry.remove(visitor, victim)
            elif act < 0.72:
                registry.go_on(visitor, chance.choice(runs).id)
        except RunError:
            pass
        for run in registry.runs(visitor):
            if run.state == "finished" and run.id not in promised:
                promised.add(run.id)
                say("finished", run.id, len(run.events), answer(run) or "nothing")


def serve(folder: str, seed: int) -> None:
    """The process that is killed."""
    tiny, words, store = tiny_base(), words_task(), Store(Path(folder))
    registry = Registry(KEEP_ALL, workers=2, store=store, bases=lambda *_: tiny)
    say("ready", *store.notes)
    for number, visitor in enumerate(VISITORS):
        arguments = (registry, visitor, 1000 * seed + number, tiny, words)
        threading.Thread(target=visit, args=arguments, daemon=True).start()
    threading.Event().wait()


def kills(number: int, within: float, seed: int = 0) -> int:
    """So many rounds of up to `within` seconds; the number of things that went wrong."""
    chance, removed = random.Random(seed), set()
    promised: dict[str, tuple[int, str]] = {}  # events, and what it answers
    notes, interrupted, counted = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(number):
            code = f"from tests.benchmarks.kills import serve; serve({folder!r}, {turn})"
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            assert process.stdout is not None
            ready = process.stdout.readline().strip()
            notes += [ready] if ready != "ready" else []
            timer = threading.Timer(
                chance.uniform(0, within), process.send_signal, args=[signal.SIGKILL]
            )
            timer.start()
            for line in process.stdout:
                what, *facts = line.split()
                if what == "finished" and len(facts) == 3:
                    promised.setdefault(facts[0], (int(facts[1]), facts[2]))
                elif what == "removed" and facts:
                    removed.add(facts[0])
            process.wait()
            tiny, store = tiny_base(), Store(Path(folder))
            notes += store.notes
            lost = []
            with Registry(KEEP_ALL, workers=1, store=store) as registry:
                registry.pause()
                registry.take_up(lambda *_, tiny=tiny: tiny)
                here = {run.id: run for v in VISITORS for run in registry.runs(v)}
                interrupted += sum(run.interrupted for run in here.values())
                for run_id, promise in promised.items():
                    if run_id in removed:
                        continue
                    run = here.get(run_id)
                    if run is None or (len(run.events), answer(run)) != promise:
                        lost.append(run_id)
                counted = len(promised.keys() - removed)
            if lost:
                print(f"round {turn}: lost {len(lost)}: {lost}")
                return len(lost)
            print(f"round {turn}: {counted} finished runs, all there", flush=True)
    print(
        f"{number} kills, {len(promised)} finished runs, {len(removed & promised.keys())} of them "
        f"removed by their visitors; lost: 0; interrupted runs found again: {interrupted}; "
        f"damaged stores: {len(notes)}"
    )
    return len(notes)


def start(stored: int, rounds: int = 5) -> int:
    """Seconds until a registry is there, and until `python app.py` has served its first page, over
    an empty store and over one with so many runs, in turns; 1 where that takes a tenth longer."""
    tiny, words = tiny_base(), words_task()
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        with Registry(KEEP_ALL, workers=2, store=Store(Path(full))) as registry:
            model = submit(registry, tiny, words, VISITORS[0], steps=300, evaluations=8)
            while not model.is_over:
                threading.Event().wait(0.02)
        store = Store(Path(full))  # the others are copies of this one, ten a visitor
        (row,), events = store.of(VISITORS[0]), store.events(model.id)
        tensors = store.weights(model.id)
        for number in range(1, stored):
            run_id, visitor = f"run number {number}", f"visitor number {number // 10} of many"
            weights = weights_of(row.weights_step or 0, tensors)
            store.put(
                run_id, visitor, row.state, row.record, row.used, events=events, weights=weights
            )
        store.close()
        size = sum(path.stat().st_size for path in Path(full).rglob("*") if path.is_file())
        stores = {"empty": empty, f"{stored} runs, {size / 1e6:.0f} MB": full}
        seconds: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(rounds):
            for name, folder in stores.items():
                begin = time.perf_counter()
                with Registry(workers=2, store=Store(Path(folder)), bases=lambda *_: tiny) as again:
                    opened = time.perf_counter() - begin
                    runs = again.runs("visitor number 1 of many")
                    seen = time.perf_counter() - begin - opened
                begin = time.perf_counter()
                with served("--data", folder) as server:
                    httpx.get(server.address, timeout=60).raise_for_status()
                    seconds[name].append(time.perf_counter() - begin)
                print(
                    f"{name}: opened in {opened * 1e3:.0f} ms, {len(runs)} runs of a visitor in "
                    f"{seen * 1e3:.0f} ms; the app's first page after {seconds[name][-1]:.2f} s",
                    flush=True,
                )
    first, last = (statistics.median(values) for values in seconds.values())
    print(f"first page, medians: {first:.2f} s empty, {last:.2f} s full ({last / first:.2f})")
    return int(last > 1.1 * first)


def halt(seconds: float, *options: str) -> int:
    """A run that is watched while its server stands still; the number of steps that are missing."""
    with served("--data", "none", *options) as server:
        client = Client(server.address, verbose=False)
        run = client.predict(task="sms-spam", steps=60, api_name="/fine_tune")
        steps: list[int] = []
        stood = False
        for update in client.submit(run, api_name="/watch"):
            steps += [event["step"] for event in update["events"] if event["kind"] == "step"]
            if len(steps) >= 10 and not stood:
                server.process.send_signal(signal.SIGSTOP)
                time.sleep(seconds)
                server.process.send_signal(signal.SIGCONT)
                stood = True
        client.close()
    order = "in order" if steps == list(range(1, 61)) else "with gaps"
    print(f"stood still for {seconds:g} s: {update['state']}, {len(steps)} of 60 steps, {order}")
    return len(set(range(1, 61)) - set(steps)) + (update["state"] != "finished")


def main() -> int:
    """The command line; 0 when nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--within", type=float, default=8, help="seconds; more on a busy machine")
    parser.add_argument("--start", type=int, help="instead: start with so many stored runs")
    parser.add_argument("--halt", type=float, help="instead: stand still for so many seconds")
    options = parser.parse_args()
    if options.halt:
        return halt(options.halt)
    if options.start:
        return start(options.start)
    return min(1, kills(options.kills, options.within))


if __name__ == "__main__":
    sys.exit(main())
