"""The page's events without a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr


def pressed(page: gr.Blocks, elem_id: str) -> Callable[..., Any]:
    """What the page calls when this button is pressed, or this file dropped."""
    (block,) = [b for b in page.blocks.values() if getattr(b, "elem_id", None) == elem_id]
    functions = [
        event.fn
        for event in page.fns.values()
        if event.fn is not None and any(target == block._id for target, _ in event.targets)
    ]
    return functions[0]
