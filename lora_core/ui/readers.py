"""Whether anybody still reads what a live stream sends, and an end for answers that nobody fetches.

Gradio ends the generator of a closed stream at its next `yield` only, and that of a stream which
nobody ever opened not at all: it goes on filling a list. A run that waits yields nothing for
minutes, so a watcher looks for itself. What is read here was found in Gradio 6.31: a closed stream
sets `Event.alive` to False, and what was sent lies in the session's queue until it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from gradio.context import LocalContext

from lora_core.limits import RunError
from lora_core.serving.watchers import Watchers

_LOOK_SECONDS = 10.0
KEPT_SECONDS = 300.0  # in which an answer may be fetched; only looks count, as in a watcher
KEPT_MESSAGES = 5000  # of all sessions that nobody reads; a page that is open has none for long


async def looks(
    watchers: Watchers, owner: str, seconds: float, address: str = ""
) -> AsyncGenerator[None, None]:
    """One item now and every `seconds`, as long as there is a reader and a place for one.

    `owner`: the run or the visitor whose bound this watcher counts for; `address`: see
    `Watchers.admit`. Call it within the function
    of an event. Raises `RunError` where the place was taken by a newer watcher, or where what was
    sent lay unread for too long: whoever comes to read after all is told, and waits for no more.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    request = LocalContext.request.get(None)
    session = request.session_hash if request is not None else None
    queue = blocks._queue if blocks is not None else None
    event = queue.event_ids_to_events.get(event_id) if queue is not None and event_id else None
    watcher = watchers.admit(owner, address)
    try:
        while True:
            yield
            await asyncio.sleep(seconds)
            if queue is None or event is None:
                continue
            sent = queue.pending_messages_per_session.get(session) if session else None
            if not event.alive or sent is None:
                return
            if watcher.gone(not sent.empty(), seconds):
                if watcher.ended.is_set():
                    raise RunError(
                        "This run, or this visitor, is watched from many places at once, so the "
                        "oldest one ends here. Close some of them and reload this one."
                    )
                raise RunError(
                    "Nobody fetched what was sent here for a while, so it ends. Nothing is lost: "
                    "reload the page, or ask again."
                )
    finally:
        watchers.leave(watcher)


def make_room(blocks: object, watchers: Watchers) -> None:
    """Give watchers job slots of their own, so that those that Gradio has are left for answers.

    Call it after `launch`. A slot costs nothing: a watcher takes no thread.
    """
    slots: list[object] = blocks._queue.active_jobs  # type: ignore[attr-defined]
    slots += [None] * watchers.in_all


class Unread:
    """The sessions of Gradio's queue whose answers nobody fetches.

    Gradio keeps what it answered until it is read, of up to 2,000 sessions and without a bound for
    each. A session that is forgotten is one that Gradio does not know: its reader is told so.
    """

    def __init__(self, blocks: object) -> None:
        """`blocks`: launched."""
        self._queue = blocks._queue  # type: ignore[attr-defined]
        self._first: dict[str, tuple[object, float]] = {}  # oldest unread message, unread since

    def look(self, seconds: float) -> list[str]:
        """Forget the sessions that have lain unread for too long, or are too many; which.

        `seconds` since the last look.
        """
        unread: dict[str, int] = {}
        seen: dict[str, tuple[object, float]] = {}
        pending = self._queue.pending_messages_per_session
        for session in list(pending):  # the names alone: visitors come and go meanwhile
            messages = pending.get(session)
            waiting = list(messages._queue) if messages is not None else []
            if waiting:
                unread[session] = len(waiting)
                first, before = self._first.get(session, (None, 0.0))
                seen[session] = waiting[0], before + seconds if first is waiting[0] else 0.0
        forgotten = [name for name, (_, since) in seen.items() if since >= KEPT_SECONDS]
        rest = sorted(seen.keys() - set(forgotten), key=lambda name: seen[name][1])
        in_all = sum(unread[name] for name in rest)
        while in_all > KEPT_MESSAGES:
            forgotten.append(rest.pop())
            in_all -= unread[forgotten[-1]]
        for session in forgotten:
            self._forget(session)
            del seen[session]
        self._first = seen
        return forgotten

    def _forget(self, session: str) -> None:
        """As Gradio does where a reader's line breaks; what still runs has nobody to tell."""
        for events in self._queue.active_jobs:
            for event in events or ():
                if event.session_hash == session:
                    event.alive = False
        self._queue.pending_messages_per_session.pop(session, None)
        for event_id in self._queue.pending_event_ids_session.pop(session, ()):
            self._queue.event_ids_to_events.pop(event_id, None)


def forget_unread(blocks: object, ended: threading.Event) -> None:
    """Look after the sessions of a launched page, in a thread, until `ended`."""

    def look() -> None:
        unread = Unread(blocks)
        while not ended.wait(_LOOK_SECONDS):
            # The server's thread adds to what is looked at; the next look sees it whole.
            with contextlib.suppress(RuntimeError):
                unread.look(_LOOK_SECONDS)

    threading.Thread(target=look, name="unread answers", daemon=True).start()
