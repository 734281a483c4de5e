"""The routes of a room: board, desk, what they are sent, and what the teacher asks for.

The key travels once, in the body of a request, from the part of the teacher's link that no browser
sends (behind the `#`); afterwards a cookie opens the desk. Whoever has neither gets what any
stranger gets, whatever was tried.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lora_core.room import RoomError
from lora_core.room.room import Room
from lora_core.ui import room_views
from lora_core.ui.drawing.browser_part import ASSETS, address
from lora_core.ui.drawing.colours import variables
from lora_core.ui.room_feed import Packed, Picture, events, packed
from lora_core.ui.room_report import csv_of, report
from lora_core.ui.text.catalogue import say, sentences

FOLDER = ASSETS / "room"
COOKIE = "lora_lab_desk"
_BOARDS, _DESKS = 24, 8  # streams at once; a pupil's are counted by the room
_PUPILS = 400
_HOURS = 14  # of the cookie
_SECURE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILES = {
    "board.js": "text/javascript",
    "desk.js": "text/javascript",
    "room.js": "text/javascript",
    "band.js": "text/javascript",
}


class Routes:
    """All of them, over one room."""

    def __init__(self, room: Room, outside: str = "") -> None:
        """`outside`: the address of the page for other machines; "": the one that was asked."""
        self.room, self.outside = room, outside
        self._results = room_views.Results(room)
        self._boards: dict[str, Picture] = {}
        self._desks: dict[str, Picture] = {}
        self._streams = {"board": 0, "desk": 0, "pupils": 0}

    def routes(self) -> list[Route]:
        """For Starlette; `gate.ROOM` lets them through."""
        return [
            Route("/board", self.board),
            Route("/desk", self.desk),
            Route("/room/file/{name}", self.file),
            Route("/room/board", self.board_events),
            Route("/room/desk", self.desk_events),
            Route("/room/pupil", self.pupil_events),
            Route("/room/enter", self.enter, methods=["POST"]),
            Route("/room/do", self.do, methods=["POST"]),
            Route("/room/join", self.join, methods=["POST"]),
            Route("/room/name", self.name, methods=["POST"]),
            Route("/room/runs.csv", self.csv),
            Route("/room/report.html", self.report),
        ]

    # Pages -----------------------------------------------------------------------------------

    async def board(self, request: Request) -> Response:
        """The page for the projector: open to all, for it has figures only."""
        return _page("board", say("room.title"))

    async def desk(self, request: Request) -> Response:
        """The teacher's page: empty until its script has shown the key."""
        return _page("desk", say("room.desk"))

    async def file(self, request: Request) -> Response:
        """Their scripts."""
        kind = _FILES.get(request.path_params["name"])
        if kind is None:
            return _not_found()
        body = (FOLDER / request.path_params["name"]).read_bytes()
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    # Streams ---------------------------------------------------------------------------------

    async def board_events(self, request: Request) -> Response:
        """What the board shows, live."""
        picture = self._picture(
            self._boards,
            request,
            lambda where: room_views.board(self.room, where, self._results),
        )
        return self._stream(request, "board", _BOARDS, picture.now)

    async def desk_events(self, request: Request) -> Response:
        """What the desk shows, live; for who has the cookie."""
        if not self._may(request):
            return _not_found()
        picture = self._picture(
            self._desks, request, lambda where: room_views.desk(self.room, where)
        )
        return self._stream(request, "desk", _DESKS, picture.now)

    def _picture(
        self, pictures: dict[str, Picture], request: Request, make: Callable[[str], dict[str, Any]]
    ) -> Picture:
        """The picture that all share who ask under the same address."""
        where = self.where(request)
        picture = pictures.get(where)
        if picture is None:
            picture = Picture(self.room, lambda: make(where))
            if len(pictures) < 20:  # addresses that are one machine's
                pictures[where] = picture
        return picture

    async def pupil_events(self, request: Request) -> Response:
        """What a pupil's page shows of the room, live."""
        ticket = request.query_params.get("ticket")
        try:
            pupil = self.room.pupil(ticket)
        except RoomError as error:
            return JSONResponse({"detail": str(error)}, 409)

        async def look() -> Packed:
            return packed(room_views.band(self.room, pupil))

        def opened() -> Callable[[], None]:
            self.room.opened(pupil)
            return lambda: self.room.left(pupil)

        return self._stream(request, "pupils", _PUPILS, look, opened)

    def where(self, request: Request) -> str:
        """The address that pupils open. A board that was opened on this machine itself is asked
        under an address that nobody else can use."""
        host = request.url.hostname or ""
        if self.outside and host in ("127.0.0.1", "localhost", "::1"):
            return self.outside
        return str(request.base_url)

    def _stream(
        self,
        request: Request,
        kind: str,
        most: int,
        look: Callable[[], Awaitable[Packed]],
        opened: Callable[[], Callable[[], None]] = lambda: lambda: None,
    ) -> Response:
        if self._streams[kind] >= most:
            return _busy()

        async def counted() -> AsyncIterator[bytes]:
            # Only here: a response that is never sent is never begun, and would stay counted.
            left = opened()
            self._streams[kind] += 1
            gone = asyncio.ensure_future(_left(request))
            source = events(self.room, look, gone, ticks=kind == "board", lesson=kind == "pupils")
            try:
                async with aclosing(source) as stream:
                    async for part in stream:
                        yield part
            finally:
                gone.cancel()
                self._streams[kind] -= 1
                left()

        headers = {**_SECURE, "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)

    # The teacher -----------------------------------------------------------------------------

    async def enter(self, request: Request) -> Response:
        """The key for the cookie; a wrong one is answered as if there were no such route."""
        body = await _json(request)
        if not self.room.key.opens(body.get("key")):
            return _not_found()
        answer = JSONResponse({"ok": True}, headers=_SECURE)
        answer.set_cookie(
            COOKIE,
            self.room.key.pass_,
            max_age=3600 * _HOURS,
            path=(request.scope.get("root_path") or "") + "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def do(self, request: Request) -> Response:
        """What a button of the desk asks for: {"do": …, "value": …}."""
        if not self._may(request) or not _is_json(request):
            return _not_found()
        body = await _json(request)
        room, value = self.room, body.get("value")
        actions: dict[str, Callable[[], None]] = {
            "offer": lambda: room.offer(value),
            "pause": lambda: room.pause(value is True),
            "stop": room.stop_all,
            "clock": lambda: room.set_clock(value),
            "more": lambda: room.set_clock(value, more=True),
            "names": lambda: room.show_names(value is True),
            "reveal": lambda: room.reveal(value is True),
            "end": room.end,
            "begin": room.begin,
        }
        action = actions.get(str(body.get("do")))
        if action is None:
            return _not_found()
        return await _done(action)

    async def csv(self, request: Request) -> Response:
        """One row a run."""
        return await self._saved(request, lambda: csv_of(self.room), "text/csv", "csv")

    async def report(self, request: Request) -> Response:
        """The lesson on one page, without a network."""
        return await self._saved(request, lambda: report(self.room), "text/html", "html")

    async def _saved(
        self, request: Request, make: Callable[[], str], kind: str, end: str
    ) -> Response:
        if not self._may(request):
            return _not_found()
        day = datetime.fromtimestamp(self.room.lesson.begun).strftime("%Y-%m-%d")
        name = f"lora-lab-{day}.{end}"
        headers = {**_SECURE, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(await asyncio.to_thread(make), media_type=kind, headers=headers)

    def _may(self, request: Request) -> bool:
        return self.room.key.passes(request.cookies.get(COOKIE))

    # Pupils ----------------------------------------------------------------------------------

    async def join(self, request: Request) -> Response:
        """{"visitor": token} -> the ticket with which a page listens and chooses a name."""
        body = await _json(request)
        try:
            pupil = await asyncio.to_thread(self.room.join, body.get("visitor"))
        except RoomError as error:
            return JSONResponse({"detail": str(error)}, 409)
        return JSONResponse({"ticket": pupil.ticket, "name": str(pupil.name)}, headers=_SECURE)

    async def name(self, request: Request) -> Response:
        """{"ticket": …} -> names to choose from; with "name": take one of them."""
        body = await _json(request)
        ticket, name = body.get("ticket"), body.get("name")
        if name is not None:
            return await _done(lambda: self.room.rename(ticket, name))
        try:
            offered = await asyncio.to_thread(self.room.names_for, ticket)
        except RoomError as error:
            return JSONResponse({"detail": str(error)}, 409)
        names = [{"name": str(one), "colour": one.colour} for one in offered]
        return JSONResponse({"names": names}, headers=_SECURE)


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


async def _left(request: Request) -> None:
    """Until whoever asked has gone: else a closed tab would be seen at the next message only."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _is_json(request: Request) -> bool:
    """A form of another site cannot send this kind; the cookie would not come with it, either."""
    return request.headers.get("content-type", "").split(";")[0].strip() == "application/json"


async def _done(action: Callable[[], None]) -> Response:
    try:
        await asyncio.to_thread(action)
    except RoomError as error:
        return JSONResponse({"detail": str(error)}, 409)
    return JSONResponse({"ok": True}, headers=_SECURE)


def _not_found() -> Response:
    return JSONResponse({"detail": "Not Found"}, 404)


def _busy() -> Response:
    return JSONResponse({"detail": "Too many pages are open. Try again in a minute."}, 503)


def _page(name: str, title: str) -> Response:
    return HTMLResponse(_html(name, title), headers=_SECURE)


@functools.cache
def _html(name: str, title: str) -> str:
    said = {key: text for key, text in sentences().items() if key.startswith("room.")}
    catalogue = json.dumps(said, ensure_ascii=False).replace("</", r"<\/")
    scripts = (
        f'<script>window.LabSentences = {catalogue};</script><script src="{address("lab.js")}">'
    )
    scripts += "</script>" + "".join(
        f'<script src="{file_address(script)}"></script>' for script in ("room.js", f"{name}.js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title} · LoRA Lab</title>"
        '<link rel="icon" type="image/png" href="favicon.ico">'
        f"<style>{stylesheet()}</style></head>"
        f'<body class="room-{name}"><div class="gradio-container" id="{name}"></div>'
        f"{scripts}</body></html>"
    )


def file_address(name: str) -> str:
    """Where the browser finds a script of the room; changes with its content."""
    digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:10]
    return f"room/file/{name}?v={digest}"


def stylesheet() -> str:
    """The look of board, desk and figures."""
    return "\n".join(
        [
            variables(),
            room_views.pupil_colours(),
            *(_read(FOLDER / n) for n in ("figures.css", "room.css")),
        ]
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
