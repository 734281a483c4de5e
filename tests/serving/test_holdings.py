"""What is kept when memory is short: what goes first, what stays, and who is told."""

from __future__ import annotations

import pytest

import lora_core as lc
from lora_core.limits import Limits, memory_share_mb
from lora_core.serving import worker
from lora_core.serving.clock import AwakeClock
from lora_core.serving.registry import Registry, Run, RunError, new_visitor
from lora_core.serving.watchers import NEVER_READ_SECONDS, UNREAD_SECONDS, Watchers
from lora_core.tasks.task import Example, Task
from tests.serving.registry import LONG, Clock, endless, submit, under_way, wait


def big_table(rows: int = 60) -> Task:
    examples = tuple(Example(f"{'x' * 5000} {i}", i % 2) for i in range(rows))
    return Task("mine", ("a", "b"), examples, examples[:20], examples[:20])


def test_curves_stay_full_weights_go_first_and_each_newest_run_is_spared(tiny, words) -> None:
    clock = Clock()
    with Registry(Limits(memory_mb=14), workers=1, clock=clock) as registry:
        first, sweeper = new_visitor(), new_visitor()
        early = submit(registry, tiny, words, first)
        wait(early)
        swept = []
        for i in range(8):  # about 3.2 MB each
            clock.now += 1
            swept.append(submit(registry, tiny, words, sweeper, method="full", seed=i))
            wait(swept[-1])
        assert registry.runs(first) == [early] and early.has_weights and not early.lost
        assert registry.runs(sweeper) == swept and registry.held_bytes() <= 14_000_000
        assert [run.has_weights for run in swept] == [False] * 4 + [True] * 4
        for run in swept[:4]:
            assert "full fine-tuning" in run.lost and "curves" in run.lost
            assert isinstance(run.events[-2], lc.Evaluated) and run.test_score is not None


def test_a_visitor_is_told_which_table_was_forgotten(tiny, words) -> None:
    clock = Clock()
    with Registry(Limits(memory_mb=1), workers=1, clock=clock) as registry:
        ann = new_visitor()
        for name in ("one", "two", "three"):
            clock.now += 1
            table = big_table()
            registry.add_task(
                ann, Task(name, table.labels, table.train, table.validation, table.test)
            )
        assert [table.name for table in registry.tasks(ann)] == ["three"]
        wait(submit(registry, tiny, words, ann))
        assert [s for s in registry.notices(ann) if "'one'" in s and "room" in s]


def test_tables_of_waiting_runs_count_before_they_are_taken(tiny, gate) -> None:
    with Registry(Limits(memory_mb=2), workers=1) as registry:
        taken = [registry.submit(new_visitor(), tiny, big_table(), lc.LoRAConfig(rank=1),
                 lc.TrainConfig(steps=1), own_table=True) for _ in range(1)]  # fmt: skip
        with pytest.raises(RunError, match="tables of runs that wait or train take"):
            for _ in range(20):
                taken.append(
                    registry.submit(new_visitor(), tiny, big_table(), lc.LoRAConfig(rank=1),
                                    lc.TrainConfig(steps=1), own_table=True)
                )  # fmt: skip
        assert 1 <= len(taken) <= 3
        gate.opened.set()
        wait(*taken)
        registry.submit(
            new_visitor(), tiny, big_table(), lc.LoRAConfig(rank=1), lc.TrainConfig(steps=1),
            own_table=True,
        )  # fmt: skip


def test_who_has_no_token_shares_one_turn_and_hears_an_honest_estimate(tiny, words, gate) -> None:
    config, lora = lc.TrainConfig(steps=3, batch_size=4, evaluations=1), lc.LoRAConfig(rank=2)
    clock = Clock()
    limits = Limits(waiting_a_visitor=10, waiting_in_all=12)
    with Registry(limits, workers=1, clock=clock) as registry:
        first = registry.submit(new_visitor(), tiny, words, lora, config, share="address 1")
        gate.wait_for(1)
        waiting = [
            registry.submit(new_visitor(), tiny, words, lora, config, share="address 1")
            for _ in range(10)
        ]
        with pytest.raises(RunError, match="You have 10 runs waiting"):
            registry.submit(new_visitor(), tiny, words, lora, config, share="address 1")
        ann = submit(registry, tiny, words)
        assert ann.place == 2
        submit(registry, tiny, words)
        clock.now += 600
        gate.step(first, 1)  # of three, in ten minutes
        with pytest.raises(
            RunError, match=r"12 runs are waiting, and the last starts in about 6 h"
        ):
            submit(registry, tiny, words)
        gate.opened.set()
        wait(*waiting, ann)


def test_who_invents_a_visitor_for_every_call_shares_turns_and_places_by_address(
    tiny, words, gate
) -> None:
    config, lora = lc.TrainConfig(steps=3, batch_size=4, evaluations=1), lc.LoRAConfig(rank=2)

    def ask(address: str) -> Run:
        return registry.submit(new_visitor(), tiny, words, lora, config, address=address)

    limits = Limits(waiting_an_address=6, waiting_in_all=10)
    with Registry(limits, workers=1) as registry:
        first = ask("192.0.2.1")
        gate.wait_for(1)
        invented = [ask("192.0.2.1") for _ in range(6)]
        with pytest.raises(RunError, match="6 runs from your address are waiting"):
            ask("192.0.2.1")
        ann = ask("192.0.2.2")
        assert ann.place == 2 and [run.place for run in invented] == [1, 3, 4, 5, 6, 7]
        registry.stop(invented[0].visitor, invented[0].id)
        ask("192.0.2.1")  # there is room again
        gate.opened.set()
        wait(first, ann)


