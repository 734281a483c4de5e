from __future__ import annotations

from collections.abc import Iterator

import pytest

from lora_core.room.room import Room
from lora_core.serving.registry import Registry
from tests.room.served import room_over, routes_served


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(workers=1) as made:
        yield made


@pytest.fixture
def room(registry: Registry) -> Iterator[Room]:
    made = room_over(registry)
    yield made
    made.close()


@pytest.fixture
def url(room: Room) -> Iterator[str]:
    with routes_served(room) as address:
        yield address
