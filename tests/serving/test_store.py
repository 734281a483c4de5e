"""What outlives the process: runs that ended, that trained, that waited; and a store in trouble."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.limits import Limits
from lora_core.serving import records
from lora_core.serving.registry import NOT_HERE, Registry, RunError, new_visitor
from lora_core.serving.store import Store, StoreError
from lora_core.tasks.task import Example, Task
from tests.serving.registry import (
    LONG,
    Clock,
    adapter,
    endless,
    same,
    submit,
    tiny_base,
    under_way,
    wait,
)

ROOT = Path(lc.__file__).parent.parent


def test_finished_runs_come_back_whole_and_bit_for_bit(reopen, tiny, words) -> None:
    ann = new_visitor()
    registry = reopen()
    made = [
        submit(registry, tiny, words, ann, method=method, steps=6, evaluations=3)
        for method in ("lora", "full", "head")
    ]
    wait(*made)
    weights = [adapter(run) for run in made]
    again = reopen().runs(ann)
    assert [run.id for run in again] == [run.id for run in made]
    for run, old, stored in zip(again, made, weights, strict=True):
        assert run.state == "finished" and run.test_score == old.test_score
        assert run.events == old.events and run.task.train == words.train
        assert run.processor_seconds == old.processor_seconds > 0
        assert run.loaded is None and run.has_weights
        assert same(adapter(run), stored)
        assert run.classifier.initial.keys() == old.classifier.initial.keys()
        for name, tensor in old.classifier.initial.items():
            assert run.classifier.initial[name].equal(tensor)
        assert run.classifier.scores == old.classifier.scores
        text = "win cash"
        for strength in (0.0, 1.0, 2.0):
            assert run.classifier.classify(text, strength) == old.classifier.classify(
                text, strength
            )


def test_an_adapter_that_was_brought_along_comes_back(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    run = submit(registry, tiny, words, ann)
    wait(run)
    brought = registry.add_classifier(ann, run.classifier, None, "mine")
    again = reopen().get(ann, brought.id)
    assert again.state == "loaded" and again.name == "mine" and again.loaded is None
    assert again.classifier.classify("win cash") == run.classifier.classify("win cash")


def test_another_visitor_sees_nothing_and_an_id_alone_is_enough(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    run = submit(registry, tiny, words, ann)
    wait(run)
    registry = reopen()
    assert registry.runs(new_visitor()) == []
    with pytest.raises(RunError, match=NOT_HERE):
        registry.get(new_visitor(), run.id)
    assert registry.find(run.id).visitor == ann


def test_what_waited_waits_again_in_its_order(reopen, tiny, words, gate) -> None:
    registry = reopen()
    visitors = [new_visitor() for _ in range(3)]
    mine = Task("my table", words.labels, words.train, words.validation, words.test)
    registry.add_task(visitors[1], mine)
    submit(registry, tiny, words, new_visitor())
    gate.wait_for(1)
    waiting = [submit(registry, tiny, mine, v, steps=4, watch=["secret text"]) for v in visitors]
    order = [run.id for run in waiting]
    registry = reopen()
    runs = [registry.find(run_id) for run_id in order]
    gate.opened.set()
    wait(*runs)
    assert [run.state for run in runs] == ["finished"] * 3
    assert sorted(runs, key=lambda run: run.started) == runs
    assert [table.name for table in registry.tasks(visitors[1])] == ["my table"]
    assert registry.tasks(visitors[0]) == []
    held = (reopen.store.folder / "runs.sqlite").read_bytes()
    assert b"secret text" not in held  # what was typed is never written


def test_a_table_that_no_run_used_is_not_kept(reopen, words) -> None:
    ann, registry = new_visitor(), reopen()
    registry.add_task(ann, words)
    assert reopen().tasks(ann) == []


SERVE = """
import sys, threading
import tests.serving.registry as t
from pathlib import Path
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store
tiny, words = t.tiny_base(), t.words_task()
registry = Registry(t.LONG, workers=1, store=Store(Path(sys.argv[1])), bases=lambda *_: tiny)
done = t.submit(registry, tiny, words, sys.argv[2])
t.wait(done)
running = t.endless(registry, tiny, words, sys.argv[2])
waiting = t.submit(registry, tiny, words, sys.argv[2], steps=5)
t.under_way(running, steps=210)
print(done.id, running.id, waiting.id, flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL to send")
def test_a_killed_server_loses_only_the_steps_since_the_last_evaluation(
    tmp_path, tiny, words
) -> None:
    ann = new_visitor()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path), ann],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        done, running, waiting = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    with Registry(LONG, workers=1, store=Store(tmp_path), bases=lambda *_: tiny) as registry:
        assert [run.id for run in registry.runs(ann)] == [done, running, waiting]
        assert registry.get(ann, done).state == "finished" and registry.get(ann, done).classifier
        broken = registry.get(ann, running)
        assert broken.state == "stopped" and broken.interrupted and "go on" in broken.reason
        assert broken.step >= 200 and isinstance(broken.events[0], lc.Started)  # evaluated
        assert broken.classifier.classify("win").label in words.labels
        wait(registry.get(ann, waiting))
        best = max(
            (e for e in broken.events if isinstance(e, lc.Evaluated)),
            key=lambda e: (e.validation_accuracy, -e.validation_loss),
        )
        going = registry.go_on(ann, running)
        under_way(going, steps=best.step + 5)
        registry.stop(ann, going.id)
        wait(going)
        steps = [e.step for e in going.events if isinstance(e, lc.Step)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) >= best.step + 5
        assert running not in [run.id for run in registry.runs(ann)]
        with pytest.raises(RunError, match="cannot go on"):
            registry.go_on(ann, going.id)


