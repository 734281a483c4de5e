"""What do Experiments cost the others: thirty visitors' load with and without somebody who asks.

    python -m tests.benchmarks.asking [--clients 30] [--steps 20] [--rounds 1] [--askers 1]

One server process. A round is the load of `tests.benchmarks.load`: each visitor over the whole
path, to fine-tune, watch, classify and download. Rounds without and with visitors who ask the
questions go in turn (without, with, with, without), so that what else the machine does falls on
both. Who asks never stops: a question answered, the next is asked, of a run that nobody has asked
about yet, because answers are kept. That is more than a person does, and costs as much as thirty
who ask: all questions of a server are computed by one thread. They come before the round begins,
as somebody does who has a run to ask about, and a round is over with its last visitor; an answer
that is still being computed then is no part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from gradio_client import Client

from tests.benchmarks.load import (
    Visit,
    asked_plainly,
    connect,
    settings_of,
    timed,
    visit,
)
from tests.benchmarks.served import Sampler, server
from tests.servers import free_port

ABOUT_A_RUN = ("rank_knife", "knock_out", "forgetting", "merging", "memorised")
_NUMBERS = itertools.count()


class Asker:
    """A visitor who asks one question after the other, as long as it is entered."""

    def __init__(self, url: str, runs: list[str]) -> None:
        self.seconds: list[float] = []  # that each answer took
        self._client, self._runs = connect(url), runs  # fresh ones; each is taken once
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._ended.is_set() and self._runs:
            run = self._runs[-1]
            for name in ABOUT_A_RUN:
                begin = time.monotonic()
                while not self._ended.is_set():
                    try:
                        self._client.predict(run, api_name=f"/{name}")
                    except Exception:  # not known within the patience of a call: ask again
                        continue
                    self.seconds.append(time.monotonic() - begin)
                    break
            if not self._ended.is_set():
                self._runs.pop()

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()


def train(client: Client, steps: int, seed: int) -> str:
    """One run of a bundled task, at the default rank; its id."""
    run: str = client.predict(task="sms-spam", steps=steps, seed=seed, api_name="/fine_tune")
    list(client.submit(run, api_name="/watch"))
    return run


def crowd(url: str, number: int, steps: int, spread: float, folder: Path) -> list[Visit]:
    """A round: so many visitors, each with a table of its own, who come within `spread` seconds.

    Who comes when is the same in every round, and so is what they train.
    """
    chance, turn = random.Random(0), next(_NUMBERS)
    visits = [Visit(i, settings_of(i, steps)) for i in range(number)]
    threads = [
        threading.Thread(target=visit, args=(url, v, chance.uniform(0, spread), folder / str(turn)))
        for v in visits
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return visits


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20, help="of a run (default 20)")
    parser.add_argument("--spread", type=float, default=10.0, help="seconds in which they come")
    parser.add_argument("--rounds", type=int, default=1, help="times four rounds (default 1)")
    parser.add_argument("--fresh", type=int, default=8, help="runs to ask about, each")
    parser.add_argument("--askers", type=int, default=1, help="who ask at once (default 1)")
    options = parser.parse_args()
    whole: dict[bool, list[float]] = {False: [], True: []}
    answers: dict[bool, list[float]] = {False: [], True: []}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    lost, waits = 0, []
    with tempfile.TemporaryDirectory() as name, server(free_port()) as (url, _):
        folder = Path(name)
        client = connect(url)
        probe = train(client, 4, 0)
        fresh = [
            [train(client, 4, 1 + options.fresh * i + j) for j in range(options.fresh)]
            for i in range(options.askers)
        ]
        crowd(url, min(4, options.clients), 3, 0.0, folder)  # what is loaded and compiled once
        for asking in (False, True, True, False) * options.rounds:
            askers = [Asker(url, runs) for runs in fresh] if asking else []
            with contextlib.ExitStack() as stack:
                for asker in askers:
                    stack.enter_context(asker)
                begin = time.monotonic()
                with Sampler(timed(asked_plainly(url, probe)), 0.5) as plain:
                    visits = crowd(url, options.clients, options.steps, options.spread, folder)
                seconds[asking].append(time.monotonic() - begin)
                waits += [waited for asker in askers for waited in asker.seconds]
            done = [v for v in visits if v.state == "finished"]
            lost += len(visits) - len(done) + sum(v.lost + v.mixed for v in visits)
            whole[asking] += [v.whole for v in done]
            answers[asking] += plain.values
            print(
                f"{'with' if asking else 'without'} questions: {seconds[asking][-1]:.0f} s, "
                f"whole path {statistics.median(v.whole for v in done):.1f} s",
                flush=True,
            )
    print(
        f"\n{options.clients} visitors a round, {options.steps} steps and more; "
        f"{len(waits)} questions answered meanwhile, each after "
        f"{statistics.median(waits) if waits else float('nan'):.0f} s at the median, "
        f"{lost} things lost\n"
    )
    print("| medians | without | with | ratio |\n|---|--:|--:|--:|")
    for what, kind, unit in (
        ("whole path, to the downloaded adapter", whole, "s"),
        ("a classification meanwhile", answers, "ms"),
        ("the round", seconds, "s"),
    ):
        one, other = (statistics.median(kind[asking]) for asking in (False, True))
        print(f"| {what} | {one:,.1f} {unit} | {other:,.1f} {unit} | {other / one:.2f} |")


if __name__ == "__main__":
    main()
