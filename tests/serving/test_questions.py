"""Plans and computations: fair, bounded, dropped when nobody looks."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import weakref
from dataclasses import replace

import pytest

import lora_core as lc
from lora_core.limits import Limits, RunError
from lora_core.serving import computations
from lora_core.serving.computations import Computations
from lora_core.serving.plans import Cell, Plan, Plans
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui.context import Lab
from lora_core.ui.panels.finetune import queue_runs
from lora_core.ui.settings import Settings

from .registry import ENDLESS, LONG, WAIT, Gate, submit, until, wait


def cells(ranks, seeds=1, steps=3) -> list[Cell]:
    return [
        Cell(
            (rank, seed),
            lc.LoRAConfig(rank=rank),
            lc.TrainConfig(steps=steps, batch_size=4, seed=seed),
        )
        for rank in ranks
        for seed in range(seeds)
    ]


def test_a_plan_ends_with_a_figure_each(tiny: lc.Base, words: lc.Task) -> None:
    visitor = new_visitor()
    with Registry(workers=2) as registry:
        plans = Plans(registry)
        plan = plans.submit(visitor, "ranks", tiny, words, cells([1, 2, 4], seeds=2))
        until(lambda: plan.state != "running")
        assert plan.state == "done" and plan.done == 6 and plan.seconds_left() is None
        for cell, result in zip(plan.cells, plan.results, strict=True):
            assert result is not None and result.state == "finished"
            assert result.rows == len(words.test) and result.trainable
            # The same as a run of the visitor's own.
            own = registry.submit(visitor, tiny, words, cell.lora_config, cell.train_config)
            wait(own)
            assert own.test_score and own.test_score.accuracy == result.test
        assert not registry.counts().keys() - {"finished"}
        assert len(registry.runs(visitor)) == 6, "only the visitor's own; a plan keeps none"
        assert plans.find(plan.id) is plan and plans.of(new_visitor()) == []


def test_a_plan_that_is_over_holds_no_table_and_few_are_kept(
    tiny: lc.Base, words: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can be a new visitor, with a table of 20 MB each time."""
    monkeypatch.setattr("lora_core.serving.plans.KEPT_IN_ALL", 3)
    with Registry(workers=1) as registry:
        plans = Plans(registry)
        made: list[str] = []
        for _ in range(6):
            table = replace(words, name="own")
            held = weakref.ref(table)
            plan = plans.submit(new_visitor(), "ranks", tiny, table, cells([1]))
            made.append(plan.id)
            until(lambda plan=plan: plan.state != "running")
            for run in registry.runs(plan.visitor):
                registry.remove(plan.visitor, run.id)
            del table
            gc.collect()
            assert plan.state == "done" and plan.task_name == "own" and held() is None
        for forgotten in made[:2]:  # three that are over are kept, and the newest
            with pytest.raises(RunError, match="forgotten"):
                plans.find(forgotten)
        assert plans.find(made[-1]) is plan


