"""The room itself, over a real registry that trains: pupils, runs, lesson, vote, restart."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.base.checkpoint import Base
from lora_core.room import RoomError
from lora_core.room.people import People
from lora_core.room.pseudonyms import MOST
from lora_core.room.room import STOPPED, Room
from lora_core.room.runs import Point, best_within, groups, pareto_front
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store
from lora_core.ui import room_views
from lora_core.ui.drawing.room_figures import scatter
from lora_core.ui.room_report import csv_of, report
from tests.room.served import TASK, pupil, room_over, submit, until
from tests.serving.registry import Clock, Gate, wait

TYPED = "a text of mine that nobody may read"


def test_runs_appear_as_they_end_with_their_figures(
    room: Room, registry: Registry, tiny: Base
) -> None:
    runs = [submit(registry, tiny, pupil(i), rank=2 + i, seed=i) for i in range(3)]
    wait(*runs)
    until(lambda: len(room.records()) == 3)
    for run, record in zip(runs, sorted(room.records(), key=lambda r: r.rank), strict=True):
        evaluated = [e for e in run.events if isinstance(e, lc.Evaluated) and e.best]
        assert record.validation == evaluated[-1].validation_accuracy
        assert run.test_score is not None and record.test == run.test_score.accuracy
        assert run.classifier is not None
        assert record.trained == lc.predict_parameters(tiny.config, run.lora_config, 2).trainable
        assert (record.task, record.base, record.seed) == (TASK, "tiny", run.train_config.seed)
        assert record.seconds > 0 and record.state == "finished"
    assert room.live() == [] and len(room.pupils()) == 3


def test_the_vote_is_the_accuracy_of_the_mean_and_grows(
    room: Room, registry: Registry, tiny: Base
) -> None:
    runs = [submit(registry, tiny, pupil(i), seed=i, steps=8) for i in range(3)]
    wait(*runs)
    until(lambda: len(room.votes.curve(TASK, [1, 2, 3])) == 3)
    rows = lc.load_task(TASK).validation
    truth = torch.tensor([row.label for row in rows])
    total = torch.zeros(len(rows), 2, dtype=torch.float64)
    expected = []
    for n, run in enumerate(runs, start=1):
        classifier = run.classifier
        assert classifier is not None
        total += classifier.probabilities([classifier.encode(r.text) for r in rows]).double()
        expected.append(float(((total / n).argmax(-1) == truth).double().mean()))
    assert room.votes.curve(TASK, [1, 2, 3]) == pytest.approx(expected)


def test_a_run_that_is_removed_leaves_the_board(room: Room, registry: Registry, tiny: Base) -> None:
    run, other = (submit(registry, tiny, pupil(1), seed=i) for i in range(2))
    wait(run, other)
    until(lambda: len(room.records()) == 2)
    until(lambda: len(room.voters(TASK)) == 1)
    registry.remove(pupil(1), run.id)
    until(lambda: len(room.records()) == 1)
    until(lambda: [r.seed for r in room.voters(TASK)] == [1], "the other one votes instead")
    assert room_views.board(room, "http://here/")["votes"]["n"] == 1


def test_one_vote_each_by_the_best_adapter(room: Room, registry: Registry, tiny: Base) -> None:
    """Whoever runs a sweep has no more votes than whoever trained once."""
    sweep = [submit(registry, tiny, pupil(1), seed=i, steps=8, learning_rate=0.01) for i in (1, 2)]
    sweep += [submit(registry, tiny, pupil(1), rank=4, seed=3)]
    wait(*sweep)
    wait(submit(registry, tiny, pupil(2), seed=9))
    until(lambda: len(room.records()) == 4)
    best: dict[int, float] = {}
    for record in room.records():
        assert record.validation is not None
        best[record.pupil] = max(best.get(record.pupil, 0.0), record.validation)
    until(lambda: {r.pupil: r.validation for r in room.voters(TASK)} == best)
    voters = room.voters(TASK)
    curve, median = room_views.election(room, TASK)
    assert len(curve) == 2 and median == pytest.approx(sum(best.values()) / 2)
    assert curve == room.votes.curve(TASK, [r.number for r in voters])
    line = room_views.board(room, "http://here/")["votes"]["line"]
    assert line.startswith("2 people, one vote each: their best adapter. Alone: ")
    assert "The mean of 2 votes" in report(room)


def test_what_an_exercise_fixes_stays_until_another_is_used_or_none(
    tmp_path: Path, registry: Registry
) -> None:
    room = room_over(registry, tmp_path)
    one, other = room.join(pupil(1)), room.join(pupil(2))
    room.offer(2)
    assert room_views.band(room, one)["using"] is None, "offered is not yet used"
    room.use(pupil(1))
    held = room_views.band(room, one)["using"]
    assert held["offer"] == 1 and "rank" in held["locked"]
    assert room_views.band(room, other)["using"] is None
    name, number = str(one.name), one.number
    room.offer(3)
    assert room_views.band(room, one)["using"] == held
    room.close()
    room = room_over(registry, tmp_path)  # after a restart
    one = room.join(pupil(1))
    assert (str(one.name), one.number) == (name, number)
    assert room_views.band(room, one)["using"] == held
    assert str(room.join(pupil(2)).name) == str(other.name), "who has run nothing keeps the name"
    assert room.pupils() == []
    room.use(pupil(1))
    assert "rank" not in room_views.band(room, one)["using"]["locked"]
    room.offer(0)
    assert room_views.band(room, one)["using"] is None
    room.offer(2)
    assert room_views.band(room, one)["using"] is None, "the next one is not used by itself"
    room.use(pupil(1))
    room.end()
    assert room_views.band(room, one)["using"] is None
    room.close()


def test_no_text_of_a_visitor_is_in_anything_that_is_sent(
    room: Room, registry: Registry, tiny: Base, words: lc.Task
) -> None:
    named = replace(words, name=TYPED, labels=(f"{TYPED} no", f"{TYPED} yes"))
    bundled = lc.load_task(TASK)
    disguised = replace(bundled, labels=(f"{TYPED} 1", f"{TYPED} 2"))
    foreign = Base(TYPED, tiny.model, tiny.tokenizer, "tests")
    runs = [
        submit(registry, tiny, pupil(1), named),
        submit(registry, tiny, pupil(2), disguised),
        submit(registry, foreign, pupil(3), watch=(TYPED,)),
    ]
    wait(*runs)
    until(lambda: len(room.records()) == 3)
    room.offer(5)
    room.show_names(True)
    room.reveal(True)
    sent = [
        json.dumps(room_views.board(room, "http://here/")),
        json.dumps(room_views.desk(room, "http://here/")),
        *(json.dumps(room_views.band(room, one)) for one in room.pupils()),
        csv_of(room),
        report(room),
    ]
    secrets = [TYPED, *(run.id for run in runs), *(pupil(i) for i in range(4))]
    for text in sent:
        assert not [secret for secret in secrets if secret in text]
    assert csv_of(room).count("own table") == 2 and ",other," in csv_of(room)


def test_names_and_test_accuracy_are_sent_only_once_they_are_shown(
    room: Room, registry: Registry, tiny: Base
) -> None:
    wait(*(submit(registry, tiny, pupil(i), seed=i) for i in range(2)))
    until(lambda: len(room.records()) == 2)
    names = [str(one.name) for one in room.pupils()]
    hidden = json.dumps(room_views.board(room, "http://here/"))
    assert not [name for name in names if name in hidden] and "test accuracy" not in hidden
    room.show_names(True)
    shown = json.dumps(room_views.board(room, "http://here/"))
    assert all(name in shown for name in names)
    room.reveal(True)
    revealed = room_views.board(room, "http://here/")
    assert revealed["runs"]["revealed"] and "test accuracy" in revealed["scatter"]
    room.show_names(False)
    room.reveal(False)
    assert json.dumps(room_views.board(room, "http://here/")) == hidden


def test_pause_stop_and_end(room: Room, registry: Registry, tiny: Base, gate: Gate) -> None:
    room.pause(True)
    waiting = submit(registry, tiny, pupil(1))
    until(lambda: len(room.live()) == 1)
    assert waiting.state == "waiting" and gate.started == []
    board = room_views.board(room, "http://here/")
    assert board["counts"] == {"here": 1, "training": 0, "waiting": 1, "ended": 0}
    assert len(board["queue"]["next"]) == 1 and board["lesson"]["paused"]
    room.pause(False)
    room.pause(False)
    gate.wait_for(1)
    behind = submit(registry, tiny, pupil(2))
    room.stop_all()
    wait(waiting, behind)
    assert waiting.reason == behind.reason == STOPPED
    room.pause(True)
    room.end()
    room.end()
    assert not registry.paused, "who stays on may go on"
    for refused in (
        lambda: room.offer(1),
        lambda: room.pause(True),
        room.stop_all,
        lambda: room.set_clock(60),
    ):
        with pytest.raises(RoomError, match="has ended"):
            refused()
    until(lambda: len(room.records()) == 2)
    gate.opened.set()
    wait(submit(registry, tiny, pupil(1)))
    assert len(room.records()) == 2, "runs after the end are nobody's affair"
    room.begin()
    assert room.records() == [] and room.lesson.over is None
    with pytest.raises(RoomError, match="End this lesson first"):
        room.begin()


def test_the_clock_and_the_exercises_have_their_bounds(room: Room) -> None:
    for value in (-1, 3 * 3600 + 1, "60", None, 1.5, True):
        with pytest.raises(RoomError):
            room.set_clock(value)
    for value in (7, -1, "1", None, True):
        with pytest.raises(RoomError):
            room.offer(value)
    room.set_clock(60)
    assert room.lesson.ends_at == pytest.approx(room.now() + 60, abs=5)
    room.set_clock(300, more=True)
    assert room.lesson.ends_at == pytest.approx(room.now() + 360, abs=5)
    room.set_clock(3 * 3600, more=True)
    assert room.lesson.ends_at == pytest.approx(room.now() + 3 * 3600, abs=5), "and no longer"
    room.set_clock(0)
    assert room.lesson.ends_at is None
    room.offer(5)
    assert room.exercise is not None and room.exercise.most_trained == 20_000
    room.offer(0)
    assert room.exercise is None


def test_a_name_is_chosen_among_those_offered_and_had_once(room: Room) -> None:
    one, other = room.join(pupil(1)), room.join(pupil(2))
    assert one.name != other.name and room.join(pupil(1)) is one
    offered = [str(name) for name in room.names_for(one.ticket)]
    assert len(offered) == 6 and offered == [str(n) for n in room.names_for(one.ticket)]
    with pytest.raises(RoomError, match="Choose one"):
        room.rename(one.ticket, "rude word")
    with pytest.raises(RoomError, match="Choose one"):
        room.rename(one.ticket, str(other.name))
    other.offered = list(one.offered)
    room.rename(one.ticket, offered[0])
    assert str(one.name) == offered[0]
    with pytest.raises(RoomError, match="Somebody else"):
        room.rename(other.ticket, offered[0])
    for ticket in ("", None, pupil(1), other.visitor):
        with pytest.raises(RoomError):
            room.names_for(ticket)


def test_a_room_has_a_bound_and_who_only_passed_by_is_forgotten() -> None:
    clock = Clock()
    people = People(clock)
    for number in range(MOST):
        people.open(people.join(pupil(number)))
    with pytest.raises(RoomError, match="full"):
        people.join(pupil(MOST))
    for one in people:
        people.close(one)
    clock.now += 3600
    assert people.join(pupil(MOST)).name


def test_who_joins_again_and_again_keeps_nobody_out() -> None:
    """Anybody can invent tokens: whoever only joined makes room for the next one, and nobody who
    has a page open or has run something."""
    clock = Clock()
    people = People(clock)
    here, trained = people.join(pupil(0)), people.join(pupil(1))
    people.open(here)
    trained.has_run = True
    for number in range(2, 2 * MOST):
        clock.now += 0.01
        latest = people.join(pupil(number))
    known = list(people)
    assert here in known and trained in known and latest in known and len(known) == MOST
    assert people.join(pupil(2 * MOST - 2)).ticket in [one.ticket for one in known]


@pytest.mark.parametrize("visitor", [None, 3, "", "short", "x" * 201, ["x" * 20]])
def test_what_is_no_token_joins_nothing(room: Room, visitor: object) -> None:
    with pytest.raises(RoomError):
        room.join(visitor)
    assert room.everybody() == []


def test_after_a_restart_the_lesson_goes_on(tmp_path: Path, tiny: Base) -> None:
    store = Store(tmp_path)
    with Registry(workers=1, store=store) as registry:
        room = room_over(registry, tmp_path)
        wait(*(submit(registry, tiny, pupil(i), seed=i, steps=8) for i in range(2)))
        until(lambda: len(room.votes.curve(TASK, [1, 2])) == 2)
        room.offer(5)
        room.set_clock(600)
        room.show_names(True)
        room.pause(True)
        before = room_views.board(room, "http://here/")
        table = csv_of(room)
        room.close()
    with Registry(workers=1, store=Store(tmp_path)) as registry:
        registry.take_up(lambda *_: tiny)
        room = room_over(registry, tmp_path)
        room.recount()
        until(lambda: len(room.votes.curve(TASK, [1, 2])) == 2)
        after = room_views.board(room, "http://here/")
        assert registry.paused and csv_of(room) == table
        for name in ("lesson", "clock", "scatter", "votes", "runs"):
            assert after[name] == before[name], name
        room.close()


def test_a_lesson_of_another_day_or_a_broken_file_begins_anew(
    tmp_path: Path, registry: Registry
) -> None:
    room = room_over(registry, tmp_path, clock=lambda: 1000.0)
    room.offer(2)
    room.close()
    for content in ((tmp_path / "room.json").read_text(), "{", '{"lesson": 3}', "[]"):
        (tmp_path / "room.json").write_text(content, encoding="utf-8")
        other = room_over(registry, tmp_path)
        assert other.lesson.exercise == 0 and other.lesson.begun > 1000
        other.close()
        (tmp_path / "room.json").unlink()


def test_medians_spread_and_the_front() -> None:
    some = [
        Point(1, 1, "2", 100, 0.7),
        Point(2, 2, "2", 100, 0.9),
        Point(3, 3, "2", 100, 0.8),
        Point(4, 4, "8", 400, 0.85),
        Point(5, 5, "8", 400, 0.95),
        Point(6, 6, "full", 9000, 0.95),
    ]
    two, eight, full = groups(some)
    assert (two.median, two.low, two.high, two.runs) == (0.8, 0.7, 0.9, 3)
    assert eight.median == pytest.approx(0.9) and full.runs == 1
    assert [p.number for p in pareto_front(some)] == [2, 5]
    best = best_within(some, 300)
    assert best is not None and best.number == 2 and best_within(some, 99) is None


@pytest.mark.parametrize("habit", [0.5, 0.505, 0.52, 0.6])
def test_the_line_of_habit_has_its_words_where_no_number_stands(habit: float) -> None:
    some = [Point(1, 1, "8", 318_000, 0.52), Point(2, 2, "8", 318_000, 0.65)]
    figure = scatter(some, groups(some), revealed=False, habit=habit)
    (y,) = [float(y) for y in re.findall(r'habit-name"[^>]* y="([\d.]+)"', figure)]
    numbers = [float(y) for y in re.findall(r'"axis mid"[^>]* y="([\d.]+)"', figure)]
    assert numbers and y < min(numbers) - 24, "a line of text is 27 high"


def test_a_run_that_never_began_has_no_learning_rate_in_the_table(
    room: Room, registry: Registry, tiny: Base, gate: Gate
) -> None:
    first = submit(registry, tiny, pupil(0))
    gate.wait_for(1)
    second = submit(registry, tiny, pupil(1))
    registry.stop(pupil(1), second.id)
    gate.opened.set()
    wait(first)
    until(lambda: len(room.records()) == 2)
    rates = {
        row["state"]: row["learning_rate"] for row in csv.DictReader(io.StringIO(csv_of(room)))
    }
    assert rates["stopped"] == "" and float(rates["finished"]) > 0


def test_the_table_keeps_every_digit_of_a_setting_and_both_times(
    room: Room, registry: Registry, tiny: Base
) -> None:
    lora = lc.LoRAConfig(8, 22.627416997969522, scaling="alpha/sqrt(rank)")
    train = lc.TrainConfig(steps=2, batch_size=4, evaluations=1, learning_rate=0.00123456789)
    wait(registry.submit(pupil(0), tiny, lc.load_task(TASK), lora, train))
    until(lambda: len(room.records()) == 1)
    (record,) = room.records()
    (row,) = csv.DictReader(io.StringIO(csv_of(room)))
    assert float(row["alpha"]) == lora.alpha
    assert float(row["learning_rate"]) == train.learning_rate
    assert float(row["processor_seconds"]) == pytest.approx(record.processor_seconds, abs=0.01)
    assert record.processor_seconds > 0 and row["seconds_trained"]
    assert "CPU s" in report(room) and "Seconds by the clock" in report(room)
