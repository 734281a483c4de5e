"""A store whose folder was somebody's, whose disk is full, or whose rows and files make no sense:
nothing that is whole is lost, and nothing comes back other than it was."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.base.checkpoint import BaseError
from lora_core.limits import Limits
from lora_core.serving import weight_files
from lora_core.serving.registry import NOT_HERE, Registry, Run, RunError, new_visitor
from lora_core.serving.store import Store, StoreError
from lora_core.serving.weight_files import weights_of
from lora_core.tasks.task import Example, Task
from tests.serving.registry import (
    LONG,
    Clock,
    adapter,
    endless,
    full_disk,
    same,
    submit,
    under_way,
    wait,
)

SMALL = 600_000  # bytes: rows and events fit, the weights of full fine-tuning do not


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "weights").iterdir() if path.is_file())


def change(store: Store, statement: str) -> None:
    """What another program did to the database."""
    db = sqlite3.connect(store.folder / "runs.sqlite")
    db.execute(statement)
    db.commit()
    db.close()


def count(store: Store, table: str) -> int:
    """Rows on the disk."""
    db = sqlite3.connect(store.folder / "runs.sqlite")
    (number,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    db.close()
    return int(number)


def own(words: Task, name: str) -> Task:
    return Task(name, words.labels, words.train, words.validation, words.test)


def steps_of(run: Run) -> list[int]:
    return [event.step for event in run.events if isinstance(event, lc.Step)]


def interrupted(reopen, tiny, words, visitor: str, **train) -> Run:
    """A run that trained when its server ended, in a server whose waiting runs are held back."""
    run = endless(reopen(LONG), tiny, words, visitor, **train)
    under_way(run, steps=210)
    registry = reopen(LONG)
    registry.pause()
    run = registry.get(visitor, run.id)
    assert run.interrupted and run.has_weights
    return run


# A folder that somebody had -----------------------------------------------------------------


def test_a_folder_of_somebody_elses_stays_as_it_is(tmp_path) -> None:
    theirs = [tmp_path / "weights" / name for name in ("model.safetensors", "a/b.zip", "note.part")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    tmp_path.chmod(0o755)
    for _ in range(2):
        store = Store(tmp_path)
        assert store.notes == []
        store.close()
    sqlite3.connect(tmp_path / "runs.sqlite").execute("PRAGMA application_id = 7")
    store = Store(tmp_path)  # set aside: still nothing of theirs
    assert "set aside" in store.notes[0]
    store.close()
    assert all(path.read_text() == "theirs" for path in theirs)
    assert tmp_path.stat().st_mode & 0o777 == 0o755 or os.name == "nt"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights elsewhere")
def test_what_is_kept_is_nobody_elses_to_read(tmp_path) -> None:
    for name in ("new", "empty", "theirs"):
        folder = tmp_path / name
        if name != "new":
            folder.mkdir(mode=0o755)
        if name == "theirs":
            (folder / "note").write_text("theirs")
        Store(folder).close()
        shut = [folder / "runs.sqlite", folder / "weights"]
        shut += [folder] if name != "theirs" else []
        assert [path.stat().st_mode & 0o077 for path in shut] == [0] * len(shut), name


def test_weights_whose_database_is_gone_are_set_aside(reopen, tiny, words) -> None:
    wait(submit(reopen(), tiny, words))
    reopen.close()
    folder = reopen.store.folder
    held = files(folder)[0].read_bytes()
    shutil.move(folder / "runs.sqlite", folder / "elsewhere")
    reopen()
    assert len(reopen.store.notes) == 1 and "set aside" in reopen.store.notes[0]
    (aside,) = folder.glob("weights-set-aside-*/*.safetensors")
    assert aside.read_bytes() == held and files(folder) == []


# A full disk --------------------------------------------------------------------------------


def test_a_start_on_a_full_disk_sets_nothing_aside(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    run = submit(registry, tiny, words, ann)
    wait(run)
    registry.close()
    folder = reopen.store.folder
    for _ in range(2):
        with full_disk(), pytest.raises(StoreError, match=r"cannot be used now: .* --data none"):
            Store(folder)
    (again,) = reopen().runs(ann)  # with room
    assert reopen.store.notes == [] and same(adapter(again), adapter(run))


def test_a_store_that_another_program_holds_is_not_set_aside(tmp_path, monkeypatch) -> None:
    Store(tmp_path).close()
    other = sqlite3.connect(tmp_path / "runs.sqlite")
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, **o, timeout=0))
    with pytest.raises(StoreError, match="another program has locked it"):
        Store(tmp_path)
    other.close()
    store = Store(tmp_path)
    assert store.notes == []
    store.close()


def test_weights_that_could_not_be_written_are_lost_and_said_to_be(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    with full_disk(SMALL):
        run = submit(registry, tiny, words, ann, method="full", steps=6, evaluations=3)
        wait(run)
        assert run.state == "finished" and run.classifier is not None and run.behind
        assert files(reopen.store.folder) == []  # no halves either
        registry.close()
    (again,) = reopen().runs(ann)
    assert again.state == "finished" and again.test_score == run.test_score
    assert again.events == run.events and not again.has_weights
    assert again.classifier is None and "could not be written" in again.lost


def test_older_weights_do_not_stand_for_the_last_ones(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen(LONG)
    run = endless(registry, tiny, words, ann, method="full")
    under_way(run, steps=110)  # evaluated, and written
    with full_disk(SMALL):
        registry.stop(ann, run.id)
        wait(run)
        registry.close()
    (again,) = reopen().runs(ann)
    assert again.state == "stopped" and not again.interrupted
    assert again.classifier is None and "could not be written" in again.lost


@pytest.mark.parametrize("room", [0, SMALL])
def test_with_room_again_all_is_written(reopen, tiny, words, room) -> None:
    ann, registry = new_visitor(), reopen(LONG)
    with full_disk(room):
        over = submit(registry, tiny, words, ann, method="full", evaluations=3)
        wait(over)
        running = endless(registry, tiny, words, ann)
        under_way(running, steps=110)  # evaluated twice
    registry.sweep()  # as by itself, every thirty seconds
    assert not over.behind
    registry.stop(ann, running.id)
    wait(running)
    again = reopen().runs(ann)
    for stored, run in zip(again, (over, running), strict=True):
        assert stored.events == run.events and stored.state == run.state
        assert same(adapter(stored), adapter(run))


def test_what_could_not_be_written_is_written_at_the_end(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    with full_disk(SMALL):
        run = submit(registry, tiny, words, ann, method="full")
        wait(run)
    (again,) = reopen().runs(ann)
    assert again.events == run.events and same(adapter(again), adapter(run))


def test_an_adapter_that_could_not_be_written_says_so(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    run = submit(registry, tiny, words, ann, rank=32)
    wait(run)
    with full_disk(300_000):  # its file has 2 MB
        brought = registry.add_classifier(ann, run.classifier, None, "mine")
        assert brought.behind and brought.classifier is not None
        registry.close()
    again = reopen().get(ann, brought.id)
    assert again.state == "loaded" and again.name == "mine"
    assert again.classifier is None and "could not be written" in again.lost


def test_what_was_written_by_halves_is_not_written(reopen, tiny, words) -> None:
    """A row, its events and its weights change together."""
    ann, registry = new_visitor(), reopen(LONG)
    run = endless(registry, tiny, words, ann)
    under_way(run, steps=110)
    change(reopen.store, "ALTER TABLE events RENAME TO hidden")  # so that no event is written
    (before,) = reopen.store.of(ann)
    registry.stop(ann, run.id)
    wait(run)
    (after,) = reopen.store.of(ann)
    # Not the weights that the run ended with: their head was cooled.
    assert (after.state, after.weights) == (before.state, before.weights)
    registry.close()
    change(reopen.store, "ALTER TABLE hidden RENAME TO events")
    assert [file.name for file in files(reopen.store.folder)] == [before.weights]
    assert reopen().get(ann, run.id).interrupted


def test_a_name_is_on_the_disk_before_a_row_names_it(tmp_path, monkeypatch) -> None:
    flushed: list[bool] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").is_dir())
        fsync(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("where a handle leads is read in /proc")
    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", noted)
    weights = weights_of(1, {"a": torch.zeros(2)})
    assert store.put("run", new_visitor(), "running", {}, 0.0, weights=weights)
    assert flushed == [False, True]  # the file, then its folder
    store.close()


# Going on -----------------------------------------------------------------------------------


def test_a_second_end_before_the_rest_began_loses_and_doubles_no_step(reopen, tiny, words) -> None:
    ann = new_visitor()
    old = interrupted(reopen, tiny, words, ann)
    registry = reopen(LONG)
    registry.pause()
    going = registry.go_on(ann, old.id)
    best = going.first_step
    assert best >= 100
    registry = reopen(LONG)  # it waited still
    again = registry.get(ann, going.id)
    under_way(again, steps=best + 120)
    registry = reopen(LONG)  # it trained
    assert f"those of step {registry.get(ann, going.id).first_step}" not in again.reason
    once_more = registry.go_on(ann, going.id)
    under_way(once_more, steps=once_more.first_step + 5)
    registry.stop(ann, once_more.id)
    wait(once_more)
    assert once_more.first_step >= best
    assert steps_of(again) == list(range(1, len(steps_of(again)) + 1))
    assert steps_of(once_more) == list(range(1, len(steps_of(once_more)) + 1))


def test_where_the_rest_cannot_be_written_what_was_interrupted_stays(reopen, tiny, words) -> None:
    ann = new_visitor()
    old = interrupted(reopen, tiny, words, ann, method="full")
    registry = reopen(LONG)
    registry.pause()
    with full_disk(SMALL):
        going = registry.go_on(ann, old.id)
        assert registry.runs(ann) == [going]
        registry.close()
    registry = reopen(LONG)
    (again,) = registry.runs(ann)
    assert again.id == old.id and again.interrupted
    going = registry.go_on(ann, again.id)
    under_way(going, steps=going.first_step + 3)


def test_the_run_that_is_gone_on_from_goes_at_once(reopen, tiny, words) -> None:
    ann = new_visitor()
    old = interrupted(reopen, tiny, words, ann)
    registry = reopen(LONG)
    registry.pause()
    going = registry.go_on(ann, old.id)
    assert [row.id for row in reopen.store.of(ann)] == [going.id]
    assert len(files(reopen.store.folder)) == 1


# Deleting where there is no room ------------------------------------------------------------


@pytest.mark.parametrize("press", ["remove", "remove_all"])
def test_what_is_deleted_on_a_full_disk_is_gone_and_stays_so(reopen, tiny, words, press) -> None:
    ann, bob, registry = new_visitor(), new_visitor(), reopen()
    registry.add_task(ann, own(words, "mine"))
    run = submit(registry, tiny, registry.task(ann, "mine"), ann)
    other = submit(registry, tiny, own(words, "another"), bob)
    wait(run, other)
    registry = reopen()
    assert registry.get(ann, run.id).classifier is not None
    with full_disk():
        if press == "remove":
            registry.remove(ann, run.id)
        else:
            assert registry.remove_all(ann) is False  # not all of it
        assert len(files(reopen.store.folder)) == 1  # the other's: files need no room to go
        assert reopen.store.of(ann) == [] and reopen.store.visitor_of(run.id) is None
        registry.close()
    assert count(reopen.store, "runs") == 2
    registry = reopen()
    assert registry.runs(ann) == [] and registry.tasks(ann) == []
    with pytest.raises(RunError, match=NOT_HERE):
        registry.find(run.id)
    assert count(reopen.store, "tables") == 1 and len(registry.runs(bob)) == 1
    assert not list(reopen.store.folder.glob("deleted-*"))


def test_what_could_not_be_deleted_goes_as_soon_as_there_is_room(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    wait(submit(registry, tiny, words, ann))
    registry = reopen()
    with full_disk():
        assert registry.remove_all(ann) is False
    registry.sweep()  # as by itself, every thirty seconds
    assert count(reopen.store, "runs") == 0
    assert registry.remove_all(ann) is True


def test_weights_that_are_deleted_make_the_room_to_delete_the_rest(
    tmp_path, reopen, tiny, words, monkeypatch
) -> None:
    connect, folder = sqlite3.connect, tmp_path / "data" / "weights"

    def crowded(*values, **options) -> sqlite3.Connection:
        db = connect(*values, **options)
        db.create_function("room", 0, lambda: len(list(folder.iterdir())) < 2)
        return db

    ann, registry = new_visitor(), reopen()
    wait(*[submit(registry, tiny, words, ann, seed=i) for i in range(2)])
    registry.close()
    monkeypatch.setattr(sqlite3, "connect", crowded)
    registry = reopen()
    change(
        reopen.store,
        "CREATE TRIGGER full BEFORE DELETE ON runs WHEN NOT room() "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    assert registry.remove_all(ann) is True
    assert reopen.store.of(ann) == [] and files(reopen.store.folder) == []
    assert not list(reopen.store.folder.glob("deleted-*"))


def test_files_of_somebody_else_are_not_taken_for_marks(tmp_path) -> None:
    names = ["deleted-photo", "deleted", "deleted-ff00"]
    for name in names:
        (tmp_path / name).write_text("theirs")
    for _ in range(2):
        Store(tmp_path).close()
    assert all((tmp_path / name).read_text() == "theirs" for name in names)


# Rows and files that make no sense ----------------------------------------------------------


def test_a_waiting_run_whose_weights_are_damaged_fails_alone(reopen, tiny, words) -> None:
    ann = new_visitor()
    old = interrupted(reopen, tiny, words, ann)
    registry = reopen(LONG)
    registry.pause()
    going = registry.go_on(ann, old.id)
    other = submit(registry, tiny, words, ann)
    registry.close()
    (file,) = files(reopen.store.folder)
    file.write_bytes(b"not a file of tensors")
    registry = reopen(LONG)
    failed = registry.get(ann, going.id)
    assert failed.state == "failed" and "damaged" in failed.reason and failed.events
    wait(registry.get(ann, other.id))
    assert reopen.store.waiting() == []


@pytest.mark.parametrize(
    "trouble",
    [
        "record = CAST(x'7bff7d' AS TEXT)",  # bytes that are no text
        "record = x'00ff'",
        "visitor = x'00ff'",
        "visitor = CAST(x'ff' AS TEXT)",
        "state = 'asleep'",
        "used = 'long ago'",
        "weights = x'00ff'",
        "record = json_set(record, '$.times', 3)",
    ],
)
def test_a_start_goes_on_over_what_it_cannot_read(reopen, tiny, words, trouble, caplog) -> None:
    ann, registry = new_visitor(), reopen()
    registry.pause()
    runs = [submit(registry, tiny, words, ann, seed=i) for i in range(3)]
    registry.close()
    change(reopen.store, f"UPDATE runs SET {trouble} WHERE number = 2")
    change(reopen.store, "UPDATE facts SET value = 'noon'")
    for _ in range(2):
        registry = reopen()
        others = [registry.get(ann, runs[0].id), registry.get(ann, runs[2].id)]
        wait(*others)
        assert [run.state for run in others] == ["finished"] * 2
        registry.sweep()
    assert reopen.store.notes == [] and count(reopen.store, "runs") == 3  # for who can read it
    if "weights" in trouble:
        assert "damaged" in registry.get(ann, runs[1].id).reason
    elif "visitor" not in trouble:
        assert f"{runs[1].id[:6]} cannot be read" in caplog.text


def test_a_visitor_who_cannot_be_read_at_a_start_keeps_nobody_else_waiting(
    tmp_path, reopen, tiny, words, caplog, monkeypatch
) -> None:
    ann, bob, registry = new_visitor(), new_visitor(), reopen()
    registry.pause()
    theirs = {visitor: submit(registry, tiny, words, visitor).id for visitor in (ann, bob)}
    registry.close()
    events, trouble = Store.events, [True]

    def torn(store: Store, run_id: str):
        if trouble and run_id == theirs[ann]:
            raise StoreError("What was kept cannot be read: disk I/O error.")
        return events(store, run_id)

    monkeypatch.setattr(Store, "events", torn)
    registry = reopen()
    assert "disk I/O error" in caplog.text
    wait(registry.get(bob, theirs[bob]))
    with pytest.raises(StoreError, match="disk I/O error"):
        registry.runs(ann)
    trouble.clear()
    wait(registry.get(ann, theirs[ann]))  # it waited still, and its turn came
    assert registry.get(ann, theirs[ann]).state == "finished"


def test_forgetting_what_is_old_outlasts_a_passing_trouble(reopen, tiny, words, caplog) -> None:
    ann, clock = new_visitor(), Clock()
    registry = reopen(Limits(stored_hours=1), clock=clock)
    wait(submit(registry, tiny, words, ann))
    clock.now += 7200
    change(reopen.store, "ALTER TABLE runs RENAME TO hidden")
    registry.sweep()
    assert "cannot be read" in caplog.text
    change(reopen.store, "ALTER TABLE hidden RENAME TO runs")
    registry.sweep()
    assert reopen.store.of(ann) == []


def test_half_a_character_in_a_name_is_nobodys(reopen) -> None:
    registry = reopen()
    with pytest.raises(RunError, match=NOT_HERE):
        registry.find("\ud800")
    assert registry.runs("\ud800" * 20) == []


def test_a_store_whose_folder_was_deleted_says_so_and_promises_nothing(
    reopen, tiny, words, caplog
) -> None:
    ann, registry = new_visitor(), reopen()
    shutil.rmtree(reopen.store.folder)
    registry.pause()
    waiting = submit(registry, tiny, words, ann)
    assert waiting.behind and "cannot be written to" in caplog.text
    registry.unpause()
    wait(waiting)
    assert waiting.state == "finished" and waiting.behind and waiting.classifier is not None


@pytest.mark.parametrize("record", ["{", "[]", '{"name": 3}'])
def test_a_row_that_makes_no_sense_hides_no_other(reopen, tiny, words, record) -> None:
    ann, registry = new_visitor(), reopen()
    runs = [submit(registry, tiny, own(words, "mine"), ann, seed=i) for i in range(2)]
    wait(*runs)
    registry.close()
    change(reopen.store, f"UPDATE runs SET record = '{record}' WHERE id = '{runs[0].id}'")
    registry = reopen()
    for _ in range(2):
        assert [run.id for run in registry.runs(ann)] == [runs[1].id]
    assert len(reopen.store.of(ann)) == 2  # a newer version may read it
    registry.remove_all(ann)
    assert reopen.store.of(ann) == [] and files(reopen.store.folder) == []


def test_what_cannot_be_read_now_is_read_later(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    wait(submit(registry, tiny, words, ann))
    registry = reopen()
    change(reopen.store, "ALTER TABLE events RENAME TO hidden")
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be read"):
            registry.runs(ann)
    change(reopen.store, "ALTER TABLE hidden RENAME TO events")
    assert len(registry.runs(ann)) == 1


def test_a_run_that_nobody_trains_is_interrupted_whatever_its_row_says(
    tmp_path, reopen, tiny, words
) -> None:
    ann, registry = new_visitor(), reopen(LONG)
    run = endless(registry, tiny, words, ann)
    under_way(run, steps=110)
    registry.close()
    with Registry(workers=1, store=Store(tmp_path / "data")) as registry:  # nothing was taken up
        assert registry.get(ann, run.id).interrupted
        registry.stop(ann, run.id)
        assert registry.get(ann, run.id).is_over


def test_a_waiting_run_without_its_base_has_failed_in_the_store_too(
    tmp_path, reopen, tiny, words
) -> None:
    ann, registry = new_visitor(), reopen()
    registry.pause()
    run = submit(registry, tiny, words, ann)
    (row,) = reopen.store.of(ann)
    registry.close()

    def gone(name: str, digest: str) -> lc.base.checkpoint.Base:
        raise BaseError(f"There is no base called '{name}'.")

    store = Store(tmp_path / "data")
    with Registry(workers=1, store=store, bases=gone) as registry:
        failed = registry.get(ann, run.id)
        assert failed.state == "failed" and "no base called 'tiny'" in failed.reason
        (now,) = store.of(ann)
        assert now.state == "failed" and store.waiting() == []
        assert now.record["base"] == "tiny"
        assert now.record["base_digest"] == row.record["base_digest"] != ""
    assert reopen().get(ann, run.id).state == "failed"


def test_a_waiting_run_without_its_table_has_failed(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    registry.pause()
    run = submit(registry, tiny, words, ann)
    registry.close()
    change(reopen.store, "DELETE FROM tables")
    again = reopen().get(ann, run.id)
    assert again.state == "failed" and "table" in again.reason
    assert reopen.store.waiting() == []


# Tables -------------------------------------------------------------------------------------


def test_a_table_goes_with_the_last_run_that_uses_it(reopen, tiny, words) -> None:
    ann, registry = new_visitor(), reopen()
    config = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    lora = lc.LoRAConfig(rank=1)
    runs = [
        registry.submit(ann, tiny, own(words, "mine"), lora, config, own_table=True)
        for _ in range(2)
    ]
    wait(*runs)
    registry.remove(ann, runs[0].id)
    assert count(reopen.store, "tables") == 1
    registry.remove(ann, runs[1].id)
    assert count(reopen.store, "tables") == 0


def test_a_table_stays_for_a_run_whose_scores_are_no_numbers(tmp_path) -> None:
    """As those of a run that went on and lost its worker before it was evaluated; SQLite takes
    NaN for no JSON."""
    ann, store = new_visitor(), Store(tmp_path)
    for run_id in ("one", "two"):
        record = {"table": run_id, "scores": {"validation_loss": math.nan}}
        store.put(run_id, ann, "finished", record, 0.0, table=(run_id, {"name": run_id}, False))
    assert store.delete("two")
    assert store.table("one") == {"name": "one"} and store.table("two") is None
    store.close()


def test_caps_and_expiry_of_tables_hold_on_disk(reopen, tiny, words) -> None:
    ann, clock = new_visitor(), Clock()
    limits = Limits(tables_kept=1, stored_hours=2, idle_minutes=1)
    registry = reopen(limits, clock=clock)
    for name in ("one", "two"):
        clock.now += 1
        registry.add_task(ann, own(words, name))
        wait(submit(registry, tiny, registry.task(ann, name), ann))
    registry = reopen(limits, clock=clock)
    assert [table.name for table in registry.tasks(ann)] == ["two"]
    clock.now += 3600  # away, and back
    registry.sweep()
    assert [table.name for table in registry.tasks(ann)] == ["two"]
    clock.now += 7201
    registry.sweep()
    assert registry.tasks(ann) == [] and reopen(limits, clock=clock).tasks(ann) == []
    assert count(reopen.store, "tables") == 0


def test_a_table_that_is_used_stays_in_the_list_while_its_visitor_is_here(
    reopen, tiny, words
) -> None:
    ann, clock = new_visitor(), Clock()
    registry = reopen(Limits(idle_minutes=1), clock=clock)
    registry.add_task(ann, own(words, "mine"))
    run = submit(registry, tiny, registry.task(ann, "mine"), ann)
    wait(run)
    clock.now += 3600
    registry.touch(run)
    registry.sweep()
    assert [table.name for table in registry.tasks(ann)] == ["mine"]


def test_the_disk_cap_counts_tables_and_the_file_shrinks(tmp_path) -> None:
    store = Store(tmp_path)
    for number, length in enumerate((6_000_000, 10)):
        visitor, digest = new_visitor(), f"digest {number}"
        content = {"name": "mine", "text": "x" * length}
        table = digest, content, True
        store.put(f"run {number}", visitor, "finished", {"table": digest}, number, table=table)
    assert store.sweep(-1.0, 7_000_000) == []
    assert store.sweep(-1.0, 1_000_000) == ["run 0"]
    assert count(store, "tables") == 1 and (tmp_path / "runs.sqlite").stat().st_size < 1_000_000
    store.close()


def test_a_run_whose_weights_are_lost_is_kept_as_long_as_others(reopen, tiny, words) -> None:
    ann, clock = new_visitor(), Clock()
    registry = reopen(Limits(idle_minutes=1), clock=clock)
    run = submit(registry, tiny, words, ann)
    wait(run)
    registry.close()
    change(reopen.store, "UPDATE runs SET weights = ''")
    registry = reopen(Limits(idle_minutes=1), clock=clock)
    assert registry.get(ann, run.id).lost
    clock.now += 3600
    registry.sweep()
    assert registry.get(ann, run.id).events == run.events


def test_a_file_that_no_row_names_is_swept(tmp_path) -> None:
    made = weight_files.WeightFiles(tmp_path / "weights")
    with made.new(weights_of(3, {"a": torch.ones(2)})) as name:
        assert torch.equal(made.read(name)["a"], torch.ones(2))
    made.sweep([])
    assert files(tmp_path) == []


def test_a_table_of_many_texts_is_told_from_another(reopen, tiny, words) -> None:
    """A visitor's table under a name that was there before takes its place in the list."""
    ann, registry = new_visitor(), reopen()
    other = Task("mine", ("no", "yes"), words.train, (Example("win", 1),) * 4, words.test)
    for table in (own(words, "mine"), other):
        registry.add_task(ann, table)
        wait(submit(registry, tiny, table, ann))
    (kept,) = reopen().tasks(ann)
    assert kept.validation == other.validation