def test_a_plan_starves_nobody(
    tiny: lc.Base, words: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Registry(LONG, workers=1) as registry:
        plans = Plans(registry)
        made = [*cells([1]), *cells(range(1, 9), seeds=5, steps=ENDLESS)]
        plan = plans.submit(new_visitor(), "ranks", tiny, words, made)
        gate.wait_for(1)
        own, other = (submit(registry, tiny, words, v) for v in (plan.visitor, new_visitor()))
        assert (own.place, other.place) == (1, 2), "forty runs of a plan wait elsewhere"
        gate.opened.set()
        wait(own, other)
        until(lambda: plan.done == 1)  # its first run ended before theirs began
        plans.stop(plan)
        plans.stop(plan)
        assert plan.state == "stopped" and not plan.running


def test_stopped_and_done_plans_stay_as_they_are(tiny: lc.Base, words: lc.Task) -> None:
    with Registry(workers=1) as registry:
        plans = Plans(registry)
        visitor = new_visitor()
        made: list[Plan] = []
        for _ in range(6):
            made.append(plans.submit(visitor, "ranks", tiny, words, cells([1])))
            until(lambda: made[-1].state == "done")
        assert plans.of(visitor) == made[-4:]
        with pytest.raises(RunError, match="not here"):
            plans.find(made[0].id)
        plans.stop(made[-1])
        assert made[-1].state == "done"


def test_refused_in_words(tiny: lc.Base, words: lc.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with Registry(Limits(max_rank=8), workers=1) as registry:
        plans = Plans(registry)
        visitor = new_visitor()
        with pytest.raises(RunError, match="Rank: 16 is more"):
            plans.submit(visitor, "ranks", tiny, words, cells([1, 16]))
        with pytest.raises(RunError, match="81 runs"):
            plans.submit(visitor, "ranks", tiny, words, cells([1], seeds=81))
        with pytest.raises(RunError, match="0 runs"):
            plans.submit(visitor, "ranks", tiny, words, [])
        assert plans.of(visitor) == []
        plan = plans.submit(visitor, "ranks", tiny, words, cells([1, 2]))
        with pytest.raises(RunError, match="Another sweep"):
            plans.submit(visitor, "ranks", tiny, words, cells([1]))
        gate.opened.set()
        plans.stop(plan)


def test_the_end_of_the_server_ends_a_plan(tiny: lc.Base, words: lc.Task) -> None:
    with Registry(workers=1) as registry:
        plans = Plans(registry)
        plan = plans.submit(new_visitor(), "ranks", tiny, words, cells(range(1, 9), seeds=5))
    until(lambda: plan.state != "running")
    assert plan.state == "stopped" and "ending" in plan.reason


# Computations -------------------------------------------------------------------------------------


class Thing:
    """What questions are about."""


def counting(stop: int, log: list[str] | None = None, name: str = ""):
    for i in range(stop):
        if log is not None:
            log.append(name)
        yield i
    return "end"


def test_values_grow_and_are_kept() -> None:
    asked = Computations()
    thing, begun = Thing(), []

    def make():
        begun.append(1)
        return counting(5)

    for _ in range(3):
        computation = asked.ask("me", thing, "count", make)
        until(lambda computation=computation: computation.is_over)
        assert (computation.state, computation.value) == ("done", "end")
    assert begun == [1]


def test_nothing_is_computed_once_it_is_closed() -> None:
    asked, thing, made = Computations(), Thing(), []

    def make():
        made.append(1)
        yield from itertools.count()

    begun = asked.ask("me", thing, "endless", make)
    until(lambda: begun.changes > 3)
    asked.close()
    changes = begun.changes
    with pytest.raises(RunError, match="ending"):
        asked.ask("me", thing, "another", make)
    assert begun.changes == changes and made == [1]


def test_visitors_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computations, "SLICE", 0.0)  # a slice is then one value
    asked, thing, log = Computations(), Thing(), []
    gate = threading.Event()

    def held(name):
        def make():
            assert gate.wait(WAIT)
            return counting(20, log, name)

        return make

    long = [asked.ask("one", thing, ("long", i), held("one")) for i in range(4)]
    short = asked.ask("two", thing, "short", held("two"))
    gate.set()
    until(lambda: short.is_over and all(c.is_over for c in long))
    last = max(i for i, name in enumerate(log) if name == "two")
    assert log[:last].count("one") <= 25, "four long questions hold up another by one turn each"


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own there")
def test_questions_give_way_to_training() -> None:
    asked, nice = Computations(), []

    def make():
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return counting(1)

    found = asked.ask("me", Thing(), "how nice", make)
    until(lambda: found.is_over)
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert nice == [min(19, usual + computations.NICENESS)]


@pytest.mark.parametrize(
    ("running", "cores", "share"), [(0, 2, 1.0), (1, 2, 1.0), (2, 2, 0.1), (9, 2, 0.1), (64, 64, 1)]
)
def test_how_much_questions_take(running: int, cores: int, share: float) -> None:
    assert computations.share_of_core(running, cores) == pytest.approx(share)


class Watch:
    """A clock that is set by whoever sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_questions_rest_while_others_train() -> None:
    watch = Watch()
    computations.rest(0.06, lambda: 0.1, lambda: watch.now, watch.sleep)
    assert watch.now == pytest.approx(0.54), "0.06 of 0.6 seconds"
    computations.rest(0.06, lambda: 1.0, lambda: watch.now, watch.sleep)
    assert watch.now == pytest.approx(0.54), "a core is free"
    # A core that becomes free ends the rest, within a tenth of a second.
    watch = Watch()
    share = lambda: 0.1 if watch.now < 3 else 1.0  # noqa: E731
    computations.rest(50.0, share, lambda: watch.now, watch.sleep)
    assert watch.now == pytest.approx(3.0, abs=computations._LOOK)


def test_one_turn_each_while_others_train() -> None:
    """A slice is shorter then, too; and whoever reads an answer need not wait for the rest."""
    share = [1e-9]
    asked, log = Computations(lambda: share[0]), []
    one = asked.ask("one", Thing(), "a", lambda: counting(2, log, "one"))
    until(lambda: one.changes == 1)
    two = asked.ask("two", Thing(), "b", lambda: counting(2, log, "two"))
    assert log == ["one"] and not two.changes, "it rests for years"
    share[0] = 1.0
    until(lambda: one.is_over and two.is_over)


def test_many_seeds_of_one_visitor_starve_nobody(
    tiny: lc.Base, words: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seeds of one press wait in one line: another's run is the next but one at the latest."""
    gate = Gate(monkeypatch)
    with Registry(workers=1) as registry:
        lab = Lab(registry)
        lab.tasks[words.name] = words
        monkeypatch.setattr(lab.bases, "get", lambda name: tiny)
        pressed = Settings(task=words.name, rank=2, steps=2, batch_size=4, seeds=5)
        many, one = new_visitor(), new_visitor()
        queue_runs(lab, many, (), pressed.each_seed())
        gate.wait_for(1)
        other = submit(registry, tiny, words, one)
        assert other.place <= 2, "four seeds of somebody else stand behind it"
        gate.opened.set()
        wait(other, *registry.runs(many))
        ended = sorted([other, *registry.runs(many)], key=lambda run: run.started or 0.0)
        assert ended.index(other) <= 2
        assert [run.train_config.seed for run in ended if run is not other] == [0, 1, 2, 3, 4]


def test_bounded_and_failing_in_words() -> None:
    asked, thing = Computations(), Thing()
    gate = threading.Event()

    def stuck():
        assert gate.wait(WAIT)
        return counting(1)

    mine = [asked.ask("me", thing, i, stuck) for i in range(computations.OF_A_VISITOR)]
    with pytest.raises(RunError, match="Too many questions"):
        asked.ask("me", thing, "one more", stuck)
    assert asked.ask("me", thing, 0, stuck) is mine[0], "asked again is not asked anew"

    def broken():
        raise RunError("No such thing.")
        yield

    other = asked.ask("other", thing, "broken", broken)
    gate.set()
    until(lambda: other.is_over and all(c.is_over for c in mine))
    assert (other.state, other.reason) == ("failed", "No such thing.")
    assert asked.ask("other", thing, "broken", lambda: counting(1)) is not other


def test_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computations, "ABANDONED", -1.0)
    asked, thing = Computations(), Thing()
    computation = asked.ask("me", thing, "count", lambda: counting(10**9))
    until(lambda: computation.is_over)
    assert computation.state == "dropped"


