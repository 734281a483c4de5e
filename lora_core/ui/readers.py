"""Whether anybody still reads what a live stream sends.

Gradio ends the generator of a closed stream at its next `yield` only, and that of a stream which
nobody ever opened not at all: it goes on filling a list. A run that waits yields nothing for
minutes, so a watcher looks for itself. What is read here was found in Gradio 6.31: a closed stream
sets `Event.alive` to False, and what was sent lies in the session's queue until it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from gradio.context import LocalContext

from lora_core.limits import RunError
from lora_core.serving.watchers import Watchers


async def looks(
    watchers: Watchers, owner: str, seconds: float, address: str = ""
) -> AsyncGenerator[None, None]:
    """One item now and every `seconds`, as long as there is a reader and a place for one.

    `owner`: the run or the visitor whose bound this watcher counts for; `address`: see
    `Watchers.admit`. Call it within the function
    of an event. Raises `RunError` where the place was taken by a newer watcher.
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
                return
    finally:
        watchers.leave(watcher)


def make_room(blocks: object, watchers: Watchers) -> None:
    """Give watchers job slots of their own, so that those that Gradio has are left for answers.

    Call it after `launch`. A slot costs nothing: a watcher takes no thread.
    """
    slots: list[object] = blocks._queue.active_jobs  # type: ignore[attr-defined]
    slots += [None] * watchers.in_all