def test_after_a_graceful_end_running_ones_go_on_and_waiting_ones_wait(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen(LONG)
    running = endless(registry, tiny, words, ann)
    waiting = submit(registry, tiny, words, ann)
    under_way(running)
    registry = reopen()
    assert registry.get(ann, running.id).interrupted
    wait(registry.get(ann, waiting.id))
    assert registry.get(ann, waiting.id).state == "finished"


def test_two_servers_on_one_store_the_second_refuses(tmp_path) -> None:
    first = Store(tmp_path)
    with pytest.raises(StoreError, match=r"Another LoRA Lab uses .* --data"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used to keep runs in"):
        Store(tmp_path / "file" / "data")


@pytest.mark.parametrize("damage", ["noise", "foreign", "torn"])
def test_a_damaged_or_foreign_store_is_set_aside_with_a_sentence(
    tmp_path, reopen, tiny, words, damage
) -> None:
    ann, registry = new_visitor(), reopen()
    wait(submit(registry, tiny, words, ann, steps=300))
    registry.close()
    path = tmp_path / "data" / "runs.sqlite"
    if damage == "noise":
        path.write_bytes(os.urandom(8192))
    elif damage == "torn":
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.execute("PRAGMA application_id = 7")
        db.commit()
        db.close()
    store = Store(tmp_path / "data")
    assert len(store.notes) == 1 and "set aside" in store.notes[0]
    assert len(list(store.folder.glob("runs.sqlite-set-aside-*"))) == 1
    assert len(list(store.folder.glob("weights-set-aside-*/*"))) == 1  # nothing is deleted
    assert store.of(ann) == []
    store.close()
    run = submit(reopen(), tiny, words, ann)
    wait(run)
    assert [r.id for r in reopen().runs(ann)] == [run.id]


def version(path: Path, new: int | None = None) -> int:
    """The version of a store; it may be set."""
    db = sqlite3.connect(path)
    (old,) = db.execute("PRAGMA user_version").fetchone()
    if new is not None:
        db.execute(f"PRAGMA user_version = {new}")
        db.commit()
    db.close()
    return int(old)


def test_a_newer_store_is_refused_and_stays_as_it_is(tmp_path, reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    run = submit(registry, tiny, words, ann)
    wait(run)
    registry.close()
    path = tmp_path / "data" / "runs.sqlite"
    known = version(path)
    version(path, 99)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"newer LoRA Lab wrote .*runs\.sqlite.* --data"):
            Store(tmp_path / "data")
    assert path.read_bytes() == before
    version(path, known)
    (again,) = reopen().runs(ann)  # of the newer program, to which the host went back
    assert reopen.store.notes == [] and same(adapter(again), adapter(run))


def test_a_damaged_file_of_weights_is_one_runs_own_misfortune(
    tmp_path, reopen, tiny, words
) -> None:
    ann, registry = new_visitor(), reopen()
    runs = [submit(registry, tiny, words, ann, seed=i) for i in range(2)]
    wait(*runs)
    registry.close()
    first, _ = sorted((tmp_path / "data" / "weights").iterdir(), key=lambda p: p.stat().st_mtime)
    first.write_bytes(b"not a file of tensors")
    half = tmp_path / "data" / "weights" / f"{32 * 'a'}.safetensors.part"
    half.write_bytes(b"half")
    damaged, well = reopen().runs(ann)
    assert damaged.classifier is None and "damaged" in damaged.lost and damaged.events
    assert well.classifier is not None
    assert not half.exists()


def test_a_changed_base_is_said_and_curves_stay(tmp_path, reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    wait(submit(registry, tiny, words, ann))
    registry.close()
    other = tiny_base()
    with lc_no_grad():
        other.model.final_norm.weight.add_(1)
    with Registry(workers=1, store=Store(tmp_path / "data"), bases=lambda *_: other) as registry:
        (run,) = registry.runs(ann)
        assert run.classifier is None and "has changed" in run.lost and run.events


def lc_no_grad():
    import torch

    return torch.no_grad()


def test_caps_and_expiry_hold_on_disk(tmp_path, reopen, tiny, words) -> None:
    clock = Clock()
    ann, bob = new_visitor(), new_visitor()
    limits = Limits(stored_hours=2, idle_minutes=1, runs_kept=2)
    registry = reopen(limits, clock=clock)
    store = reopen.store
    for i in range(3):
        clock.now += 1
        wait(submit(registry, tiny, words, ann, seed=i))
    registry.sweep()
    assert len(store.of(ann)) == 2 and len(list((store.folder / "weights").iterdir())) == 2
    clock.now += 3600
    registry.sweep()
    assert registry.counts() == {} and len(registry.runs(ann)) == 2  # away, and back
    wait(submit(registry, tiny, words, bob))
    clock.now += 7201
    registry.sweep()
    assert registry.runs(ann) == [] and store.of(bob) == []
    assert not list((store.folder / "weights").iterdir())

    registry = reopen(Limits(disk_mb=2), clock=clock)
    for i in range(4):
        clock.now += 1
        wait(submit(registry, tiny, words, ann, method="full", seed=i))
    wait(submit(registry, tiny, words, bob))
    registry.sweep()
    assert len(registry.runs(ann)) == 1 and len(registry.runs(bob)) == 1


def test_a_visitor_deletes_all_that_is_theirs(reopen, tiny, words) -> None:
    ann, bob, registry = new_visitor(), new_visitor(), reopen(LONG)
    mine = Task("mine", words.labels, words.train, words.validation, words.test)
    registry.add_task(ann, mine)
    wait(submit(registry, tiny, mine, ann))
    other = submit(registry, tiny, words, bob)
    wait(other)
    running = endless(registry, tiny, mine, ann)
    under_way(running)
    registry.remove_all(ann)
    wait(running)
    store = reopen.store
    assert registry.runs(ann) == [] and registry.tasks(ann) == [] and store.of(ann) == []
    assert len(list((store.folder / "weights").iterdir())) == 1
    assert [run.id for run in reopen().runs(bob)] == [other.id]


def test_what_the_server_keeps_for_itself_does_not_outlive_it(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    config = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    wait(registry.submit(ann, tiny, words, lc.LoRAConfig(rank=2), config, durable=False))
    assert len(registry.runs(ann)) == 1
    assert reopen().runs(ann) == []


def test_a_full_disk_is_said_once_and_runs_go_on(reopen, tiny, words, caplog, monkeypatch) -> None:
    connect = sqlite3.connect

    def nearly_full(*values, **options) -> sqlite3.Connection:
        db = connect(*values, **options)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own "disk is full"
        return db

    reopen()  # so that the tables are there
    monkeypatch.setattr(sqlite3, "connect", nearly_full)
    ann, registry = new_visitor(), reopen()
    runs = [submit(registry, tiny, words, ann, steps=200, seed=i) for i in range(3)]
    wait(*runs)
    assert [run.state for run in runs] == ["finished"] * 3
    assert all(run.classifier is not None for run in runs)
    assert len([r for r in caplog.records if "cannot be written" in r.getMessage()]) == 1


def test_a_folder_that_went_is_said_once_too(reopen, tiny, words, caplog) -> None:
    registry = reopen()
    shutil.rmtree(reopen.store.folder / "weights")
    runs = [submit(registry, tiny, words, seed=i) for i in range(3)]
    wait(*runs)
    assert [run.state for run in runs] == ["finished"] * 3
    assert len([r for r in caplog.records if "cannot be written" in r.getMessage()]) == 1


def test_tables_events_and_settings_survive_the_way_through_json(base, task) -> None:
    import json

    lora = lc.LoRAConfig(rank=3, targets=("query", "head"))
    config = lc.TrainConfig(steps=3, evaluations=1, learning_rate=0.01)
    events = list(lc.fine_tune(base, task, lora, config, watch_texts=["hello"]))
    for event in events[:-1]:
        record = json.loads(json.dumps(records.event_record(event)))
        assert records.event_of(record) == event
    settings = json.loads(json.dumps(records.settings_record(lora, config)))
    assert records.settings_of(settings) == (lora, config)
    odd = Task("ö", ("a", "b"), (Example("😀 ü\x00", 1),), (), (), "t", ("w",))
    again = records.task_of(json.loads(json.dumps(records.task_record(odd))))
    assert vars(again) == vars(odd)
