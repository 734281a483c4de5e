"""The web API: everything that the page does, under stable names for scripts and other programs.

A run's id is the key to it: who has the id may watch, stop, use and export the run, and nobody
can guess one. Every refusal is one sentence; nothing of the program's inside reaches a client.

    from gradio_client import Client
    client = Client("http://127.0.0.1:7860")
    run = client.predict(task="sms-spam", rank=8, steps=100, api_name="/fine_tune")
    for update in client.submit(run, api_name="/watch"):
        print(update["state"], update["events"])
    client.predict(run, ["You won. Text WIN to claim."], api_name="/classify")
"""

# No `from __future__ import annotations`: Gradio reads the return types as they stand.
import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from lora_core.adapters.adapter import zip_adapter
from lora_core.adapters.size import adapter_file_bytes
from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier, ClassifyError, Prediction, check_text
from lora_core.config import EVERY_LAYER, LoRAConfig
from lora_core.limits import MEGABYTE
from lora_core.parameters import predict_parameters
from lora_core.serving.registry import RunError, new_visitor
from lora_core.serving.run import ENDED
from lora_core.serving.table_readers import TableReaders
from lora_core.tasks.bundled import COLLECTION, task_names
from lora_core.tasks.file import Table
from lora_core.tasks.own_table import own_name, task_of
from lora_core.tasks.task import Task, TaskError
from lora_core.ui.addresses import address_of_caller
from lora_core.ui.api_json import plain, test_of
from lora_core.ui.context import Context, Lab
from lora_core.ui.files import Downloads
from lora_core.ui.readers import looks
from lora_core.ui.settings import Settings
from lora_core.ui.values import real, string, texts_of, whole

ENDPOINTS = (
    *("count_parameters", "fine_tune", "watch", "stop", "go_on", "forget", "classify"),
    "export_adapter",
)
POLL_SECONDS = 0.2  # between two looks of `/watch`
_SHORT = 4000  # characters of texts that are classified in a moment
_TEXTS_AT_ONCE = 8  # of many: then others' turn with the same run; 64 long ones take 900 MB
_ANSWERERS = 64  # threads for short texts
_MANY = "Many texts are being classified at the moment. Try again in a few seconds."


def build(context: Context) -> None:
    """Register the endpoints with the page that is being built, before its panels: of two
    functions of a name, the first keeps it."""
    endpoints = Endpoints(context.lab)
    for name in ENDPOINTS[:-1]:
        endpoint(getattr(endpoints, name), api_name=name, concurrency_limit=None)
    gr.on(
        [],
        endpoints.export_adapter,
        gr.Textbox(visible=False, label="run_id"),
        gr.File(visible=False, label="adapter"),
        api_name=ENDPOINTS[-1],
        api_description=inspect.getdoc(endpoints.export_adapter),
        concurrency_limit=None,
        show_progress="hidden",
    )


