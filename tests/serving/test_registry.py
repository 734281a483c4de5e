"""Many visitors: turns, results, isolation, stopping, failing, the end of the server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.fast.engine import FastEngine
from lora_core.limits import Limits
from lora_core.serving import worker
from lora_core.serving.executors import available_cores
from lora_core.serving.fair_queue import Rounds, Turns
from lora_core.serving.registry import NOT_HERE, Registry, RunError, new_visitor
from lora_core.tasks.task import Example, Task
from tests.servers import Server
from tests.serving.registry import (
    ENDLESS,
    LONG,
    Clock,
    adapter,
    endless,
    same,
    submit,
    under_way,
    wait,
)

# Turns -----------------------------------------------------------------------------------------


def test_visitors_take_turns_and_their_own_items_keep_their_order() -> None:
    turns: Turns[str] = Turns()
    for i in range(4):
        turns.add("sweeper", f"s{i}")
    turns.add("ann", "a0")
    turns.add("bob", "b0")
    turns.add("ann", "a1")
    expected = ["s0", "a0", "b0", "s1", "a1", "s2", "s3"]
    assert turns.order() == expected
    assert [turns.take() for _ in range(8)] == [*expected, None]
    assert len(turns) == 0


def test_who_comes_back_cannot_be_overtaken_without_end() -> None:
    turns: Turns[str] = Turns()
    turns.add("ann", "a0")
    turns.add("ann", "a1")
    assert turns.take() == "a0"
    for i in range(50):  # a new visitor each time; ann waits for those before her only
        turns.add(f"new{i}", f"n{i}")
    assert turns.take() == "a1"


def test_discarded_items_are_never_taken() -> None:
    turns: Turns[str] = Turns()
    for i in range(3):
        turns.add("ann", f"a{i}")
    turns.add("bob", "b0")
    assert turns.discard("ann", "a0") and turns.discard("bob", "b0")
    assert not turns.discard("bob", "b0") and not turns.discard("ann", "a9")
    assert turns.order() == ["a1", "a2"] and turns.waiting("ann") == 2 and turns.waiting("bob") == 0


def test_addresses_take_turns_and_so_do_the_visitors_of_each() -> None:
    rounds: Rounds[str] = Rounds()
    for i in range(4):  # a new visitor for every call
        rounds.add("here", f"invented {i}", f"i{i}")
    rounds.add("there", "ann", "a0")
    rounds.add("there", "bob", "b0")
    rounds.add("there", "ann", "a1")
    expected = ["i0", "a0", "i1", "b0", "i2", "a1", "i3"]
    assert rounds.order() == expected and rounds.waiting_at("here") == 4
    assert [rounds.take() for _ in range(8)] == [*expected, None]
    assert len(rounds) == 0 and rounds.waiting_at("here") == 0
    rounds.add("here", "ann", "a2")
    assert rounds.waiting("ann") == 1 and not rounds.discard("there", "ann", "a2")
    assert rounds.discard("here", "ann", "a2") and rounds.order() == []


def test_a_sweep_holds_up_others_by_one_run_each(tiny, words, gate) -> None:
    with Registry(workers=1) as registry:
        sweeper, others = new_visitor(), [new_visitor() for _ in range(3)]
        sweep = [submit(registry, tiny, words, sweeper, seed=i) for i in range(5)]
        gate.wait_for(1)
        single = [submit(registry, tiny, words, other) for other in others]
        assert [run.place for run in (sweep[1], *single, sweep[2])] == [1, 2, 3, 4, 5]
        gate.opened.set()
        wait(*sweep, *single)
        order = [sweep[0], sweep[1], *single, *sweep[2:]]
        assert gate.started == [run.id for run in order]
        assert all(run.place == 0 for run in order)


def test_as_many_runs_train_at_once_as_there_are_workers(tiny, words, gate) -> None:
    with Registry(workers=3) as registry:
        submitted = [submit(registry, tiny, words) for _ in range(5)]
        gate.wait_for(3)
        assert [run.state for run in submitted] == ["running"] * 3 + ["waiting"] * 2
        assert registry.counts() == {"running": 3, "waiting": 2}
        gate.opened.set()
        wait(*submitted)


def test_workers_compute_with_one_thread_whatever_the_process_uses() -> None:
    script = (
        "import threading, torch\n"
        "import tests.serving.registry as t\n"
        "from lora_core.serving import executors\n"
        "from lora_core.serving.registry import Registry\n"
        "from lora_core.serving.worker import Outcome\n"
        "both, counts = threading.Barrier(2), []\n"
        "def train(*_):\n"
        "    both.wait()\n"
        "    counts.append(torch.get_num_threads())\n"
        "    return Outcome('finished')\n"
        "executors.train = train\n"
        "tiny, words = t.tiny_base(), t.words_task()\n"
        "with Registry(workers=2) as registry:\n"
        "    for _ in range(2):\n"
        "        torch.set_num_threads(4)\n"
        "        t.wait(*[t.submit(registry, tiny, words) for _ in range(2)])\n"
        "        print(counts[-2:])\n"
    )
    root = Path(lc.__file__).parent.parent
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.stdout.split("\n")[:2] == ["[1, 1]", "[1, 1]"], done.stderr


def test_cores_follow_a_containers_quota(tmp_path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("max 100000\n")
    assert available_cores(quota) == available_cores(tmp_path / "missing") >= 1


# Results ---------------------------------------------------------------------------------------


def test_adapters_under_load_are_bit_for_bit_what_they_are_alone(tiny, words) -> None:
    wanted = [
        {"rank": 1 + i % 3, "seed": i, "method": method}
        for i, method in enumerate(["lora", "lora", "lora", "head", "full", "lora"])
    ]
    digest = tiny.digest()
    with Registry(workers=1) as registry:
        alone = []
        for settings in wanted:
            run = submit(registry, tiny, words, **settings)
            wait(run)
            alone.append(adapter(run))
    with Registry(workers=4) as registry:
        loaded = [submit(registry, tiny, words, **settings) for settings in wanted * 3]
        wait(*loaded)
        for i, run in enumerate(loaded):
            assert run.state == "finished", run
            assert same(adapter(run), alone[i % len(wanted)])
    assert not same(alone[0], alone[3])
    assert tiny.digest() == digest


def test_a_finished_run_has_all_events_and_a_test_score(tiny, words) -> None:
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words, steps=6, watch=["win cash now"])
        wait(run)
    assert [e.step for e in run.events if isinstance(e, lc.Step)] == list(range(1, 7))
    assert isinstance(run.events[0], lc.Started) and isinstance(run.events[-1], lc.Finished)
    assert any(isinstance(e, lc.Watched) for e in run.events)
    assert run.events_since(3) == run.events[3:] and run.events_since(-5) == run.events
    assert run.events_since(10_000) == []
    score, classifier = run.test_score, run.classifier
    assert score is not None and classifier is not None
    said = [classifier.classify(row.text).label for row in words.test]
    right = sum(
        label == words.labels[row.label] for label, row in zip(said, words.test, strict=True)
    )
    assert score.accuracy == right / len(words.test) and score.rows == len(words.test)
    assert sum(map(sum, score.confusion)) == score.rows
    assert sum(score.confusion[i][i] for i in range(2)) == right


def test_estimates_come_from_measured_steps_only(tiny, words, gate) -> None:
    clock = Clock()
    with Registry(workers=1, clock=clock) as registry:
        first = submit(registry, tiny, words)
        gate.wait_for(1)
        second, third = (submit(registry, tiny, words, steps=6) for _ in range(2))
        assert first.estimate_seconds is None and second.estimate_seconds is None
        clock.now += 10
        gate.step(first, 1)  # of 3, in 10 seconds
        assert first.estimate_seconds == pytest.approx(20)
        assert second.estimate_seconds == pytest.approx(20)
        assert third.estimate_seconds == pytest.approx(20 + 60)
        gate.opened.set()
        wait(first, second, third)
        assert third.estimate_seconds is None


# Isolation -------------------------------------------------------------------------------------


def test_foreign_guessed_and_forgotten_ids_are_refused_with_one_sentence(tiny, words) -> None:
    clock = Clock()
    with Registry(Limits(idle_minutes=1), workers=1, clock=clock) as registry:
        ann, bob = new_visitor(), new_visitor()
        run = submit(registry, tiny, words, ann)
        wait(run)
        assert registry.get(ann, run.id) is run and registry.find(run.id) is run
        strange = [bob, "", None, 7, run.id, [ann]]
        for visitor in strange:
            for call in (registry.get, registry.stop, registry.remove):
                with pytest.raises(RunError, match=NOT_HERE):
                    call(visitor, run.id)
        for guess in ("", "0", run.id[:-1], run.id + "A", run.id.lower() + "x", None, 3, {}, []):
            with pytest.raises(RunError, match=NOT_HERE):
                registry.get(ann, guess)
            with pytest.raises(RunError, match=NOT_HERE):
                registry.find(guess)
        assert registry.runs(bob) == [] and registry.runs(ann) == [run]
        clock.now += 61
        registry.sweep()
        with pytest.raises(RunError, match=NOT_HERE):
            registry.get(ann, run.id)
        assert registry.runs(ann) == []


def test_a_table_is_its_visitors_own(words) -> None:
    with Registry(workers=1) as registry:
        ann, bob = new_visitor(), new_visitor()
        registry.add_task(ann, words)
        assert registry.task(ann, "words") is words and registry.tasks(ann) == [words]
        assert registry.task(bob, "words") is None and registry.tasks(bob) == []
        assert registry.task("", "words") is None


def test_ids_and_tokens_have_128_bits_and_more(tiny, words, gate) -> None:
    assert len({new_visitor() for _ in range(1000)}) == 1000 and len(new_visitor()) >= 43
    with Registry(workers=1) as registry:
        submitted = [submit(registry, tiny, words) for _ in range(20)]
        assert len({run.id for run in submitted}) == 20
        assert all(len(run.id) >= 22 for run in submitted)
        assert not any(run.id in repr(run) or run.visitor in repr(run) for run in submitted)
        gate.opened.set()
        wait(*submitted)


def test_log_lines_name_no_text_no_table_and_no_whole_id(tiny, caplog) -> None:
    secret = "my private sentence"
    rows = tuple(Example(f"{secret} {i}", i % 2) for i in range(12))
    mine = Task(f"{secret}.csv", (secret, "other"), rows, rows[:4], rows[:4])
    with (
        caplog.at_level(logging.INFO, "lora_core.serving.registry"),
        Registry(workers=1) as registry,
    ):
        visitor = new_visitor()
        registry.add_task(visitor, mine)
        config = lc.TrainConfig(steps=2, evaluations=1)
        run = registry.submit(
            visitor, tiny, mine, lc.LoRAConfig(), config, watch_texts=[secret], name=secret
        )
        wait(run)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "finished" in lines[0] and "own table" in lines[0] and "rank 8" in lines[0]
    assert run.id[:6] in lines[0]
    for hidden in (secret, run.id, visitor):
        assert hidden not in lines[0]


# Stopping and failing --------------------------------------------------------------------------


def test_stop_ends_at_the_next_step_keeps_weights_and_frees_the_worker(tiny, words) -> None:
    with Registry(LONG, workers=1) as registry:
        long = endless(registry, tiny, words)
        following = submit(registry, tiny, words)
        under_way(long)
        registry.stop(long.visitor, long.id)
        registry.stop(long.visitor, long.id)  # again: nothing happens
        wait(long, following)
        assert long.state == "stopped" and "stopped" in long.reason
        assert long.step < ENDLESS and following.state == "finished"
        assert isinstance(long.events[-1], lc.Finished) and long.events[-1].outcome == "stopped"
        assert long.classifier is not None and long.classifier.classify("win").label in words.labels
        registry.stop(long.visitor, long.id)
        assert long.state == "stopped"


def test_a_stopped_waiting_run_never_starts(tiny, words, gate) -> None:
    with Registry(workers=1) as registry:
        first, waiting, last = (submit(registry, tiny, words) for _ in range(3))
        gate.wait_for(1)
        registry.stop(waiting.visitor, waiting.id)
        assert waiting.state == "stopped" and waiting.place == 0 and last.place == 1
        gate.opened.set()
        wait(first, last)
        assert gate.started == [first.id, last.id] and waiting.events == []


def test_a_removed_run_stops_and_is_gone(tiny, words, gate) -> None:
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words, steps=500)
        gate.wait_for(1)
        registry.remove(run.visitor, run.id)
        wait(run)
        assert run.state == "stopped" and registry.runs(run.visitor) == []


def test_a_run_that_diverges_says_why_and_keeps_its_best_weights(tiny, words) -> None:
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words, steps=200, learning_rate=10.0, method="full")
        wait(run)
    assert run.state == "failed" and "learning rate" in run.reason
    assert run.classifier is not None and run.classifier.classify("win").label in words.labels


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: secret"), "out of memory"),
        (KeyError("secret"), "server's log"),
        (lc.ConfigError("A sentence."), "A sentence."),
    ],
)
def test_a_broken_run_takes_nothing_else_with_it(
    tiny, words, monkeypatch, caplog, error, said
) -> None:
    real = worker.fine_tune

    def sometimes(base, task, lora_config, train_config, **options):
        if train_config.seed == 13:
            yield next(iter(real(base, task, lora_config, train_config, **options)))
            raise error
        yield from real(base, task, lora_config, train_config, **options)

    monkeypatch.setattr(worker, "fine_tune", sometimes)
    with Registry(workers=1) as registry:
        broken = submit(registry, tiny, words, seed=13)
        well = submit(registry, tiny, words, seed=1)
        wait(broken, well)
    assert broken.state == "failed" and said in broken.reason and "secret" not in broken.reason
    assert broken.classifier is None and well.state == "finished"
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "broke" in logged and "secret" not in logged


@pytest.mark.parametrize("where", ["a step", "the test"])
def test_a_run_that_breaks_after_an_evaluation_keeps_its_best_weights(
    tiny, words, monkeypatch, caplog, where
) -> None:
    error = RuntimeError("can't allocate memory: secret")
    if where == "a step":
        step = FastEngine.step

        def eighth(self, batch, rate):
            eighth.steps += 1
            if eighth.steps == 8:
                raise error
            return step(self, batch, rate)

        eighth.steps = 0
        monkeypatch.setattr(FastEngine, "step", eighth)
    else:

        def too_large(model, ids):
            raise error

        monkeypatch.setattr(worker, "batched_logits", too_large)
    with Registry(workers=1) as registry:
        run = submit(registry, tiny, words, steps=9, evaluations=3)
        wait(run)
    assert run.state == "failed" and "out of memory" in run.reason and "kept" in run.reason
    assert "secret" not in run.reason + caplog.text and "broke" in caplog.text
    finished = run.events[-1]
    assert isinstance(finished, lc.Finished)
    assert finished.outcome == ("failed" if where == "a step" else "completed")
    assert run.classifier is not None and run.test_score is None
    assert run.classifier.classify("win").label in words.labels


# The end ---------------------------------------------------------------------------------------


def test_close_ends_runs_at_a_step_and_tells_everybody(tiny, words) -> None:
    registry = Registry(LONG, workers=1)
    running = endless(registry, tiny, words)
    waiting = submit(registry, tiny, words)
    under_way(running)
    registry.close()
    assert running.state == waiting.state == "stopped"
    assert "server is ending" in running.reason and "had not started" in waiting.reason
    assert running.classifier is not None and waiting.events == []
    with pytest.raises(RunError, match="server is ending"):
        submit(registry, tiny, words)
    registry.close()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM to send")
def test_sigterm_ends_a_serving_process_gracefully() -> None:
    serve = (
        "import signal, time\n"
        "import tests.serving.registry as t\n"
        "from lora_core.serving.registry import Registry\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "tiny, words = t.tiny_base(), t.words_task()\n"
        "with Registry(t.LONG, workers=1) as registry:\n"
        "    first = t.endless(registry, tiny, words)\n"
        "    second = t.submit(registry, tiny, words)\n"
        "    t.under_way(first)\n"
        "    print('training', flush=True)\n"
        "    while not asked:\n"
        "        time.sleep(0.05)\n"
        "print(first.state, second.state, first.classifier is not None, first.step < t.ENDLESS)\n"
    )
    server = Server(code=serve)
    server.wait_for("training")
    assert server.end(signal.SIGTERM) == 0
    assert server.said.splitlines()[-1] == "stopped stopped True True"
