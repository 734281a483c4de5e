"""Friendly names for people who need not say who they are: a colour and an animal."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

# The hue on a light and on a dark page; each at least 3:1 there. Twelve that a name tells apart.
COLOURS: dict[str, tuple[str, str]] = {
    "amber": ("#a86a00", "#f2b33d"),
    "azure": ("#1173c4", "#5cb3f5"),
    "coral": ("#d1483a", "#ff8b7d"),
    "crimson": ("#b0143c", "#f26b8a"),
    "emerald": ("#0f7d4e", "#3fc98a"),
    "golden": ("#8a7300", "#e6cf4a"),
    "indigo": ("#4646c2", "#9a9aff"),
    "olive": ("#66701a", "#b9c455"),
    "plum": ("#86358c", "#d78be0"),
    "rose": ("#c22f7e", "#f58cc0"),
    "silver": ("#66707c", "#b6c0cc"),
    "teal": ("#00788a", "#35c4d6"),
}
ANIMALS = (
    *("badger", "beaver", "crane", "dolphin", "falcon", "finch", "fox", "gecko", "hare", "heron"),
    *("ibis", "koala", "lemur", "lynx", "marten", "newt", "otter", "owl", "panda", "puffin"),
    *("robin", "seal", "swift", "tapir", "tiger", "turtle", "walrus", "wombat", "wren", "zebra"),
)
OFFERED = 6  # names to choose from at a time
MOST = len(COLOURS) * len(ANIMALS)  # people in one room


@dataclass(frozen=True)
class Pseudonym:
    """A name that two words make; nobody types one."""

    colour: str
    animal: str

    def __str__(self) -> str:
        return f"{self.colour} {self.animal}"

    @classmethod
    def of(cls, name: str) -> Pseudonym:
        """The pseudonym of such a text. Raises `ValueError` for any other."""
        colour, _, animal = name.partition(" ")
        if colour not in COLOURS or animal not in ANIMALS:
            raise ValueError("This is no pseudonym.")
        return cls(colour, animal)


def free_names(taken: Iterable[Pseudonym], number: int, chance: random.Random) -> list[Pseudonym]:
    """Up to so many names that nobody has, of colours and animals that are rare in the room."""
    used = set(taken)
    colours = [name.colour for name in used]
    animals = [name.animal for name in used]
    free = [
        name for name in (Pseudonym(c, a) for c in COLOURS for a in ANIMALS) if name not in used
    ]
    chance.shuffle(free)
    chosen: list[Pseudonym] = []
    while free and len(chosen) < number:
        # Neither the animal nor the colour of one that is offered already, where that is possible.
        best = min(
            free,
            key=lambda n: (
                animals.count(n.animal) + sum(n.animal == c.animal for c in chosen),
                colours.count(n.colour) + sum(n.colour == c.colour for c in chosen),
            ),
        )
        free.remove(best)
        chosen.append(best)
    return chosen
