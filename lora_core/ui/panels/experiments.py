"""Experiments: what one run cannot tell. A row of questions, one open at a time.

`assets/page/experiments.js` draws it. Each press is one event that names the question and says what
is wanted; the answer is streamed into the same value until it is complete. What the browser can do
by itself, such as moving the knife along what is known, it does without asking.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.explain.exam import ExperimentError
from lora_core.explain.knife import Knife
from lora_core.explain.knockout import Switchboard
from lora_core.serving.computations import Computation
from lora_core.serving.plans import Plan
from lora_core.serving.registry import RunError
from lora_core.serving.run import Run
from lora_core.ui.addresses import address_of_caller
from lora_core.ui.conclusions import takes_default_steps
from lora_core.ui.context import Context
from lora_core.ui.drawing.answer_figures import Answer, pc
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.experiments import (
    OF_A_RUN,
    QUESTIONS,
    Experiments,
    memorised,
    trained,
    votes,
)
from lora_core.ui.forgetting import forgot, method_of, missing, to_compare
from lora_core.ui.luck import groups, luck, sweep_answer
from lora_core.ui.names import cut_name, long_name, task_of
from lora_core.ui.readers import looks
from lora_core.ui.settings import SEEDS, Settings
from lora_core.ui.sweeps import KINDS, Point, cells_of, points_of
from lora_core.ui.text.catalogue import say
from lora_core.ui.values import record, whole

_POLL = 0.15  # seconds between two looks at what is being computed
_RANKS_OF_A_TEXT = 65  # answers of the knife for the typed text: every rank up to 64


def build(context: Context, experiments: Experiments) -> None:
    """The panel: its heading and the part that the browser draws."""
    heading = f'<div class="step-head"><h2 id="step-experiments">{say("experiments.title")}</h2>'
    lead = f'<p class="lead">{say("experiments.lead")}</p></div>'
    gr.HTML(heading + lead, apply_default_css=False)
    value: Answer = {"questions": [], "answer": None}
    value["questions"] = [{"id": name, "title": say(f"experiments.{name}")} for name in QUESTIONS]
    board = part("experiments", value, script="experiments.js", elem_id="experiment-board")
    side = part("experiment-side", {}, script="experiments.js", elem_id="experiment-side")
    inputs = [context.visitor, context.ready, *context.controls]
    asking: dict[str, str] = {}  # session -> its newest question; an older one ends itself

    async def ask(
        visitor: str, run_id: str, request: gr.Request, *rest: Any
    ) -> AsyncIterator[Answer]:
        *values, sent = rest
        wanted = record(sent)
        session, mine = str(request.session_hash), secrets.token_hex(8)
        asking[session] = mine
        panel = Panel(experiments, visitor, run_id, values)
        looking = looks_of(experiments, visitor)
        try:
            last: Any = None
            look: Look | None = None
            async with aclosing(looking):
                async for _ in looking:
                    if asking.get(session) != mine:
                        return
                    if look is None:
                        look = await asyncio.to_thread(panel.begin, wanted)
                    answer, over = await asyncio.to_thread(look)
                    if answer != last:
                        last = answer
                        yield value | {"answer": answer | {"mark": wanted.get("mark", 0)}}
                    if over:
                        return
        except LabError as error:
            failed = {"question": str(wanted.get("question")), "state": "failed"}
            mark = wanted.get("mark", 0)
            yield value | {"answer": failed | {"sentence": str(error), "mark": mark}}
        finally:
            panel.leave()
            if asking.get(session) == mine:
                del asking[session]

    wanted = gr.JSON(visible="hidden")
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    board.select(
        ask,
        [*inputs, wanted],
        board,
        trigger_mode="multiple",
        js="(...given) => [...given.slice(0, -1), LoraLab.experiment()]",
        **private,
    )

    def aside(visitor: str, run_id: str, *rest: Any) -> Answer:
        *values, sent = rest
        wanted = record(sent)
        try:
            return Panel(experiments, visitor, run_id, values).aside(wanted)
        except LabError as error:
            return {"kind": wanted.get("kind"), "mark": wanted.get("mark"), "problem": str(error)}

    side.select(
        aside,
        [*inputs, wanted],
        side,
        queue=False,
        trigger_mode="always_last",
        js="(...given) => [...given.slice(0, -1), LoraLab.experimentAside()]",
        **private,
    )

    def train_other(visitor: str, run_id: str) -> Answer:
        """Queue the run that the shown one could be compared with."""
        try:
            Panel(experiments, visitor, run_id, []).train_other()
        except LabError as error:
            return {"kind": "trains", "mark": secrets.token_hex(4), "problem": str(error)}
        words = say("experiments.forgot_trains")
        return {"kind": "trains", "mark": secrets.token_hex(4), "words": words}

    # By the side of the questions: whoever asks goes on reading while it trains.
    other = part("experiment-run", {}, script="experiments.js", elem_id="experiment-run")
    pressed = other.select(
        train_other, [context.visitor, context.ready], other, queue=False, **private
    )
    pressed.success(**context.watch)


def build_merging(context: Context, experiments: Experiments) -> None:
    """Beside the checksum of step 4: the largest difference of a logit once merged."""
    line = part("merging", {"sentence": ""}, script="experiments.js", elem_id="merging-check")

    async def check(visitor: str, run_id: str) -> AsyncIterator[Answer]:
        panel = Panel(experiments, visitor, run_id, [])
        looking = looks_of(experiments, visitor)
        try:
            look: Look | None = None
            async with aclosing(looking):
                async for _ in looking:
                    if look is None:
                        look = await asyncio.to_thread(panel.begin, {"question": "merging"})
                    answer, over = await asyncio.to_thread(look)
                    sentence = answer["sentence"] or say("experiments.computing")
                    yield {"run": run_id, "sentence": sentence}
                    if over:
                        return
        except LabError as error:
            yield {"run": run_id, "sentence": str(error)}

    line.select(
        check,
        [context.visitor, context.ready],
        line,
        trigger_mode="multiple",  # another run may be shown before this one is answered
        show_progress="hidden",
        api_visibility="private",
    )


def looks_of(experiments: Experiments, visitor: str) -> AsyncGenerator[None, None]:
    """Looks at what is being computed, as long as somebody reads: a question that waits takes a
    watcher's place, and none of those that answers need."""
    lab = experiments.lab
    address = address_of_caller(lab.behind_proxy)
    return looks(lab.registry.watchers, f"questions of {visitor}", _POLL, address)


