"""The experiments over the web API: every question of the page, under a stable name.

Each answer is JSON with a `sentence` and the figures behind it. What takes seconds is computed once
a run and kept; the call returns when it is known. A run's id is the key to it, as everywhere.
"""

# No `from __future__ import annotations`: Gradio reads the return types as they stand.
import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from gradio.events import api as endpoint

from lora_core.explain.exam import ExperimentError
from lora_core.explain.knife import Knife
from lora_core.limits import RunError
from lora_core.serving.computations import Computation
from lora_core.serving.registry import new_visitor
from lora_core.ui.addresses import address_of_caller
from lora_core.ui.drawing.answer_figures import Answer
from lora_core.ui.experiments import Experiments, memorised, trained, votes
from lora_core.ui.luck import groups, luck, sweep_answer
from lora_core.ui.names import cut_name, task_of
from lora_core.ui.readers import looks
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import cells_of, points_of
from lora_core.ui.values import string, texts_of, whole

ENDPOINTS = (
    *("luck", "start_sweep", "sweep", "stop_sweep", "forgetting", "rank_knife", "keep_rank"),
    *("knock_out", "vote", "memorised", "merging"),
)
PATIENCE = 120.0  # seconds that a call waits for its answer
_LOOK = 0.2  # seconds between two looks at a computation


def build(experiments: Experiments) -> None:
    """Register the endpoints with the page that is being built."""
    endpoints = Endpoints(experiments)
    for name in ENDPOINTS:
        endpoint(getattr(endpoints, name), api_name=name, concurrency_limit=None)