@pytest.mark.parametrize("error", [SystemExit, MemoryError, KeyboardInterrupt])
def test_whatever_is_raised_the_best_weights_stay_and_the_run_ends(
    tiny, words, monkeypatch, caplog, error
) -> None:
    real = worker.fine_tune

    def breaking(base, task, lora_config, train_config, **options):
        for event in real(base, task, lora_config, train_config, **options):
            yield event
            if isinstance(event, lc.Step) and event.step == 5:
                raise error

    with Registry(workers=1) as registry:
        well = submit(registry, tiny, words, steps=4, evaluations=4)
        wait(well)
        monkeypatch.setattr(worker, "fine_tune", breaking)
        broken, again = (submit(registry, tiny, words, steps=6, evaluations=6) for _ in range(2))
        wait(broken, again)
        after = submit(registry, tiny, words, steps=4)
        wait(after)
    assert broken.state == again.state == "failed" and "best weights" in broken.reason
    assert broken.classifier is not None
    assert broken.classifier.classify("win").label in words.labels
    assert isinstance(broken.events[-1], lc.Finished) and broken.events[-1].outcome == "failed"
    assert after.state == "finished"
    logged = [r.getMessage() for r in caplog.records if "broke" in r.getMessage()]
    assert error.__name__ in logged[0] and len(logged) == 2
    assert "broke before" in logged[1] and "\n" not in logged[1]  # told in full once


def test_an_error_of_the_test_score_keeps_the_weights(tiny, words, monkeypatch) -> None:
    def failing(*_):
        raise MemoryError

    monkeypatch.setattr(worker, "score_test", failing)
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words)
        wait(run)
    assert run.state == "failed" and "out of memory" in run.reason and run.has_weights


def test_memory_follows_the_machine(tmp_path) -> None:
    quota = tmp_path / "memory.max"
    quota.write_text("4000000000\n")
    assert memory_share_mb(quota) == 1000
    quota.write_text("100000000\n")
    assert memory_share_mb(quota) == 200
    quota.write_text("max\n")
    assert 200 <= memory_share_mb(quota) == memory_share_mb(tmp_path / "no") <= 32_000


def test_sleep_and_a_jump_of_the_clock_are_not_idleness() -> None:
    now = [5000.0]
    clock = AwakeClock(100.0, lambda: now[0])
    now[0] += 31
    clock.look(30)
    assert clock() == 131
    now[0] += 4 * 3600  # a lid was closed over lunch
    clock.look(30)
    assert clock() == 161


def test_observers_hear_of_every_change_from_a_thread_of_their_own(tiny, words) -> None:
    seen: list[str] = []
    with Registry(workers=1) as registry:
        registry.on_change(lambda run: 1 / 0)
        registry.on_change(lambda run: seen.append(run.id))
        run = submit(registry, tiny, words, steps=4, evaluations=2)
        wait(run)
        other = submit(registry, tiny, words)
        wait(other)
    assert seen.count(run.id) >= 5  # queued, started, three evaluations, ended


def test_a_host_pauses_and_stops_all(tiny, words) -> None:
    with Registry(LONG, workers=1) as registry:
        registry.pause()
        held = [endless(registry, tiny, words) for _ in range(2)]
        assert registry.paused and registry.counts() == {"waiting": 2}
        registry.unpause()
        under_way(held[0])
        assert registry.counts() == {"running": 1, "waiting": 1}
        registry.stop_all("The lesson is over.")
        wait(*held)
        assert [run.reason for run in held] == ["The lesson is over."] * 2


def test_watchers_are_bounded_and_the_oldest_of_who_has_most_gives_way() -> None:
    watchers = Watchers(in_all=6, of_one=3)
    class_ = [watchers.admit(f"v{i}") for i in range(3)]
    tabs = [watchers.admit("many") for _ in range(4)]
    assert [w.ended.is_set() for w in tabs] == [True, False, False, False] and len(watchers) == 6
    watchers.admit("v9")
    assert tabs[1].ended.is_set() and not any(w.ended.is_set() for w in class_)
    watchers.leave(tabs[1])
    for watcher in (*class_, *tabs[2:]):
        watchers.leave(watcher)
        watchers.leave(watcher)
    assert len(watchers) == 1


def test_invented_visitors_of_one_address_take_no_place_of_another() -> None:
    watchers = Watchers(in_all=6, of_one=3)
    ann = watchers.admit("ann", "192.0.2.2")
    invented = [watchers.admit(f"v{i}", "192.0.2.1") for i in range(40)]
    assert not ann.ended.is_set() and len(watchers) == 6
    assert [w.ended.is_set() for w in invented] == [True] * 35 + [False] * 5


def test_a_stream_that_nobody_opened_ends_before_one_with_a_broken_line() -> None:
    watchers = Watchers()
    unopened, broken = watchers.admit("a"), watchers.admit("b")
    assert not broken.gone(False, 1)
    assert not unopened.gone(True, NEVER_READ_SECONDS) and unopened.gone(True, 1)
    assert not broken.gone(True, UNREAD_SECONDS) and broken.gone(True, 1)
