"""What the server keeps of a session: the choices that it was given, and not a copy of the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
import pytest

from lora_core.ui.sessions import KEPT
from tests.ui.strangers import page_served


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page_served() as address:
        yield address


def holder() -> Any:
    return next(page for page in gr.Blocks.instances if page.is_running).state_holder


def joined(url: str, session: str, number: int, data: list[Any]) -> str:
    """What a function of the page answers a session."""
    body = {"data": data, "fn_index": number, "session_hash": session}
    httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60).raise_for_status()
    return httpx.get(f"{url}/gradio_api/queue/data?session_hash={session}", timeout=60).text


def test_choices_that_a_session_was_given_are_its_own(url) -> None:
    """After a table was dropped, its columns can be chosen, by whoever dropped it."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    calls = {tuple(target): d for d in config["dependencies"] for target in d["targets"]}
    dropped = calls[ids["own-file"], "upload"]["id"]
    lines = "Weather,Words\n" + "".join(f"{['wet', 'dry'][i % 2]},day {i}\n" for i in range(60))
    (path,) = httpx.post(
        f"{url}/gradio_api/upload", files={"files": ("a.csv", lines.encode())}, timeout=60
    ).json()
    table = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert "Weather" in joined(url, "mine", dropped, ["v" * 40, table])
    chosen = calls[ids["own-label"], "input"]
    data: list[Any] = [None] * len(chosen["inputs"])
    data[:2], data[chosen["inputs"].index(ids["own-label"])] = ["v" * 40, table], "Weather"
    assert "a.csv" in joined(url, "mine", chosen["id"], data)
    data[chosen["inputs"].index(ids["own-sheet"])] = "Weather"
    assert "Weather is not in the list of choices" in joined(url, "another", chosen["id"], data)


@pytest.mark.parametrize("value", [[], {}, [[[]]], 7, "no such <b>choice"], ids=str)
def test_what_no_control_can_send_is_a_sentence_without_a_traceback(url, value, capfd) -> None:
    """The visitor, and the value of a list, in every function of the page that takes them."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    kinds = {c["id"]: c["type"] for c in config["components"]}
    for function in config["dependencies"]:
        asked = [kinds[component] for component in function["inputs"]]
        if "browserstate" in asked[:1] or "dropdown" in asked:
            said = joined(url, f"junk {function['id']}", function["id"], [value] * len(asked))
            assert "<b>choice is not in" not in said, said
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("value", [None, [], {"a": None}], ids=str)
def test_what_no_script_of_the_page_sends_is_no_fault_of_the_program(url, value, caplog) -> None:
    """Nothing, or nonsense, in every box, list and record of every function, and as what a press
    brings along: a sentence or no answer, and no line in the host's log."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    for function in config["dependencies"]:
        if function["backend_fn"]:
            body = {"fn_index": function["id"], "session_hash": f"{value} {function['id']}"}
            body |= {"data": [value] * len(function["inputs"]), "event_data": value}
            httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60).raise_for_status()
            stream = f"{url}/gradio_api/queue/data"
            said = httpx.get(stream, params={"session_hash": body["session_hash"]}, timeout=60)
            assert "log says where" not in said.text, function["api_name"]
    assert "failed" not in caplog.text and "Traceback" not in caplog.text


def test_of_a_session_little_is_kept_and_of_many_some(url) -> None:
    kept = holder()
    for number in range(KEPT + 50):
        kept[f"session {number}"]
    assert len(kept.session_data) == KEPT
    assert not any(session.config_values for session in kept.session_data.values())
