"""The store of a server that keeps nothing (`--data none`): empty, and it stays so."""

# What each does is said in `Store`.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lora_core.serving.store import Row, Store


class Nowhere(Store):
    """Answers as an empty store does; nothing is written."""

    def __init__(self) -> None:
        self.notes = []

    def close(self) -> None: ...

    def put(self, *_: Any, **__: Any) -> bool:
        return False

    def use(self, used: Mapping[str, float], clock: float) -> None: ...

    def delete(self, run_id: str) -> bool:
        return True

    def delete_table(self, visitor: str, name: str) -> None: ...

    def delete_visitor(self, visitor: str) -> bool:
        return True

    def interrupt(self) -> None: ...

    def sweep(self, oldest: float, max_bytes: int) -> list[str]:
        return []

    def of(self, visitor: str) -> list[Row]:
        return []

    def waiting(self) -> list[Row]:
        return []

    def visitor_of(self, run_id: str) -> str | None:
        return None

    def own_tables(self, visitor: str) -> list[str]:
        return []

    def weights_step(self, run_id: str) -> int | None:
        return None

    def weights(self, run_id: str) -> dict[str, Tensor]:
        return {}

    def clock(self) -> float:
        return 0.0