def test_whoever_leaves_may_ask_the_next() -> None:
    """Eight boxes ticked in a row: seven answers of no use any more are not too many."""
    asked, thing = Computations(), Thing()
    gate = threading.Event()

    def stuck():
        assert gate.wait(WAIT)
        return counting(10**9)

    left = [asked.ask("me", thing, i, stuck) for i in range(computations.OF_A_VISITOR)]
    for one in left:
        one.leave()
    newest = asked.ask("me", thing, "newest", lambda: counting(3))
    gate.set()
    until(lambda: newest.state == "done" and all(one.is_over for one in left))
    assert [one.state for one in left].count("dropped") >= len(left) - 1, "one may be under way"
    assert not any(one.is_known for one in left)


def test_answers_about_one_thing_are_not_kept_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computations, "KEPT", 3)
    asked, thing = Computations(), Thing()
    made = []
    for i in range(6):
        made.append(asked.ask("me", thing, i, lambda: counting(1)))
        until(lambda: made[-1].is_over)
    assert asked.ask("me", thing, 5, lambda: counting(1)) is made[5]
    assert asked.ask("me", thing, 0, lambda: counting(1)) is not made[0]
    assert len(asked._known[thing]) <= 4


def test_a_forgotten_run_takes_its_answers_along() -> None:
    asked, thing = Computations(), Thing()
    gone = weakref.ref(thing)
    computation = asked.ask("me", thing, "count", lambda thing=thing: counting(3))
    until(lambda: computation.is_over)
    del thing
    until(lambda: gc.collect() is not None and gone() is None)
