"""A class in one room: who is here, all its runs, the lesson, and the vote of all adapters.

Figures only: nothing that a visitor typed comes in here, so nothing of it can go out. Knows nothing
of the page; `ui.room_views` puts its numbers into words and pictures.
"""

from __future__ import annotations

from lora_core.errors import LabError


class RoomError(LabError, ValueError):
    """Something that cannot be done in a room; the message says why."""