# The answer as it is, and whether it is complete. Whether it is over is read first: what ends while
# the answer is put into words is not in it, and nobody would look again.
Look = Callable[[], tuple[Answer, bool]]


class Asked:
    """A computation that is looked at, and begun again where it was dropped meanwhile."""

    def __init__(self, ask: Callable[[], Computation]) -> None:
        self._ask = ask
        self.last = ask()

    def now(self) -> Computation:
        """As it is; whoever looks keeps it going."""
        if self.last.state == "dropped":
            self.last = self._ask()
        self.last.used = time.monotonic()
        return self.last


class Panel:
    """One press of one visitor. Raises `LabError`s, in words."""

    def __init__(
        self, experiments: Experiments, visitor: str, run_id: str, values: Sequence[Any]
    ) -> None:
        self._experiments = experiments
        self._lab = experiments.lab
        self._visitor, self._run_id, self._values = visitor or "", run_id, values
        self._passing: list[Asked] = []

    def begin(self, wanted: Answer) -> Look:
        """What to look at, repeatedly, for a question."""
        question = str(wanted.get("question"))
        if question == "forgot":
            return self._forgot()
        if question in OF_A_RUN and question != "memorised":
            off = [str(name) for name in wanted.get("off") or []]
            return self._about_run(question, off if question == "layers" else [])
        if question == "memorised":
            return self._memorised()
        if question == "luck":
            return self._luck(wanted)
        if question == "rate":
            return self._rate(wanted)
        if question == "vote":
            return self._vote(wanted)
        raise ExperimentError("There is no such question.")

    def aside(self, wanted: Answer) -> Answer:
        """A quick answer beside the open question: the typed text's, or a kept adapter."""
        kind, mark = str(wanted.get("kind")), wanted.get("mark", 0)
        run = self._run()
        text = str(wanted.get("text") or "")
        self._lab.registry.limits.check_text(text)
        if kind == "keep":
            rank = whole("rank", wanted.get("rank") or 0)
            smaller = Knife(trained(run)).keep(rank)
            made = self._lab.registry.add_classifier(
                self._visitor, smaller, run.task, cut_name(run)
            )
            original = trained(run).lora_config
            said = say("experiments.knife_kept", k=rank, r=original.rank if original else rank)
            return {"kind": kind, "mark": mark, "kept": made.id, "words": said}
        if not text.strip():
            return {"kind": kind, "mark": mark, "words": [say("experiments.text_none")]}
        if kind == "knife":
            knife = Knife(trained(run))
            ranks = range(min(knife.rank + 1, _RANKS_OF_A_TEXT))
            return {
                "kind": kind,
                "mark": mark,
                "words": [_says(knife.at(rank).classify(text)) for rank in ranks],
            }
        off = [str(name) for name in wanted.get("off") or []]
        prediction = Switchboard(trained(run)).without(off).classify(text)
        return {"kind": kind, "mark": mark, "words": [_says(prediction)]}

    def train_other(self) -> Run:
        """Queue LoRA or full fine-tuning like the shown run, whichever is missing beside it."""
        run, registry = self._run(), self._lab.registry
        method = missing(run, to_compare(run, registry.runs(self._visitor)))
        if method is None or run.task is None or run.base is None:
            raise ExperimentError(say("experiments.not_trained"))
        settings = replace(Settings.of(run), method=method, learning_rate=0.0)
        if takes_default_steps(run):
            settings = replace(settings, steps=0)
        return registry.submit(
            self._visitor,
            run.base,
            run.task,
            settings.lora_config(),
            settings.train_config(),
            watch_texts=run.watch_texts,
        )

    # Inside ----------------------------------------------------------------------------------

    def _run(self) -> Run:
        """The run that steps 3 and 4 show."""
        try:
            return self._lab.registry.get(self._visitor, self._run_id)
        except RunError as error:
            raise ExperimentError(say("experiments.none")) from error

    def _settings(self) -> Settings:
        return Settings.from_values(*self._values)

    def _about_run(self, question: str, off: Sequence[str]) -> Look:
        run, ask = self._run(), self._experiments
        computation = Asked(lambda: ask.begin(self._visitor, question, run))
        both = [self._in_passing(ask.without, run, parts) for parts in (off, ()) if off]

        def look() -> tuple[Answer, bool]:
            current, *going = (asked.now() for asked in (computation, *both))
            over = all(asked.is_known for asked in (current, *going))
            answer = self._experiments.answer(question, run, current)
            if not going:
                return answer, over
            one, other = going
            answer["off"] = list(off)
            if one.state == other.state == "done":
                (right, rows), (all_on, _) = one.value, other.value
                answer["off_words"] = say(
                    "experiments.layers_off",
                    n=len(off),
                    accuracy=pc(right / rows),
                    rows=rows,
                    whole=pc(all_on / rows),
                )
            return answer, over

        return look

    def _memorised(self) -> Look:
        run = self._run()

        def look() -> tuple[Answer, bool]:
            over = run.is_over
            return memorised(run), over

        return look

    def _forgot(self) -> Look:
        """LoRA and full fine-tuning on one chart, the shown run among them."""
        run, mine, ask = self._run(), self._lab.registry.runs(self._visitor), self._experiments
        compared = to_compare(run, mine)
        lacking = missing(run, compared)
        trains = any(not one.is_over and method_of(one) == lacking for one in mine)
        begun = [(one, Asked(partial(ask.begin, self._visitor, "forgot", one))) for one in compared]

        def look() -> tuple[Answer, bool]:
            going = [(one, asked.now()) for one, asked in begun]
            over = all(asked.is_known for _, asked in going)
            own = next(asked for one, asked in going if one is run)
            answer = self._experiments.answer("forgot", run, own)
            curves = [(one, asked.value) for one, asked in going if asked.value]
            if curves and own.state != "failed":
                answer |= forgot(curves)
            answer |= {"other": lacking, "trains": trains}
            if not over:
                answer["state"] = "waiting"
            return answer, over

        return look

    def _in_passing(self, ask: Callable[..., Computation], *about: Any) -> Asked:
        """What is of no use any more once the same visitor asks the next thing."""
        asked = Asked(partial(ask, self._visitor, *about))
        self._passing.append(asked)
        return asked

    def leave(self) -> None:
        """Nobody looks at this panel any more."""
        for asked in self._passing:
            asked.last.leave()

    def _luck(self, wanted: Answer) -> Look:
        task = self._settings().task
        plan = self._start(wanted) if wanted.get("start") else None

        def look() -> tuple[Answer, bool]:
            registry, plans = self._lab.registry, self._experiments.plans
            mine = plans.of(self._visitor)
            going = plan or next((p for p in mine if p.state == "running"), None)
            over = going is None or going.state != "running"
            shown_groups = groups(task, registry.runs(self._visitor), mine)
            pair = [int(i) for i in wanted.get("pair") or [] if isinstance(i, int)]
            answer = luck(shown_groups, pair)
            if not shown_groups:
                answer["sentence"] = say("experiments.luck_none", task=task)
            answer |= {"seeds": list(SEEDS), "sweep": None}
            if going is not None:
                said = sweep_answer(going)
                answer["sweep"] = {"id": going.id, "progress": said["progress"]}
                answer["sweep"]["running"] = not over
            return answer, over

        return look

    def _rate(self, wanted: Answer) -> Look:
        plans = self._experiments.plans
        if wanted.get("start"):
            self._start(wanted)
        mine = plans.of(self._visitor)
        if wanted.get("stop"):
            for plan in mine:
                plans.stop(plan)
        kind = str(wanted.get("kind") or KINDS[0])
        shown = next((p for p in reversed(mine) if p.kind == kind), None)
        if wanted.get("start"):
            shown = plans.of(self._visitor)[-1]
        settings, limits = self._settings(), self._lab.registry.limits
        shape = self._lab.shape(settings.base)
        labels = len(self._lab.task(settings.task, self._visitor).labels)
        counts = {k: len(points_of(k, settings, limits, shape, labels)) for k in KINDS}
        steps = settings.for_labels(labels, limits).steps
        menu = {
            "kinds": [
                {"id": k, "title": say(f"experiments.sweep_{k}"), "runs": counts[k]} for k in KINDS
            ],
            "seeds": list(SEEDS),
            "about": say("experiments.sweep_of", task=settings.task, steps=steps),
        }

        def look() -> tuple[Answer, bool]:
            running = any(p.state == "running" for p in plans.of(self._visitor))
            if shown is None:
                answer: Answer = {"question": "rate", "state": "none", "sentence": "", "kind": kind}
                return answer | {"menu": menu, "running": running}, True
            over = shown.state != "running"
            return sweep_answer(shown) | {"menu": menu, "running": running}, over

        return look

    def _start(self, wanted: Answer) -> Plan:
        """Begin a sweep around the settings of step 1, or seeds of the shown run."""
        lab, kind = self._lab, str(wanted.get("kind"))
        seeds = whole("seeds", wanted.get("seeds") or 1)
        settings = self._settings()
        if kind == "seeds":
            run = self._run()
            if run.task is None or run.base is None:
                raise ExperimentError(say("experiments.not_trained"))
            settings, task = Settings.of(run), run.task
            lora = settings.method == "lora"
            scale = settings.lora_config().scale if lora else None
            name = long_name(run)
            points = [Point(settings, name, settings.method, settings.learning_rate, scale)]
        else:
            task = lab.task(settings.task, self._visitor)
            limits, shape = lab.registry.limits, lab.shape(settings.base)
            points = points_of(kind, settings, limits, shape, len(task.labels))
        cells = cells_of(points, seeds, settings.seed)
        if kind == "seeds":
            cells = cells[1:]  # the first is the run itself
        plans = self._experiments.plans
        address = address_of_caller(lab.behind_proxy)
        base = lab.base(settings.base)
        return plans.submit(self._visitor, kind, base, task, cells, address=address)

    def _vote(self, wanted: Answer) -> Look:
        task = self._settings().task
        runs = [r for r in self._lab.registry.runs(self._visitor) if r.has_weights]
        fitting = [run for run in runs if task_of(run) == task]
        names = [long_name(run) + _seed(run) for run in fitting]
        known = {run.id: run for run in fitting}
        ticked = [known[i] for i in map(str, wanted.get("ids") or []) if i in known]
        listed = [
            {"id": run.id, "name": name, "on": run in ticked}
            for run, name in zip(fitting, names, strict=True)
        ]
        if len(ticked) < 2:
            said = (
                say("experiments.vote_ask")
                if len(fitting) > 1
                else say("experiments.vote_few" if fitting else "experiments.vote_none", task=task)
            )
            none = {"question": "vote", "state": "none", "sentence": said, "voters": listed}
            return lambda: (none, True)
        asked = self._in_passing(self._experiments.vote, ticked)

        def look() -> tuple[Answer, bool]:
            computation = asked.now()
            over = computation.is_known
            answer = votes(computation) | self._experiments.waits(computation)
            alone = dict(zip((run.id for run in ticked), answer.get("singles", ()), strict=False))
            shown = [
                one | ({"alone": alone[one["id"]]} if one["id"] in alone else {}) for one in listed
            ]
            return answer | {"voters": shown}, over

        return look


def _seed(run: Run) -> str:
    """What tells a voter from others of its setting: its seed, or that it was not trained so."""
    if run.state == "loaded" and run.name:
        return f", {run.name}"
    return f", seed {run.train_config.seed}" if run.train_config else ""


def _says(prediction: Any) -> str:
    p = prediction.probabilities[prediction.label]
    return say("experiments.text_says", label=prediction.label, p=pc(p))
