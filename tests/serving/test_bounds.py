"""Many visitors: what is bounded, and the limits that a host sets."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import torch

import lora_core as lc
from lora_core.events import Evaluated, Finished, Step
from lora_core.limits import Limits
from lora_core.serving.registry import Registry, RunError, new_visitor
from lora_core.serving.run import Run
from lora_core.tasks.task import Example, Task
from tests.serving.registry import Clock, submit, wait

# Bounds ----------------------------------------------------------------------------------------


def test_the_queue_has_a_cap_for_each_visitor_and_in_all(tiny, words, gate) -> None:
    limits = Limits(waiting_a_visitor=2, waiting_in_all=3)
    with Registry(limits, workers=1) as registry:
        ann = new_visitor()
        submit(registry, tiny, words, ann)
        gate.wait_for(1)
        for _ in range(2):
            submit(registry, tiny, words, ann)
        with pytest.raises(RunError, match="You have 2 runs waiting"):
            submit(registry, tiny, words, ann)
        submit(registry, tiny, words)
        with pytest.raises(RunError, match="queue is full: 3 runs"):
            submit(registry, tiny, words)
        assert len(registry.runs(ann)) == 3
        gate.opened.set()
        wait(*registry.runs(ann))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 11}, "Steps: 11 is more than this server's 10"),
        ({"batch_size": 5}, "Texts a step: 5"),
        ({"rank": 4}, "Rank: 4"),
        ({"watch": ["a"] * 3}, "Watched texts: 3"),
        ({"watch": ["x" * 101]}, "101 characters"),
        ({"watch": [None]}, "A text is needed"),
        ({"evaluations": 20}, "Evaluations: 20"),
    ],
)
def test_each_cap_on_a_run_has_a_sentence(tiny, words, change, said) -> None:
    limits = Limits(max_steps=10, max_batch=4, max_rank=3, max_watched=2, max_characters=100)
    with Registry(limits, workers=1) as registry:
        with pytest.raises(RunError, match=said):
            submit(registry, tiny, words, **change)
        wait(submit(registry, tiny, words, rank=3, watch=["x" * 100] * 2, steps=10))
        whole = submit(registry, tiny, words, rank=3, steps=0)  # as many as are needed, or may be
        assert whole.train_config is not None and whole.train_config.steps == 10


def test_rank_is_not_capped_where_there_is_none(tiny, words) -> None:
    with Registry(Limits(max_rank=1), workers=1) as registry:
        wait(submit(registry, tiny, words, rank=200, method="head"))


def test_rows_and_memory_are_capped(tiny, words) -> None:
    with Registry(Limits(max_rows=39), workers=1) as registry:
        with pytest.raises(RunError, match="40 rows"):
            registry.add_task(new_visitor(), words)
        with pytest.raises(RunError, match="Rows of the table: 40"):
            submit(registry, tiny, words)
    with Registry(Limits(run_mb=1), workers=1) as registry:
        wait(submit(registry, tiny, words))
        with pytest.raises(RunError, match="MB of memory"):
            submit(registry, tiny, words, method="full")


def test_settings_that_do_not_fit_the_base_are_refused_before_they_wait(tiny, words) -> None:
    with Registry(workers=1) as registry:
        lora = lc.LoRAConfig(targets=("nowhere",))
        with pytest.raises(RunError, match="nowhere"):
            registry.submit(new_visitor(), tiny, words, lora, lc.TrainConfig(steps=1))
        for visitor in ("", "bob", None, 4, "x" * 201):
            with pytest.raises(RunError, match="token"):
                registry.submit(visitor, tiny, words, lc.LoRAConfig(), lc.TrainConfig(steps=1))


def test_each_visitor_keeps_the_newest_runs_and_tables(tiny, words) -> None:
    clock = Clock()
    with Registry(Limits(runs_kept=2, tables_kept=2), workers=1, clock=clock) as registry:
        ann, bob = new_visitor(), new_visitor()
        other = submit(registry, tiny, words, bob)
        wait(other)
        mine = []
        for i in range(4):
            clock.now += 1
            mine.append(submit(registry, tiny, words, ann, seed=i))
            wait(mine[-1])
        assert registry.runs(ann) == mine[2:] and registry.runs(bob) == [other]
        for i in range(4):
            clock.now += 1
            table = Task(f"t{i}", words.labels, words.train, words.validation, words.test)
            registry.add_task(ann, table)
        assert [table.name for table in registry.tasks(ann)] == ["t2", "t3"]


def test_memory_is_bounded_and_the_longest_unused_goes_first(tiny, words) -> None:
    clock = Clock()
    with Registry(Limits(memory_mb=9), workers=1, clock=clock) as registry:
        ann = new_visitor()
        made = []
        for i in range(2):  # about 3.2 MB each: three float32 copies of the tiny model
            clock.now += 1
            made.append(submit(registry, tiny, words, ann, method="full", seed=i))
            wait(made[-1])
        size = made[0].held_bytes
        assert 2_600_000 < size < 4_000_000 and registry.held_bytes() == 2 * size
        clock.now += 1
        registry.get(ann, made[0].id)  # used: now the other is the longest unused
        clock.now += 1
        third = submit(registry, tiny, words, ann, method="full", seed=2)
        wait(third)
        assert [run.has_weights for run in (*made, third)] == [True, False, True]
        assert registry.held_bytes() <= 9_000_000


def test_a_table_counts_once_and_goes_with_its_last_run(tiny) -> None:
    rows = tuple(Example("x" * 1000 + str(i), i % 2) for i in range(30))
    table = Task("mine", ("a", "b"), rows, rows, rows)
    with Registry(workers=1) as registry:
        ann = new_visitor()
        registry.add_task(ann, table)
        alone = registry.held_bytes()
        assert 90_000 < alone < 110_000
        run = submit(registry, tiny, table, ann)
        wait(run)
        assert registry.held_bytes() == alone + run.held_bytes
        registry.remove(ann, run.id)
        assert registry.held_bytes() == alone


def test_unused_tables_expire_and_used_ones_stay(words) -> None:
    clock = Clock()
    with Registry(Limits(idle_minutes=10), workers=1, clock=clock) as registry:
        ann, bob = new_visitor(), new_visitor()
        registry.add_task(ann, words)
        registry.add_task(bob, words)
        clock.now += 400
        assert registry.task(ann, "words") is words
        clock.now += 300
        registry.sweep()
        assert registry.tasks(ann) == [words] and registry.tasks(bob) == []


def test_an_adapter_that_was_brought_along_is_a_run_of_its_own(tiny, words) -> None:
    with Registry(workers=1) as registry:
        ann = new_visitor()
        run = submit(registry, tiny, words, ann)
        wait(run)
        loaded = registry.add_classifier(ann, run.classifier, words, "brought")
        assert loaded.state == "loaded" and loaded.is_over and loaded.name == "brought"
        assert registry.get(ann, loaded.id).classifier is run.classifier
        assert loaded.held_bytes > 0 and loaded.estimate_seconds is None
        registry.stop(ann, loaded.id)
        assert loaded.state == "loaded"


def test_many_short_runs_do_not_grow(tiny, words) -> None:
    def some(registry, visitor, n: int) -> None:
        for i in range(n):
            wait(submit(registry, tiny, words, visitor, seed=i))

    def alive() -> Counter[type]:
        """What a run is made of, as far as it is still held by anything."""
        gc.collect()
        kinds = (Run, Step, Evaluated, Finished, lc.Classifier, torch.Tensor, torch.nn.Parameter)
        return Counter(type(o) for o in gc.get_objects() if type(o) in kinds)

    with Registry(Limits(runs_kept=3), workers=2) as registry:
        visitor = new_visitor()
        some(registry, visitor, 12)
        before = alive()
        some(registry, visitor, 24)
        assert alive() == before
        assert len(registry.runs(visitor)) == 3


# Limits ----------------------------------------------------------------------------------------


def test_limits_come_from_environment_and_command_line(monkeypatch) -> None:
    import argparse

    from lora_core.limits import add_arguments

    monkeypatch.setenv("LORA_LAB_MAX_STEPS", "77")
    monkeypatch.setenv("LORA_LAB_MEMORY_MB", "88")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    add_arguments(parser)
    arguments = parser.parse_args(["--memory-mb", "99", "--port", "1"])
    limits = Limits.from_arguments(arguments)
    assert (limits.max_steps, limits.memory_mb, limits.max_batch) == (77, 99, Limits().max_batch)
    monkeypatch.setenv("LORA_LAB_MAX_STEPS", "many")
    with pytest.raises(lc.ConfigError, match="LORA_LAB_MAX_STEPS"):
        Limits.from_environment()
    monkeypatch.delenv("LORA_LAB_MAX_STEPS")
    for bad in (0, -1, True, 1.5):
        with pytest.raises(lc.ConfigError, match="max_steps"):
            Limits.from_environment(max_steps=bad)
