"""No two functions that make up for missed calls listen to one event: they would never end."""

from __future__ import annotations

import gradio as gr
import pytest

from lora_core.serving.registry import Registry
from lora_core.ui import triggers
from lora_core.ui.page import build_page


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    with Registry() as registry:
        return build_page(registry)


def test_no_event_is_shared(page: gr.Blocks) -> None:
    assert not triggers.shared(page)
    assert {function.name for function in triggers.last_calls(page)} >= {"classify", "judge"}


def test_each_still_has_a_trigger(page: gr.Blocks) -> None:
    for function in triggers.last_calls(page):
        if function.trigger_after is None:
            assert function.targets
        else:  # the step before it listens in its place
            assert page.fns[function.trigger_after].targets


def test_none_reads_the_data_of_an_event(page: gr.Blocks) -> None:
    """What is made up for has the data of the call before."""
    for function in triggers.last_calls(page):
        assert not function.collects_event_data, function.name


def test_what_is_shared_is_found_and_mended() -> None:
    with gr.Blocks() as page:
        box, other = gr.Textbox(), gr.Textbox()
        box.change(lambda text: text, box, other)
        box.change(lambda text: text, box, other)
        box.change(None, box, None, js="() => []")
        assert triggers.shared(page) == {(box._id, "change")}
        triggers.separate(page)
    assert not triggers.shared(page)