class Endpoints:
    """The functions behind the API; each takes and gives plain JSON."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._downloads = Downloads()  # each can be fetched for ten minutes
        self._answerers = ThreadPoolExecutor(_ANSWERERS, "lora-lab-answers")
        self._many = TableReaders("texts", _MANY)

    def count_parameters(
        self,
        task: str = "sms-spam",
        base: str = "bundled",
        method: str = "lora",
        rank: int = 8,
        alpha: float = 16.0,
        targets: list[str] = list(EVERY_LAYER),  # noqa: B006 (Gradio shows it; it is never changed)
        scaling: str = "alpha/rank",
        head: str = "train",
        by_module: bool = False,
    ) -> dict[str, Any]:
        """Count what would be trained with these settings, without training anything.

        Args:
            task: name of a bundled task; its number of labels is the size of the head
            base: "bundled", or "gpt2" where the server has it
            method: "lora", "full" or "head"
            rank: r, columns of A and rows of B
            alpha: numerator of the scale
            targets: ends of the names of the layers to adapt; "*": all (head "lora": all linear)
            scaling: "alpha/rank", "alpha" or "alpha/sqrt(rank)"
            head: "train" (in full) or "lora" (frozen, with LoRA on it)
            by_module: also one entry a layer

        Returns:
            trainable, total and percent; scale (alpha over rank, say); adapter_bytes (of its file)
        """
        settings = Settings.read(locals())  # the arguments have the names of the settings
        lora, chosen = settings.lora_config(), settings.train_config().method
        self._check_rank(lora)
        model, labels = self._lab.shape(settings.base), self._task(settings.task).labels
        count = predict_parameters(model, lora, len(labels), chosen)
        answer: dict[str, Any] = {
            "trainable": count.trainable,
            "total": count.total,
            "percent": count.percent,
            "scale": lora.scale,
            "adapter_bytes": (
                adapter_file_bytes(model, lora, len(labels))
                if chosen == "lora"
                else count.trainable_bytes
            ),
        }
        if by_module:
            answer["by_module"] = {
                name: {"trainable": layer.trainable, "frozen": layer.frozen}
                for name, layer in count.by_module.items()
            }
        return answer

    def fine_tune(
        self,
        task: str = "sms-spam",
        base: str = "bundled",
        method: str = "lora",
        rank: int = 8,
        alpha: float = 16.0,
        targets: list[str] = list(EVERY_LAYER),  # noqa: B006 (as above)
        scaling: str = "alpha/rank",
        head: str = "train",
        dropout: float = 0.0,
        learning_rate: float = 0.0,
        steps: int = 0,
        batch_size: int = 16,
        seed: int = 0,
        watch_texts: list[str] = [],  # noqa: B006
        rows: list[list[str]] = [],  # noqa: B006
        visitor: str = "",
    ) -> str:
        """Queue a fine-tuning run and answer at once with its id.

        The id is the key to the run in all other endpoints: keep it to yourself.

        Args:
            task: name of a bundled task; with `rows`, the name of your own. Other rows under a name
                of yours get a number behind it, a bundled task's name gets "my-" before it
            base: "bundled", or "gpt2" where the server has it
            method: "lora", "full" (all weights) or "head" (the last layer only)
            rank: r, columns of A and rows of B
            alpha: numerator of the scale
            targets: ends of the names of the layers to adapt; "*": all (head "lora": all linear)
            scaling: "alpha/rank", "alpha" or "alpha/sqrt(rank)"
            head: "train" (in full) or "lora" (frozen, with LoRA on it)
            dropout: on the input of A, in training only
            learning_rate: the peak; 0 is the measured default of the method
            steps: optimiser steps; 0 is the measured default for so many labels
            batch_size: texts a step
            seed: of the head, A, the order of the texts and dropout
            watch_texts: texts whose probabilities are reported along the run
            rows: your own task as [text, label] pairs; split 70/10/20 by the server
            visitor: a secret of your own, 16 to 200 characters, under which your runs take their
                turns in order; empty: you share turns with all others of your address

        Returns:
            id of the run
        """
        settings = Settings.read(locals())  # the arguments have the names of the settings
        lora, train = settings.lora_config(), settings.train_config()
        self._check_rank(lora)
        watched = [text for text in texts_of(watch_texts, "watch_texts") if text.strip()]
        string("visitor", visitor)
        mine = visitor or new_visitor()
        chosen = (
            self._lab.named(mine, self._own_task(settings.task, rows))
            if rows
            else self._task(settings.task, mine)
        )
        address = address_of_caller(self._lab.behind_proxy)
        run = self._lab.registry.submit(
            mine,
            self._base(settings.base),
            chosen,
            lora,
            train,
            watch_texts=watched,
            own_table=bool(rows),
            share="" if visitor else address,
            address=address,
        )
        return run.id

    async def watch(self, run_id: str, since: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Follow a run from event number `since` (from 0) on, until it is over.

        Each update has the run's state ("waiting", "running", "finished", "stopped", "failed",
        "loaded"), reason (a sentence, or empty), place in the queue (0: running or over),
        estimate_seconds (until it starts or ends; null while unknown), step, the new events, and
        next, the number to go on from after a broken connection, and warnings: what was left out of
        your own rows, or looks odd in them. An event has a kind ("started",
        "evaluated", "step", "watched", "diverged", "finished") and the fields of that kind; one
        "evaluated" of a step that was evaluated before voids what came from there on: another
        machine began the run anew. The last update also has test, lost: a sentence where the
        weights were dropped, or empty, and interrupted: whether `/go_on` can train what is left.

        Args:
            run_id: what `/fine_tune` answered
            since: number of the first event to send

        Returns:
            one update at a time
        """
        run = self._lab.registry.find(run_id)
        number = max(0, whole("since", since))
        last: tuple[Any, ...] | None = None
        address = address_of_caller(self._lab.behind_proxy)
        looking = looks(self._lab.registry.watchers, f"run {run.id}", POLL_SECONDS, address)
        async with aclosing(looking):
            async for _ in looking:
                state = run.state  # before the events, so that none of them is missed
                over = state in ENDED
                events = run.events_since(number)
                number += len(events)
                update = {
                    "state": state,
                    "reason": run.reason,
                    "place": run.place,
                    "estimate_seconds": run.estimate_seconds,
                    "step": run.step,
                    "events": [plain(event) for event in events],
                    "next": number,
                    "warnings": list(run.task.warnings) if run.task else [],
                }
                if over:
                    update["test"] = test_of(run)
                    update["lost"] = run.lost
                    update["interrupted"] = run.interrupted and run.has_weights
                seen = (state, update["place"], number)
                if seen != last or over:
                    last = seen
                    yield update
                if over:
                    return
                self._lab.registry.touch(run)

    def stop(self, run_id: str) -> str:
        """Stop a run at its next step; its best weights stay. A waiting run never starts.

        Args:
            run_id: what `/fine_tune` answered

        Returns:
            state of the run: "running" until its current step has ended
        """
        run = self._lab.registry.find(run_id)
        self._lab.registry.stop(run.visitor, run.id)
        return run.state

    def go_on(self, run_id: str) -> str:
        """Train what is left of a run whose server or worker ended, from its best weights on.

        Args:
            run_id: of a run that `/watch` says was interrupted

        Returns:
            id of the run that takes its place, for `/watch`
        """
        run = self._lab.registry.find(run_id)
        return self._lab.registry.go_on(run.visitor, run.id).id

    def forget(self, run_id: str) -> str:
        """Delete a run for good: its events, its weights, and its table if no other run needs it.

        Args:
            run_id: what `/fine_tune` answered

        Returns:
            "forgotten"
        """
        run = self._lab.registry.find(run_id)
        self._lab.registry.remove(run.visitor, run.id)
        return "forgotten"

    async def classify(
        self, run_id: str, texts: list[str], strength: float = 1.0
    ) -> list[dict[str, Any]]:
        """Classify texts with what a run has learnt.

        Args:
            run_id: what `/fine_tune` answered; the run must be over
            texts: one or more
            strength: of the adapter: 0 is the base, 1 as trained, up to 4 exaggerated

        Returns:
            for each text its label, probabilities by label, tokens read, and whether it was cut
        """
        classifier = self._classifier(run_id)
        listed = texts_of(texts)
        limits = self._lab.registry.limits
        if not listed:
            raise ClassifyError("Send at least one text.")
        if len(listed) > limits.max_texts:
            raise ClassifyError(
                f"{len(listed):,} texts were sent; at most {limits.max_texts:,} a request."
            )
        for one in listed:
            check_text(one)
            limits.check_text(one)
        scale = real("strength", strength)

        def answer(texts: list[str]) -> list[Prediction]:
            parts = (texts[i : i + _TEXTS_AT_ONCE] for i in range(0, len(texts), _TEXTS_AT_ONCE))
            return [one for part in parts for one in classifier.classify_many(part, scale)]

        if sum(map(len, listed)) <= _SHORT:
            loop = asyncio.get_running_loop()
            predictions = await loop.run_in_executor(self._answerers, answer, listed)
        else:  # whoever waits for these holds no thread
            address = address_of_caller(self._lab.behind_proxy)
            predictions = await self._many.run(
                secrets.token_hex(8), lambda: answer(listed), address
            )
        return [
            {
                "label": p.label,
                "probabilities": p.probabilities,
                "tokens": p.tokens,
                "truncated": p.truncated,
            }
            for p in predictions
        ]

    def export_adapter(self, run_id: str) -> str:
        """The adapter of a run in PEFT's format, as a zip archive.

        Args:
            run_id: what `/fine_tune` answered; the run must be over and have used LoRA

        Returns:
            the archive; it can be fetched for ten minutes
        """
        classifier = self._classifier(run_id)
        # nobody moves the head's weights meanwhile
        with self._downloads.making(run_id) as folder, classifier.at_strength(1.0):
            return str(zip_adapter(classifier, folder / "adapter.zip"))

    # Inside ----------------------------------------------------------------------------------

    def _classifier(self, run_id: str) -> Classifier:
        run = self._lab.registry.find(run_id)
        if run.classifier is None:
            if run.lost:
                raise RunError(run.lost)
            raise RunError(
                "This run has nothing to classify with: "
                + ("it failed before its first evaluation." if run.is_over else "it is not over.")
            )
        return run.classifier

    def _base(self, name: str) -> Base:
        return self._lab.base(name)

    def _task(self, name: str, visitor: str = "") -> Task:
        return self._lab.task(name, visitor)

    def _own_task(self, name: str, rows: object) -> Task:
        limits = self._lab.registry.limits
        if name in (*task_names(), COLLECTION):  # or their runs would be compared
            name = own_name(name)
        if not isinstance(rows, list):
            raise TaskError("rows must be a list of [text, label] pairs.")
        limits.check_rows(len(rows))
        pairs: list[tuple[str, str]] = []
        for number, row in enumerate(rows, start=1):
            good = isinstance(row, list) and len(row) == 2
            if not good or not all(isinstance(part, str) and part.strip() for part in row):
                raise TaskError(f"Row {number:,} is not a pair of two texts: [text, label].")
            pairs.append((row[0], row[1]))
        size = sum(len(text) + len(label) for text, label in pairs)
        if size > limits.upload_mb * MEGABYTE:
            raise TaskError(f"These rows are longer than {limits.upload_mb} million characters.")
        table = Table(name, ("text", "label"), tuple(pairs), kind="JSON")
        return task_of(table, "text", "label", limits=limits)

    def _check_rank(self, lora: LoRAConfig) -> None:
        cap = self._lab.registry.limits.max_rank
        if lora.rank > cap:
            raise RunError(f"Rank: {lora.rank:,} is more than this server's {cap:,}.")
