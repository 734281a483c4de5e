"""The web API under nonsense: wrong types, sizes, ids and orders, over raw HTTP.

No traceback reaches a client, no worker dies, and a sensible run afterwards works as before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import lora_core as lc
from tests.ui.test_api import SHORT, serving

ROUNDS = 120
NAMES = (
    *("count_parameters", "fine_tune", "watch", "stop", "go_on", "forget", "classify"),
    "export_adapter",
)
ARGUMENTS = {
    "count_parameters": 9,
    "fine_tune": 16,
    "watch": 2,
    "stop": 1,
    "go_on": 1,
    "forget": 1,
    "classify": 3,
    "export_adapter": 1,
}
_FORBIDDEN = ("Traceback", "site-packages", 'File "', ".py", "lora_core", "Error:")


@pytest.fixture(scope="module")
def url(tiny: lc.Base) -> Iterator[str]:
    with serving(tiny) as (address, _):
        yield address


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value: ordinary, extreme, hostile."""
    simple: list[Any] = [
        None,
        True,
        0,
        -1,
        1,
        8,
        2**63,
        10**400,
        -0.5,
        1e308,
        "",
        " ",
        "sms-spam",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "\x00\ud7ff\u202e",
        "A" * chance.choice([22, 43, 5000]),
        "'; drop table runs; --",
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"__type__": "update", "value": 1},
        ["query"],
        [["win", "spam"], ["hi", "ham"]],
    ]
    if depth < 3 and chance.random() < 0.2:
        items = [anything(chance, depth + 1) for _ in range(chance.randint(0, 4))]
        return items if chance.random() < 0.5 else {str(i): item for i, item in enumerate(items)}
    return chance.choice(simple)


def call(client: httpx.Client, url: str, name: str, body: Any) -> str:
    """Everything that the server says to one call."""
    posted = client.post(f"{url}/gradio_api/call/{name}", content=json.dumps(body))
    if posted.status_code != 200:
        return posted.text
    event = posted.json()["event_id"]
    with client.stream("GET", f"{url}/gradio_api/call/{name}/{event}") as response:
        return "".join(response.iter_text())


def check(answer: str, what: Any) -> None:
    for word in _FORBIDDEN:
        assert word not in answer, (what, answer[:500])


def works(client: httpx.Client, url: str) -> str:
    """A sensible run from start to end; its id."""
    values = dict.fromkeys(range(16))
    settings = {
        "base": "bundled",
        "method": "lora",
        "alpha": 4.0,
        "targets": ["query"],
        "scaling": "alpha/rank",
        "head": "train",
        "dropout": 0.0,
        "learning_rate": 0.0,
        "seed": 1,
        "watch_texts": [],
        "visitor": "",
        **SHORT,
    }
    order = [
        "task", "base", "method", "rank", "alpha", "targets", "scaling", "head", "dropout",
        "learning_rate", "steps", "batch_size", "seed", "watch_texts", "rows", "visitor",
    ]  # fmt: skip
    assert len(order) == len(values)
    answer = call(client, url, "fine_tune", {"data": [settings[name] for name in order]})
    run = json.loads(answer.split("data: ")[-1])[0]
    followed = call(client, url, "watch", {"data": [run, 0]})
    assert '"finished"' in followed, followed[-500:]
    return str(run)


def test_nonsense_gets_sentences_and_the_server_goes_on(url) -> None:
    chance = random.Random(5)
    with httpx.Client(timeout=120, headers={"content-type": "application/json"}) as client:
        run = works(client, url)
        for _ in range(ROUNDS):
            name = chance.choice(NAMES)
            arguments = [anything(chance) for _ in range(ARGUMENTS[name])]
            if chance.random() < 0.5 and name not in ("count_parameters", "fine_tune"):
                arguments[0] = run  # a real run, with nonsense about it
            if chance.random() < 0.2:
                arguments = arguments[: chance.randint(0, len(arguments))] * chance.randint(1, 3)
            answer = call(client, url, name, {"data": arguments})
            check(answer, (name, arguments))
        works(client, url)


def test_bodies_that_are_no_calls(url) -> None:
    with httpx.Client(timeout=120, headers={"content-type": "application/json"}) as client:
        for name in (*NAMES, "unknown", "..", "%00"):
            for content in (
                b"",
                b"{",
                b"[]",
                b"null",
                b'{"data": 3}',
                b"\xff\xfe",
                b'{"data"' * 50,
            ):
                posted = client.post(f"{url}/gradio_api/call/{name}", content=content)
                assert posted.status_code >= 400
                check(posted.text, (name, content))
        works(client, url)


def test_calls_in_a_senseless_order(url) -> None:
    chance = random.Random(6)
    with httpx.Client(timeout=120, headers={"content-type": "application/json"}) as client:
        run = works(client, url)
        for _ in range(30):
            name = chance.choice(("stop", "watch", "classify", "export_adapter"))
            extra = {"watch": [chance.randint(-9, 99)], "classify": [["win"], 1.0]}.get(name, [])
            answer = call(client, url, name, {"data": [run, *extra]})
            check(answer, name)
            assert "event: complete" in answer, (name, answer)
