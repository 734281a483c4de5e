"""No two functions that make up for missed calls listen to one event: they would never end."""

from __future__ import annotations

import gradio as gr
import pytest
from gradio.block_function import BlockFunction

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


def heard(page: gr.Blocks, function: BlockFunction) -> set[triggers.Target]:
    """The events that a function answers, also where a step stands before it."""
    before = function.trigger_after
    step = function if before is None else page.fns[before]
    return set(step.targets)


def test_a_choice_is_never_ignored(page: gr.Blocks) -> None:
    """Gradio's "once" drops what comes while an answer is on its way, without a word. That is right
    for a button: the same again. A choice or a file is another one."""
    for function in page.fns.values():
        if function.fn is None or function.trigger_mode != "once":
            continue
        for block, event in heard(page, function):
            name = getattr(page.blocks.get(block), "elem_id", "")  # type: ignore[arg-type]
            button = event == "click" or (name, event) == ("experiment-run", "select")
            assert button or event in ("load", "then", "success"), (name, event, function.name)


def test_no_answer_puts_back_what_its_next_call_asks_for(page: gr.Blocks) -> None:
    """The call that is made up for sends what is shown by then."""
    for function in triggers.last_calls(page):
        set_by_answer = {(output._id, "change") for output in function.outputs}
        set_by_answer |= {(output._id, "input") for output in function.outputs}
        assert not set_by_answer & heard(page, function), function.name


def test_what_is_shared_is_found_and_mended() -> None:
    with gr.Blocks() as page:
        box, other = gr.Textbox(), gr.Textbox()
        box.change(lambda text: text, box, other)
        box.change(lambda text: text, box, other)
        box.change(None, box, None, js="() => []")
        assert triggers.shared(page) == {(box._id, "change")}
        triggers.separate(page)
    assert not triggers.shared(page)
