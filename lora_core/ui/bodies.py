"""How much a stranger may send: bounded bodies, in bounded time, of a bounded shape.

What the page sends is small: settings, a text, the name of a file. The web API sends texts and
rows. JSON grows in memory to a hundred times its size when it is made of empty lists, so its parts
are counted before Gradio makes objects of them, twice. An uploaded file is streamed, and measured.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import anyio.to_thread
import orjson
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_core.limits import MEGABYTE

JSON_MB = 4  # a table of 50,000 rows has about 4 MB; a larger one comes as a file
MANY_PARTS = 400_000  # values, lists and objects: a table of 50,000 rows has 150,000
BUFFERED_MB = 64  # of all requests together that have not arrived completely
PATIENCE = 60.0  # seconds for a JSON body to arrive, and for the next part of a file
_UPLOAD_ROOM = MEGABYTE  # for the names of files and the lines between them
_AT_ONCE = 100_000  # bytes that are read without a thread
_NAMES = ("session_hash", "event_id", "fn_index", "trigger_id", "api_name")
_LONG_NAME = 100  # characters
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


class Bodies:
    """ASGI middleware: refuses with a sentence what is too large, too slow or an address."""

    def __init__(self, app: ASGIApp, *, upload_mb: int) -> None:
        self.app = app
        # Two files of an adapter come in one request.
        self.upload_bytes = 2 * upload_mb * MEGABYTE + _UPLOAD_ROOM
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything without a body passes through untouched."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        if scope["path"].endswith("/gradio_api/upload"):
            await self._measure(scope, receive, send)
            return
        body = bytearray()
        try:
            refusal = await self._read(scope, receive, body) or await looked_at(bytes(body))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            waiting = True

            async def again() -> Message:
                nonlocal waiting
                if waiting:
                    waiting = False
                    return {"type": "http.request", "body": bytes(body), "more_body": False}
                return await receive()

            await self.app(scope, again, send)
        finally:
            self.buffered -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> JSONResponse | None:
        """Fill `body`, which counts in `buffered` until the request is over, or refuse."""
        if length(scope) > JSON_MB * MEGABYTE:
            return _refusal(413, _TOO_LONG)
        more = True
        try:
            async with asyncio.timeout(PATIENCE):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _refusal(400, "The connection broke off.")
                    part = message.get("body", b"")
                    more = message.get("more_body", False)
                    body += part
                    self.buffered += len(part)
                    if len(body) > JSON_MB * MEGABYTE:
                        return _refusal(413, _TOO_LONG)
                    if self.buffered > BUFFERED_MB * MEGABYTE:
                        return _refusal(503, "The server is busy. Try again in a minute.")
        except TimeoutError:
            return _refusal(408, "The request did not arrive in a minute.")
        return None

    async def _measure(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand an upload on as it comes, up to the cap."""
        refusal = PlainTextResponse(
            f"Files of at most {self.upload_bytes // MEGABYTE} MB together can be uploaded.", 413
        )
        if length(scope) > self.upload_bytes:
            await refusal(scope, receive, send)
            return
        total = 0

        async def counted() -> Message:
            nonlocal total
            try:
                async with asyncio.timeout(PATIENCE):
                    message = await receive()
            except TimeoutError:  # nothing came for a minute: a connection that is only held
                return {"type": "http.disconnect"}
            total += len(message.get("body", b""))
            if total > self.upload_bytes:
                return {"type": "http.disconnect"}  # only without a true length in its head
            return message

        await self.app(scope, counted, send)


def length(scope: Scope) -> int:
    """What the head of a request promises, in bytes; 0 where it says nothing that is a number."""
    for key, value in scope["headers"]:
        if key == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def looked_at(body: bytes) -> JSONResponse | None:
    """A refusal of a body that has too many parts, or an address where a file should be."""
    if len(body) < _AT_ONCE:
        return examined(body)
    return await anyio.to_thread.run_sync(examined, body)


def examined(body: bytes) -> JSONResponse | None:
    """The same, at once. What is no JSON, or nested a thousand deep, goes no further either."""
    if not body:
        return None
    if many_parts(body):
        return _refusal(413, f"This request has more than {MANY_PARTS:,} values.")
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _refusal(400, "This is no JSON that can be read.")
    if isinstance(value, dict):
        for name in _NAMES:  # Gradio keeps them, some for ever
            if len(str(value.get(name, ""))) > _LONG_NAME:
                return _refusal(400, f"{name} is longer than {_LONG_NAME} characters.")
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            path = one.get("path")
            if isinstance(path, str) and _ADDRESS.match(path):
                return _refusal(400, "A file is needed, not an address: this server fetches none.")
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
    return None


def many_parts(body: bytes) -> bool:
    """Whether JSON has more values than are taken, told without making an object of any.

    A million empty lists are four megabytes to send, a hundred to hold, and stop all other threads
    while they are made.
    """
    if sum(map(body.count, _SIGNS)) <= MANY_PARTS:
        return False
    # Without what is escaped, quotation marks tell inside from outside; two beside each other hold
    # nothing between them and change nothing of that.
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_SIGNS)
    outside = b"".join(bare.replace(b'""', b"").split(b'"')[::2])
    return sum(map(outside.count, _SIGNS)) > MANY_PARTS


_SIGNS = (b",", b"[", b"{")  # each value but the first follows one of them
_NO_SIGNS = bytes(byte for byte in range(256) if byte not in b',[{"')


_TOO_LONG = (
    f"This request is longer than {JSON_MB} MB. Send less at a time; a large table can be dropped "
    "on the page as a file."
)


def _refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)
