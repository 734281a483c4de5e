"""Whose turn is it: addresses in turn, and the visitors of each address in turn.

Knows nothing about training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Items of a visitor come in their order; visitors come one item at a time, in turn.

    A visitor with ten items waiting therefore holds up another by one item, not by ten, and
    nobody can be overtaken without end: who comes new, or comes back, joins the end of the round.
    Not thread-safe: the owner locks.
    """

    def __init__(self) -> None:
        self._round: deque[str] = deque()  # visitors with something waiting, next one first
        self._lines: dict[str, deque[Item]] = {}

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def waiting(self, visitor: str) -> int:
        """How many items of this visitor wait."""
        return len(self._lines.get(visitor, ()))

    def add(self, visitor: str, item: Item) -> None:
        """Put an item at the end of this visitor's line."""
        if visitor not in self._lines:
            self._lines[visitor] = deque()
            self._round.append(visitor)
        self._lines[visitor].append(item)

    def take(self) -> Item | None:
        """The next item, or None; its visitor goes to the end of the round."""
        if not self._round:
            return None
        visitor = self._round.popleft()
        line = self._lines[visitor]
        item = line.popleft()
        if line:
            self._round.append(visitor)
        else:
            del self._lines[visitor]
        return item

    def discard(self, visitor: str, item: Item) -> bool:
        """Take an item out of its line; False if it does not wait."""
        line = self._lines.get(visitor)
        if line is None or item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[visitor]
            self._round.remove(visitor)
        return True

    def order(self) -> list[Item]:
        """All items in the order in which `take` will give them if nothing is added."""
        return _in_turn([list(self._lines[visitor]) for visitor in self._round])


class Rounds(Generic[Item]):
    """Turns within turns: addresses come one item at a time, and so do the visitors of each.

    Anybody can invent a visitor for every call, but not so easily an address: ninety visitors of
    one address hold up somebody at another by one item, not by ninety. Not thread-safe.
    """

    def __init__(self) -> None:
        self._addresses: deque[str] = deque()  # with something waiting, next one first
        self._turns: dict[str, Turns[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def waiting(self, visitor: str) -> int:
        """How many items of this visitor wait, from any address."""
        return sum(turns.waiting(visitor) for turns in self._turns.values())

    def waiting_at(self, address: str) -> int:
        """How many items of this address wait."""
        return len(self._turns.get(address, ()))

    def add(self, address: str, visitor: str, item: Item) -> None:
        """Put an item at the end of this visitor's line."""
        if address not in self._turns:
            self._turns[address] = Turns()
            self._addresses.append(address)
        self._turns[address].add(visitor, item)

    def take(self) -> Item | None:
        """The next item, or None; its address goes to the end of the round."""
        if not self._addresses:
            return None
        address = self._addresses.popleft()
        item = self._turns[address].take()
        if self._turns[address]:
            self._addresses.append(address)
        else:
            del self._turns[address]
        return item

    def discard(self, address: str, visitor: str, item: Item) -> bool:
        """Take an item out of its line; False if it does not wait."""
        turns = self._turns.get(address)
        if turns is None or not turns.discard(visitor, item):
            return False
        if not turns:
            del self._turns[address]
            self._addresses.remove(address)
        return True

    def order(self) -> list[Item]:
        """All items in the order in which `take` will give them if nothing is added."""
        return _in_turn([self._turns[address].order() for address in self._addresses])


def _in_turn(lines: Sequence[Sequence[Item]]) -> list[Item]:
    deepest = max(map(len, lines), default=0)
    return [line[depth] for depth in range(deepest) for line in lines if depth < len(line)]
