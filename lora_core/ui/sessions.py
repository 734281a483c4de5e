"""What Gradio keeps of each open page: what it needs, and no copy of the whole page.

For its deep links, which are closed here (see `gate`), Gradio writes down every component of the
page for every session: 345 kB and a fiftieth of a second for each tab and each reload, kept for
10,000 of them, and anybody can name new sessions. What it needs besides is which components have
changed, such as the choices of a list. What is read here was found in Gradio 6.31.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gradio.state_holder import SessionState, StateHolder

KEPT = 2000  # sessions; those that were unused for longest go first


class Session(SessionState):
    """A session without the description of its components."""

    def __init__(self, blocks: Any) -> None:
        """`blocks`: the page."""
        none_described: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(none_described)

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class Sessions(StateHolder):
    """Sessions as above, made when they are first asked for."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)


def keep_little(blocks: object) -> None:
    """Let a page keep its sessions so. Call it after `launch`, before anybody visits."""
    blocks.state_holder.__class__ = Sessions  # type: ignore[attr-defined]
