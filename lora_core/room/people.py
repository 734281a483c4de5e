"""Who is in the room: pupils with their pseudonyms, found by their token or by a ticket."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lora_core.room import RoomError
from lora_core.room.pseudonyms import MOST, OFFERED, Pseudonym, free_names

_AWAY = 60.0  # seconds after which who has run nothing and has no page open may be forgotten
_SPARE = 60  # free names below which they are: a phone that sleeps before its first run stays known
_STREAMS = 4  # of one pupil: tabs


@dataclass(eq=False)
class Pupil:
    """Somebody in the room."""

    number: int
    visitor: str = field(repr=False)  # with whom runs share their turns: a visitor's secret token
    name: Pseudonym
    # What the pupil's page is known by: with it one can choose a name, and nothing else.
    ticket: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(16))
    offered: list[Pseudonym] = field(default_factory=list)
    streams: int = 0  # pages that are open
    seen: float = 0.0
    has_run: bool = False
    offer: int = 0  # the offer whose settings this pupil took, and the number of its exercise
    exercise: int = 0


class People:
    """All pupils. Not thread-safe: the room locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._chance = random.SystemRandom()
        self._by_visitor: dict[str, Pupil] = {}
        self._by_ticket: dict[str, Pupil] = {}
        self._last = 0

    def __iter__(self) -> Iterator[Pupil]:
        return iter(list(self._by_visitor.values()))

    def join(self, visitor: str) -> Pupil:
        """The pupil of a token, new or known. Raises `RoomError` in a full room."""
        pupil = self._by_visitor.get(visitor)
        if pupil is None:
            if len(self._by_visitor) > MOST - _SPARE:
                self.sweep()
            names = free_names(self._names(), 1, self._chance)
            passing = [p for p in self if not p.has_run and not p.streams]
            if not names and passing:
                # Anybody can invent tokens, and a page listens a moment after it has joined.
                self._forget(min(passing, key=lambda pupil: pupil.seen))
                names = free_names(self._names(), 1, self._chance)
            if not names:
                raise RoomError(f"This room is full: it has names for {MOST} people.")
            self._last += 1
            pupil = Pupil(self._last, visitor, names[0])
            self._add(pupil)
        pupil.seen = self._clock()
        return pupil

    def of_ticket(self, ticket: object) -> Pupil:
        """Raises `RoomError` for one that is not known here."""
        pupil = self._by_ticket.get(ticket) if isinstance(ticket, str) else None
        if pupil is None:
            raise RoomError("This room does not know you any more. Load the page again.")
        pupil.seen = self._clock()
        return pupil

    def offer(self, pupil: Pupil) -> list[Pseudonym]:
        """Free names to choose from; the same until one is chosen or taken by another."""
        taken = set(self._names())
        if len([n for n in pupil.offered if n not in taken]) < OFFERED:
            pupil.offered = free_names(taken, OFFERED, self._chance)
        return pupil.offered

    def rename(self, pupil: Pupil, name: object) -> None:
        """Take one of the names that were offered. Raises `RoomError`."""
        chosen = next((n for n in pupil.offered if str(n) == name), None)
        if chosen is None:
            raise RoomError("Choose one of the names that are offered.")
        if chosen in self._names():
            pupil.offered = []
            raise RoomError(f"Somebody else has just become “{chosen}”. Choose again.")
        pupil.name, pupil.offered = chosen, []

    def check_streams(self, pupil: Pupil) -> None:
        """Raise `RoomError` where too many pages of a pupil listen."""
        if pupil.streams >= _STREAMS:
            raise RoomError("This page is open in too many tabs.")

    def open(self, pupil: Pupil) -> None:
        """One more page of a pupil listens."""
        pupil.streams += 1
        pupil.seen = self._clock()

    def close(self, pupil: Pupil) -> None:
        """It listens no more."""
        pupil.streams -= 1
        pupil.seen = self._clock()

    def sweep(self) -> None:
        """Forget who only passed by."""
        now = self._clock()
        for pupil in list(self._by_visitor.values()):
            if not pupil.has_run and not pupil.streams and now - pupil.seen > _AWAY:
                self._forget(pupil)

    def use_none(self) -> None:
        """Nobody's page has the settings of an exercise any more."""
        for pupil in self._by_visitor.values():
            pupil.offer = pupil.exercise = 0

    def start_anew(self) -> None:
        """Of a new class nobody has run anything; who is here stays."""
        self.use_none()
        for pupil in list(self._by_visitor.values()):
            pupil.has_run = False
            if not pupil.streams:
                self._forget(pupil)

    def kept(self) -> list[dict[str, Any]]:
        """As JSON: everybody."""
        return [
            {
                "number": p.number,
                "visitor": p.visitor,
                "name": str(p.name),
                "ticket": p.ticket,
                "has_run": p.has_run,
                "offer": p.offer,
                "exercise": p.exercise,
            }
            for p in self._by_visitor.values()
        ]

    def take_up(self, pupils: Iterable[dict[str, Any]]) -> None:
        """What `kept` gave."""
        for one in pupils:
            name = Pseudonym.of(one["name"])
            pupil = Pupil(one["number"], one["visitor"], name, one["ticket"])
            pupil.seen, pupil.has_run = self._clock(), one["has_run"]
            pupil.offer, pupil.exercise = one["offer"], one["exercise"]
            self._add(pupil)
            self._last = max(self._last, pupil.number)

    def _add(self, pupil: Pupil) -> None:
        self._by_visitor[pupil.visitor] = pupil
        self._by_ticket[pupil.ticket] = pupil

    def _forget(self, pupil: Pupil) -> None:
        self._by_visitor.pop(pupil.visitor, None)
        self._by_ticket.pop(pupil.ticket, None)

    def _names(self) -> list[Pseudonym]:
        return [pupil.name for pupil in self._by_visitor.values()]
