"""What board, desk and pupils are sent over a real server, and what a stranger gets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pytest

from lora_core.base.checkpoint import Base
from lora_core.room.room import Room
from lora_core.room.table import COLUMNS
from lora_core.serving.registry import Registry
from lora_core.ui import room_feed
from lora_core.ui.room_routes import COOKIE
from tests.room.served import SECRET, Line, pupil, submit, until
from tests.serving.registry import Gate, wait

CLOSED = ("/room/desk", "/room/runs.csv", "/room/report.html")


@pytest.fixture
def stranger(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def teacher(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.post("/room/enter", json={"key": SECRET}).status_code == 200
        yield client


def test_who_guesses_gets_what_a_stranger_gets(stranger: httpx.Client, room: Room) -> None:
    nothing = stranger.get("/not/there")
    guesses = ({}, {"key": ""}, {"key": SECRET[:-1]}, {"key": [SECRET]}, {"key": room.key.pass_})
    answers = [stranger.post("/room/enter", json=guess) for guess in guesses]
    answers.append(stranger.post("/room/enter", content=b"no json"))
    answers += [stranger.get(path) for path in CLOSED]
    answers.append(stranger.post("/room/do", json={"do": "end"}))
    for cookie in ("", SECRET, room.key.pass_[:-1]):
        headers = {"Cookie": f"{COOKIE}={cookie}"}
        answers += [stranger.get(path, headers=headers) for path in CLOSED]
    for answer in answers:
        assert (answer.status_code, answer.text) == (404, nothing.text)
        assert "set-cookie" not in answer.headers
    assert room.lesson.over is None
    assert stranger.get("/desk").text == stranger.get("/desk", params={"key": "guess"}).text


def test_the_key_is_in_nothing_that_is_sent(teacher: httpx.Client, room: Room) -> None:
    answer = teacher.post("/room/enter", json={"key": SECRET})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and SECRET not in cookie
    for path in ("/board", "/desk", "/room/runs.csv", "/room/report.html"):
        got = teacher.get(path)
        assert got.status_code == 200 and SECRET not in got.text
        assert got.headers["referrer-policy"] == "no-referrer"
        assert room.key.pass_ not in got.text


def test_what_is_no_route_or_no_action(teacher: httpx.Client) -> None:
    for path in ("/room", "/room/", "/room/file/secret.js", "/room/file/..%2Fexercises.toml"):
        assert teacher.get(path).status_code == 404, path
    assert teacher.post("/room/do", json={"do": "dance"}).status_code == 404
    form = teacher.post("/room/do", data={"do": "end"})
    assert form.status_code == 404, "a form of another page sends no JSON"
    for value in (99, "1", None):
        refused = teacher.post("/room/do", json={"do": "offer", "value": value})
        assert refused.status_code == 409 and refused.json()["detail"]


def test_two_boards_see_what_the_teacher_does(teacher: httpx.Client, url: str) -> None:
    boards = [Line(f"{url}/room/board") for _ in range(2)]

    def do(what: str, value: object = None) -> None:
        assert teacher.post("/room/do", json={"do": what, "value": value}).status_code == 200

    do("offer", 5)
    do("clock", 300)
    do("pause", True)
    for board in boards:
        state = board.wait(lambda s: s["lesson"]["paused"] and s["clock"]["ends"])
        assert "20,000" in state["lesson"]["goal"] and state["join"]["code"].startswith("<svg")
    do("end")
    for board in boards:
        board.wait(lambda s: s["lesson"]["over"] and s["clock"]["ends"] is None)
        board.close()


def test_a_line_that_was_cut_comes_back_with_everything(
    url: str, room: Room, registry: Registry, tiny: Base
) -> None:
    board = Line(f"{url}/room/board")
    board.wait(lambda s: s["counts"]["ended"] == 0)
    board.close()
    wait(*(submit(registry, tiny, pupil(i), seed=i) for i in range(2)))
    room.offer(2)
    again = Line(f"{url}/room/board")
    state = again.wait(lambda s: s["votes"]["n"] == 2)
    assert state["counts"]["ended"] == 2 and state["scatter"].count("<circle") == 3
    assert state["lesson"]["title"] == room.exercises[1].title
    again.close()
    until(lambda: room.listeners == 0)


def test_a_silent_line_says_that_it_is_alive(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_feed, "_ALIVE", 0.3)
    board = Line(f"{url}/room/board")
    board.wait(lambda s: "votes" in s)
    until(lambda: len(board.raw) >= 3)
    assert json.loads(board.raw[-1][6:]).keys() == {"now"}
    board.close()


def test_a_pupils_line_is_not_woken_by_runs(
    url: str, room: Room, registry: Registry, tiny: Base
) -> None:
    """Sixty pages would be looked at for each run of each pupil."""
    page = Line(f"{url}/room/pupil?ticket={room.join(pupil(1)).ticket}")
    page.wait(lambda s: "me" in s)
    woken: list[bool] = []
    room.listen(lambda: woken.append(True), lesson=True)
    wait(submit(registry, tiny, pupil(1)))
    until(lambda: len(room.records()) == 1 and len(room.voters("sentiment")) == 1)
    assert woken == []
    room.pause(True)
    page.wait(lambda s: s["lesson"]["paused"])
    assert woken == [True]
    page.close()


def test_only_what_has_changed_is_sent(url: str, room: Room) -> None:
    board = Line(f"{url}/room/board")
    board.wait(lambda s: "votes" in s)
    room.pause(True)
    board.wait(lambda s: s["lesson"]["paused"])
    assert "join" not in board.raw[-1] and "lesson" in board.raw[-1]
    board.close()


def test_a_pupils_page(url: str, room: Room, stranger: httpx.Client) -> None:
    ticket = stranger.post("/room/join", json={"visitor": pupil(1)}).json()["ticket"]
    assert stranger.post("/room/join", json={"visitor": "short"}).status_code == 409
    page = Line(f"{url}/room/pupil?ticket={ticket}")
    name = page.wait(lambda s: "me" in s)["me"]["name"]
    assert len(room.pupils()) == 1
    offered = stranger.post("/room/name", json={"ticket": ticket}).json()["names"]
    assert name not in [one["name"] for one in offered]
    chosen = offered[2]["name"]
    taken = stranger.post("/room/name", json={"ticket": ticket, "name": chosen})
    assert taken.status_code == 200
    page.wait(lambda s: s["me"]["name"] == chosen)
    rude = stranger.post("/room/name", json={"ticket": ticket, "name": "typed by me"})
    assert rude.status_code == 409
    room.offer(2)
    state = page.wait(lambda s: s["exercise"])
    assert state["exercise"]["locked"] and "rank" in state["exercise"]["locked"]
    room.offer(3)
    page.wait(lambda s: s["exercise"] and "rank" not in s["exercise"]["locked"])
    assert stranger.get("/room/pupil", params={"ticket": "guess"}).status_code == 409
    more = [Line(f"{url}/room/pupil?ticket={ticket}") for _ in range(3)]
    for line in more:
        line.wait(lambda s: "me" in s)
    assert stranger.get("/room/pupil", params={"ticket": ticket}).status_code == 409
    for line in (page, *more):
        line.close()
    until(lambda: room.pupils() == [], "who has run nothing and has no page open is not here")


def test_the_queue_is_on_the_board(
    url: str, room: Room, registry: Registry, tiny: Base, gate: Gate
) -> None:
    board = Line(f"{url}/room/board")
    runs = [submit(registry, tiny, pupil(i), seed=i) for i in range(6)]
    state = board.wait(lambda s: s["counts"]["waiting"] == 5)
    assert state["counts"]["training"] == 1
    assert len(state["queue"]["next"]) == 3 and state["queue"]["more"] == 2
    assert [one["name"] for one in state["queue"]["next"]] == ["", "", ""]
    room.show_names(True)
    state = board.wait(lambda s: all(one["name"] for one in s["queue"]["next"]))
    assert len(state["pupils"]) == 6
    gate.opened.set()
    wait(*runs)
    board.wait(lambda s: s["counts"]["ended"] == 6 and not s["queue"]["next"])
    board.close()


def test_the_table_and_the_report_open_by_themselves(
    teacher: httpx.Client, room: Room, registry: Registry, tiny: Base
) -> None:
    room.offer(5)
    wait(*(submit(registry, tiny, pupil(i), seed=i, rank=2 + i) for i in range(3)))
    until(lambda: len(room.votes.curve("sentiment", [1, 2, 3])) == 3)
    answer = teacher.get("/room/runs.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert "attachment" in answer.headers["content-disposition"]
    assert tuple(rows[0]) == COLUMNS and [row["run"] for row in rows] == ["1", "2", "3"]
    assert {row["exercise"] for row in rows} == {"The best under 20,000"}
    assert all(0 <= float(row["validation_accuracy"]) <= 1 for row in rows)
    page = teacher.get("/room/report.html").text
    assert page.count("<svg") == 2 and page.count("<tr>") == 3 + 3 + 2
    for outside in ("http://", "https://", "<script", "<link", "url(", "<img", "<iframe"):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")
