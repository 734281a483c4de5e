"""Functions of which only the last call matters, each with a trigger of its own.

Gradio calls this "always_last", and it is what `change` does by default. In Gradio 6.31 a call that
came while another of its function ran is made up for by raising the *whole* event once more: every
function that listens to it runs again, and where a second one of this kind does, the two make up
for each other for ever. An idle page then sends seven or eight requests a second. So each gets an
event that nobody else listens to: a step in the browser that does nothing, and after it the
function. Nor do they wait for one another any more.

What is raised again is the event of the call before, with its data. So a function of this kind
reads no event data, but what the page shows when it is called.
"""

from __future__ import annotations

from collections import Counter

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.events import EventListenerMethod

Target = tuple[int | None, str]  # a component's id and the name of its event


def last_calls(page: gr.Blocks) -> list[BlockFunction]:
    """The functions of this kind; what the browser does alone is over at once."""
    functions = [function for function in page.fns.values() if function.fn is not None]
    return [function for function in functions if function.trigger_mode == "always_last"]


def shared(page: gr.Blocks) -> set[Target]:
    """The events that more than one of them listens to."""
    targets = [target for function in last_calls(page) for target in function.targets]
    listeners = Counter(target for target in targets if target[1] != "then")
    return {target for target, count in listeners.items() if count > 1}


def separate(page: gr.Blocks) -> None:
    """Give them events of their own. Call it when the page is built, within its `with`."""
    crowded = shared(page)
    for function in last_calls(page):
        if not crowded.intersection(function.targets):
            continue
        _, step = page.default_config.set_event_trigger(
            [
                EventListenerMethod(None if block is None else page.blocks[block], name)
                for block, name in function.targets
            ],
            fn=None,
            inputs=None,
            outputs=None,
            js="() => []",
            trigger_mode="multiple",
            show_progress="hidden",
            api_visibility="private",
        )
        function.targets, function.trigger_after = [(None, "then")], step
