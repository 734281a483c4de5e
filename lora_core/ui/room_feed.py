"""Live pages without polling: server-sent events, whole at first, then what has changed.

Whoever connects gets everything, so a line that was cut comes back with everything. A picture is
made and packed once for all that look at the same thing, at most a few times a second.
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
_ALIVE = 15.0  # seconds of silence after which the time is sent: who hears nothing asks anew
_STEP = 0.05  # seconds that a picture may be old: two boards share one

View = dict[str, Any]
Packed = dict[str, bytes]  # JSON of each entry


class Picture:
    """A view of the room, made in a thread, shared by all who ask at the same time."""

    def __init__(self, room: Room, make: Callable[[], View]) -> None:
        self._room, self._make = room, make
        self._lock = asyncio.Lock()
        self._made: tuple[int, float, Packed] | None = None

    async def now(self) -> Packed:
        """The view as it is."""
        async with self._lock:
            version, now = self._room.version, time.monotonic()
            if self._made is None or self._made[0] != version or now - self._made[1] > _STEP:
                self._made = version, now, await asyncio.to_thread(self._pack)
            return self._made[2]

    def _pack(self) -> Packed:
        return packed(self._make())


def packed(view: View) -> Packed:
    """Each entry by itself, so that those that have changed can be sent."""
    return {key: orjson.dumps(value) for key, value in view.items()}


async def events(
    room: Room,
    look: Callable[[], Awaitable[Packed]],
    gone: asyncio.Future[None],
    *,
    ticks: bool = False,
    lesson: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of what `look()` gives: all entries at first, then those that changed.

    `gone` is done when nobody reads any more. `ticks`: whether it changes by itself, too, while
    somebody waits. `lesson`: whether only the lesson changes it, no run.
    """
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    room.listen(wake, lesson=lesson)
    gone.add_done_callback(lambda _: woken.set())
    sent: dict[str, bytes] = {}
    quiet = 0.0
    try:
        yield b"retry: 1000\n\n"
        while not room.closed and not gone.done():
            woken.clear()
            now = await look()
            new = {key: value for key, value in now.items() if sent.get(key) != value}
            if new or quiet >= _ALIVE:
                sent, quiet = now, 0.0
                yield _message(new, room.now())
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
