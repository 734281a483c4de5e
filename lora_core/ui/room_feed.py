"""Live pages without polling: server-sent events, whole at first, then what has changed.

Whoever connects gets everything, so a line that was cut comes back with everything. A picture is
made once for all that look at the same thing, at most a few times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson

from lora_core.room.room import Room

_GATHER = 0.2  # seconds in which changes become one message
_LOOK = 1.0  # seconds after which times of the queue are looked at again
_ALIVE = 15.0  # seconds of silence after which a line is said to be alive
_STEP = 0.05  # seconds that a picture may be old: two boards share one

View = dict[str, Any]


class Picture:
    """A view of the room, made in a thread, shared by all who ask at the same time."""

    def __init__(self, room: Room, make: Callable[[], View]) -> None:
        self._room, self._make = room, make
        self._lock = asyncio.Lock()
        self._made: tuple[int, float, View] | None = None

    async def now(self) -> View:
        """The view as it is."""
        async with self._lock:
            version, now = self._room.version, time.monotonic()
            if self._made is None or self._made[0] != version or now - self._made[1] > _STEP:
                self._made = version, now, await asyncio.to_thread(self._make)
            return self._made[2]


async def events(
    room: Room, look: Callable[[], Awaitable[View]], gone: asyncio.Future[None], *, ticks: bool
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of what `look()` gives: a dict at first, then its entries that changed.

    `gone` is done when nobody reads any more. `ticks`: whether it changes by itself, too, while
    somebody waits.
    """
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    room.listen(wake)
    gone.add_done_callback(lambda _: woken.set())
    sent: dict[str, bytes] = {}
    quiet = 0.0
    try:
        yield b"retry: 1000\n\n"
        while not room.closed and not gone.done():
            woken.clear()
            view = await look()
            packed = {key: orjson.dumps(value) for key, value in view.items()}
            new = {key: value for key, value in packed.items() if sent.get(key) != value}
            if new:
                sent, quiet = packed, 0.0
                yield _message(new, room.now())
            elif quiet >= _ALIVE:
                quiet = 0.0
                yield b": alive\n\n"
            pause = _LOOK if ticks and room.live() else _ALIVE
            begin = loop.time()
            try:
                await asyncio.wait_for(woken.wait(), pause)
                if not gone.done():
                    await asyncio.sleep(_GATHER)
            except TimeoutError:
                pass
            quiet += loop.time() - begin
    finally:
        room.unlisten(wake)


def _message(entries: dict[str, bytes], now: float) -> bytes:
    parts = [b'"now":%d' % round(1000 * now)]
    parts += [orjson.dumps(key) + b":" + value for key, value in entries.items()]
    return b"data: {" + b",".join(parts) + b"}\n\n"