class Endpoints:
    """The functions behind the API; each takes and gives plain JSON."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments
        self._registry = experiments.lab.registry

    def luck(self, run_ids: list[str]) -> dict[str, Any]:
        """Runs that differ in their seed only, taken together: mean, spread, and what can be told
        apart (Welch's t interval, 95 %).

        Args:
            run_ids: what `/fine_tune` answered, of one task; the two largest groups are compared

        Returns:
            sentence; groups with name, mean, deviation, low, high, values, seeds, rows
        """
        runs = [self._registry.find(run_id) for run_id in _ids(run_ids)]
        tasks = {task_of(run) for run in runs}
        if len(tasks) > 1:
            raise ExperimentError("These runs belong to different tasks; compare those of one.")
        return luck(groups(tasks.pop(), runs) if runs else [])

    def start_sweep(
        self,
        kind: str = "ranks",
        seeds: int = 1,
        task: str = "sms-spam",
        base: str = "bundled",
        rank: int = 8,
        alpha: float = 16.0,
        scaling: str = "alpha/rank",
        steps: int = 0,
        batch_size: int = 16,
        seed: int = 0,
        visitor: str = "",
    ) -> str:
        """Begin a sweep: many runs that answer one question. Figures are kept, adapters are not.

        Args:
            kind: "ranks", "rates" (learning rates of LoRA and of full fine-tuning), "grid" (rank by
                alpha) or "layers" (which layers, at equal numbers of parameters)
            seeds: 1, 3 or 5 of every setting
            task: name of a bundled task
            base: "bundled", or another that the server holds already
            rank: r of the settings that the sweep goes around
            alpha: numerator of the scale
            scaling: "alpha/rank", "alpha" or "alpha/sqrt(rank)"
            steps: optimiser steps of every run; 0 is the measured default for so many labels
            batch_size: texts a step
            seed: the first one
            visitor: a secret of your own, 16 to 200 characters; one sweep runs for it at a time

        Returns:
            id of the sweep
        """
        settings = Settings.read(
            {
                "task": task,
                "base": base,
                "rank": rank,
                "alpha": alpha,
                "scaling": scaling,
                "steps": steps,
                "batch_size": batch_size,
                "seed": seed,
            }
        )
        lab = self._experiments.lab
        settings.lora_config()
        settings.train_config()
        if settings.base != "bundled" and settings.base not in lab.bases:
            raise ExperimentError(f"There is no base called '{settings.base}' here.")
        string("visitor", visitor)
        mine = visitor or new_visitor()
        held = lab.base(settings.base)
        chosen = lab.task(settings.task, mine)
        limits, labels = self._registry.limits, len(chosen.labels)
        points = points_of(string("kind", kind), settings, limits, held.config, labels)
        cells = cells_of(points, whole("seeds", seeds), settings.seed)
        address = address_of_caller(lab.behind_proxy)
        return self._experiments.plans.submit(mine, kind, held, chosen, cells, address=address).id

    def sweep(self, sweep_id: str) -> dict[str, Any]:
        """What a sweep has shown so far.

        Args:
            sweep_id: what `/start_sweep` answered

        Returns:
            state ("waiting" until all runs are over), done, runs, sentence, and groups: a setting
            each, with name, rate, scale, trainable, mean, deviation, values and seeds
        """
        return sweep_answer(self._experiments.plans.find(sweep_id))

    def stop_sweep(self, sweep_id: str) -> dict[str, Any]:
        """End a sweep; what is known stays.

        Args:
            sweep_id: what `/start_sweep` answered

        Returns:
            as `/sweep`
        """
        plan = self._experiments.plans.find(sweep_id)
        self._experiments.plans.stop(plan)
        return sweep_answer(plan)

    async def forgetting(self, run_id: str) -> dict[str, Any]:
        """Bits a byte of general text along the strength of the adapter: did it forget?

        Args:
            run_id: what `/fine_tune` answered; the run must be over

        Returns:
            sentence, base_bits, bits, and curve: strength and bits
        """
        return await self._about("forgot", run_id)

    async def rank_knife(self, run_id: str) -> dict[str, Any]:
        """Accuracy with the k strongest directions of every layer, for each k from 0 to the rank.

        Args:
            run_id: what `/fine_tune` answered; the run must be over and have used LoRA

        Returns:
            sentence, rank, enough (the smallest k within half a point), cuts: rank, right, accuracy
        """
        return await self._about("knife", run_id)

    def keep_rank(self, run_id: str, rank: int = 1) -> str:
        """Keep an adapter's strongest directions as an adapter of that rank, a run of its own.

        Args:
            run_id: what `/fine_tune` answered; the run must be over and have used LoRA
            rank: directions to keep in every layer

        Returns:
            id of the new run, for `/classify` and `/export_adapter`
        """
        run = self._registry.find(run_id)
        number = whole("rank", rank)
        smaller = Knife(trained(run)).keep(number)
        return self._registry.add_classifier(run.visitor, smaller, run.task, cut_name(run)).id

    async def knock_out(
        self,
        run_id: str,
        off: list[str] = [],  # noqa: B006 (Gradio shows it; it is never changed)
    ) -> dict[str, Any]:
        """Accuracy without some layers together, or, with none named, without each in turn.

        Args:
            run_id: what `/fine_tune` answered; the run must be over
            off: names of layers to switch off, such as "blocks.0.mlp.up", "head"; empty: each

        Returns:
            for named layers accuracy and rows; else sentence, whole, adapter_off, correlation and
            parts: name, accuracy, lost, change (the norm of dW)
        """
        names = texts_of(off, "off")
        if not names:
            return await self._about("layers", run_id)
        run = self._registry.find(run_id)
        computation = await self._wait(lambda: self._experiments.without(run.visitor, run, names))
        right, rows = computation.value
        return {"off": names, "accuracy": right / rows, "right": right, "rows": rows}

    async def vote(self, run_ids: list[str]) -> dict[str, Any]:
        """Accuracy of the mean of several runs' probabilities, against the number of voters.

        Args:
            run_ids: two to eight runs over one base with the same labels; all must be over

        Returns:
            sentence, singles (the accuracy of each alone), votes: voters, mean, low and high, over
            every choice of so many, and against_best: won, lost (texts, all together against the
            best alone) and p of the sign test
        """
        runs = [self._registry.find(run_id) for run_id in _ids(run_ids)]
        if not runs:
            raise ExperimentError("Name two runs or more.")
        asked = await self._wait(lambda: self._experiments.vote(runs[0].visitor, runs))
        return await asyncio.to_thread(votes, asked)

    def memorised(self, run_id: str) -> dict[str, Any]:
        """Learned or memorised: training against validation accuracy along a run.

        Args:
            run_id: what `/fine_tune` answered

        Returns:
            sentence, steps, train_accuracy, validation_accuracy, gap, best_step, memorises_from
            (a step, or null), and test with its interval (Wilson, 95 %) and rows
        """
        return memorised(self._registry.find(run_id))

    async def merging(self, run_id: str) -> dict[str, Any]:
        """The largest difference of a logit between merged and unmerged, on the test texts.

        Args:
            run_id: what `/fine_tune` answered; the run must be over and have used LoRA

        Returns:
            sentence, largest, typical (mean absolute logit), changed (answers), rows
        """
        return await self._about("merging", run_id)

    # Inside ----------------------------------------------------------------------------------

    async def _about(self, question: str, run_id: str) -> Answer:
        run = self._registry.find(run_id)
        begin = self._experiments.begin
        computation = await self._wait(lambda: begin(run.visitor, question, run))
        answer = await asyncio.to_thread(self._experiments.answer, question, run, computation)
        return {key: value for key, value in answer.items() if key != "figure"}

    async def _wait(self, ask: Callable[[], Computation]) -> Computation:
        """The computation that `ask` begins, when it is done. Raises its reason.

        Whoever waits holds no thread, but a watcher's place: waiting must not use up what
        answering needs, and ends where nobody reads.
        """
        end = time.monotonic() + PATIENCE
        address = address_of_caller(self._experiments.lab.behind_proxy)
        waiting = f"question {secrets.token_hex(8)}"
        looking = looks(self._registry.watchers, waiting, _LOOK, address)
        computation: Computation | None = None
        async with aclosing(looking):
            async for _ in looking:
                if computation is None or computation.state == "dropped":
                    computation = await asyncio.to_thread(ask)
                if computation.state == "failed":
                    raise ExperimentError(computation.reason)
                if computation.state == "done":
                    return computation
                computation.used = time.monotonic()
                if time.monotonic() > end:
                    break
        raise RunError("The server is busy: ask again in a minute, it goes on from where it is.")


def _ids(value: object) -> list[str]:
    ids = texts_of(value, "run_ids")
    if len(ids) > 100:
        raise ExperimentError(f"{len(ids):,} runs were named; at most 100 a request.")
    return list(dict.fromkeys(ids))
