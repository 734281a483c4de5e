"""A run that is begun again elsewhere: reported once where it is the same, anew where it is not."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

import lora_core as lc
from lora_core.devices import choose_device
from lora_core.events import Evaluated, Event, Finished, Started, Step, Watched
from lora_core.serving.bases import Bases
from lora_core.serving.registry import Registry, new_visitor
from lora_core.serving.repetition import Repetition
from lora_core.serving.run import Best, Run
from lora_core.serving.worker import Job, Report, rebuild, train
from lora_core.ui.context import Lab
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.panels.view import View
from tests.serving.registry import same, submit, wait, words_task

STEPS = 20


@pytest.fixture(scope="module")
def job(tiny) -> Job:
    settings = lc.TrainConfig(steps=STEPS, batch_size=4, evaluations=5)
    lora = lc.LoRAConfig(rank=2)
    return Job("run", tiny, words_task(), lora, settings, ("win",), device=choose_device())


def reports_of(job: Job) -> list[Report]:
    reports: list[Report] = []
    train(job, reports.append, lambda: False)
    return reports


@pytest.fixture(scope="module")
def first(job) -> list[Report]:
    return reports_of(job)


@pytest.fixture(scope="module")
def elsewhere(first) -> list[Report]:
    """The same run on a processor that adds in another order: its losses differ a little."""
    return [
        replace(item, loss=item.loss * 1.0001) if isinstance(item, Step) and item.step > 3 else item
        for item in first
    ]


def events_of(reports: list[Report]) -> list[Event]:
    return [item for item in reports if not isinstance(item, Best)]


def until_step(reports: list[Report], step: int) -> list[Report]:
    """What a worker had said when it was lost after this step."""
    at = next(n for n, e in enumerate(reports) if isinstance(e, Step) and e.step == step)
    return reports[: at + 1]


def run_of(job: Job, reports: list[Report]) -> Run:
    run = Run("run", "visitor", "", job.base, job.task, job.lora_config, job.train_config)
    run.events = events_of(reports)
    return run


def steps_of(events: list[Event]) -> list[int]:
    return [e.step for e in events if isinstance(e, Step)]


def test_the_same_run_is_reported_once(job, first) -> None:
    told: list[Report] = []
    repetition = Repetition(job, told.append, lambda: False)
    for reports in (until_step(first, 14), until_step(reports_of(job), 9), reports_of(job)):
        for item in reports:
            repetition(item)
    assert steps_of(events_of(told)) == list(range(1, STEPS + 1))
    assert [type(e) for e in events_of(told)] == [type(e) for e in events_of(first)]
    assert repetition.progress.step == STEPS


@pytest.mark.parametrize("lost_after", [3, 4, 14, STEPS])
def test_another_run_is_reported_anew(job, first, elsewhere, lost_after) -> None:
    told: list[Report] = []
    repetition = Repetition(job, told.append, lambda: False)
    before = until_step(first, lost_after)
    for item in [*before, *elsewhere]:
        repetition(item)
    events, run = events_of(told), run_of(job, told)
    assert steps_of(run.curve()) == list(range(1, STEPS + 1))
    if lost_after < 4:  # nobody can have seen a difference
        assert len(events) == len(events_of(first))
        return
    assert events[: len(events_of(before))] == events_of(before), "what was said stays said"
    anew = events[len(events_of(before)) :]
    assert anew == events_of(elsewhere) and isinstance(anew[0], Started)
    assert [e for e in run.curve() if isinstance(e, Step | Evaluated | Watched)] == anew[1:]
    curve, fresh = Curve(), Curve()
    curve.feed(events)
    fresh.feed(events_of(elsewhere))
    assert curve.data() == fresh.data() and curve.step == fresh.step
    # An evaluation that keeps weights finds them: those of this run, not of the one before.
    best = None
    for item in told[len(before) :]:
        best = item if isinstance(item, Best) else best
        assert not (isinstance(item, Evaluated) and item.best) or best is not None


def test_a_continued_run_has_all_of_its_curve(job, first) -> None:
    best = [e for e in first if isinstance(e, Best)][1]
    assert 0 < best.step < STEPS - 2
    earlier = [e for e in until_step(first, best.step) if not isinstance(e, Best)]
    told: list[Report] = [*earlier]
    repetition = Repetition(replace(job, resume=best), told.append, lambda: False)
    rest = reports_of(replace(job, resume=best))
    for item in [*until_step(rest, best.step + 2), *rest]:
        repetition(item)
    run = run_of(job, told)
    assert steps_of(run.curve()) == steps_of(run.events) == list(range(1, STEPS + 1))


def test_a_stop_while_it_repeats_keeps_what_was_reported(job, first) -> None:
    told: list[Report] = []
    stopped = threading.Event()
    repetition = Repetition(job, told.append, stopped.is_set)
    for item in until_step(first, 14):
        repetition(item)
    best = next(e for e in reversed(told) if isinstance(e, Best))
    assert best.step > 0
    before = list(told)

    def repeat(item: Report) -> None:
        repetition(item)
        if isinstance(item, Step) and item.step == 2:
            stopped.set()

    outcome = repetition.outcome(train(job, repeat, stopped.is_set))
    assert told == before
    for ended in (outcome, repetition.stopped()):
        assert ended.state == "stopped" and ended.finished is not None
        assert (ended.finished.outcome, ended.finished.step) == ("stopped", 14)
        assert ended.finished.best_step == best.step
        kept = ended.finished.classifier.model
        wanted = rebuild(job, best.weights, {}).model
        assert same(dict(kept.named_parameters()), dict(wanted.named_parameters()))


def test_a_stop_before_anything_was_reported_has_no_weights(job) -> None:
    assert Repetition(job, lambda _: None, lambda: True).stopped().finished is None


def test_a_followed_text_is_drawn_anew(tiny, words) -> None:
    visitor = new_visitor()
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words, visitor, watch=["win"], steps=STEPS)
        wait(run)
        view = View(Lab(registry, Bases(held={"bundled": tiny})), visitor)
        once = view.update()
        run.events += [event for event in run.events if not isinstance(event, Finished)]
        twice = view.update()
    assert once is not None and twice is not None
    assert once[3]["steps"][0] == 0 and once[3]["steps"][-1] == STEPS
    assert twice[3]["steps"] == sorted(twice[3]["steps"])
