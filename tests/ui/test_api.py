"""The web API over the wire: what each endpoint answers, and that every refusal is a sentence."""

from __future__ import annotations

import contextlib
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import lora_core as lc
from lora_core.limits import Limits
from lora_core.serving.bases import Bases
from lora_core.serving.registry import NOT_HERE, Registry, new_visitor
from lora_core.ui import api, api_experiments, files, sentences
from lora_core.ui.context import Context, Lab
from lora_core.ui.page import build_page
from tests.serving.registry import ENDLESS, LONG, tiny_base, wait, words_task

ROWS = [
    [f"{'win cash' if i % 2 else 'see you'} {i}", "spam" if i % 2 else "ham"] for i in range(60)
]
SHORT: dict[str, Any] = {"task": "mine", "rows": ROWS, "rank": 2, "steps": 24, "batch_size": 4}
SHORT |= {"learning_rate": 0.02}  # enough to be better than the untrained head


@contextlib.contextmanager
def serving(base: lc.Base, limits: Limits | None = None) -> Iterator[tuple[str, Registry]]:
    """A page with nothing but the API, on a free port."""
    with Registry(limits or Limits(), workers=1) as registry:
        lab = Lab(registry, bases=Bases(held={"bundled": base}))
        with gr.Blocks(analytics_enabled=False) as page:
            unused: Any = None
            api.build(Context(lab, page, visitor=unused, ready=unused, text=unused, pinned=unused))
        sentences.protect(page)
        page.queue(default_concurrency_limit=None)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, max_threads=128)
        try:
            yield url.rstrip("/"), registry
        finally:
            page.close(verbose=False)


@pytest.fixture(scope="module")
def server(tiny: lc.Base) -> Iterator[tuple[str, Registry]]:
    with serving(tiny, LONG) as started:
        yield started


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    made = Client(server[0], verbose=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(client) -> str:
    """A run that is over."""
    made = client.predict(**SHORT, watch_texts=["win cash"], api_name="/fine_tune")
    list(client.submit(made, api_name="/watch"))
    return made


def refused(client: Client, name: str, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AppError) as error:
        client.predict(*args, **kwargs, api_name=name)
    return str(error.value)


def test_the_names_are_listed_with_their_parameters_and_texts(server) -> None:
    info = httpx.get(f"{server[0]}/gradio_api/info").json()["named_endpoints"]
    assert set(info) == {f"/{name}" for name in api.ENDPOINTS}
    parameters = {p["parameter_name"]: p for p in info["/fine_tune"]["parameters"]}
    assert parameters["rank"]["type"] == {"type": "integer"}
    assert parameters["rank"]["parameter_default"] == 8
    assert parameters["targets"]["type"]["type"] == "array"
    assert "key to the run" in info["/fine_tune"]["description"]
    for endpoint in info.values():
        assert endpoint["description"] and endpoint["returns"]


def test_the_whole_page_keeps_the_names_and_shows_no_others() -> None:
    with Registry(workers=1) as registry:
        page = build_page(registry)
    public = {fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"}
    assert public == {*api.ENDPOINTS, *api_experiments.ENDPOINTS}


def test_count_parameters_agrees_with_the_model(client, tiny) -> None:
    answer = client.predict(rank=3, by_module=True, api_name="/count_parameters")
    model = tiny.classifier_model(2)
    lc.inject_lora(model, lc.LoRAConfig(rank=3))
    count = lc.count_parameters(model)
    assert (answer["trainable"], answer["total"]) == (count.trainable, count.total)
    assert answer["percent"] == pytest.approx(count.percent)
    assert answer["scale"] == pytest.approx(16 / 3)
    assert sum(m["trainable"] for m in answer["by_module"].values()) == count.trainable


def test_a_run_from_start_to_adapter(client, server, tiny, tmp_path) -> None:
    made = client.predict(**SHORT, watch_texts=["win cash"], api_name="/fine_tune")
    updates = list(client.submit(made, api_name="/watch"))
    events = [event for update in updates for event in update["events"]]
    assert updates[-1]["state"] == "finished" and updates[-1]["next"] == len(events)
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "started" and kinds[-1] == "finished" and "watched" in kinds
    assert [e["step"] for e in events if e["kind"] == "step"] == list(range(1, 25))
    assert events[0]["parameters"]["trainable"] > 0 and events[0]["device"]["reason"]
    assert updates[-1]["test"]["rows"] == 12
    json.dumps(updates)
    run = server[1].find(made)
    assert [e.step for e in run.events] == [e["step"] for e in events]
    answers = client.predict(made, ["win cash 3", "see you"], api_name="/classify")
    assert run.classifier is not None
    for text, answer in zip(["win cash 3", "see you"], answers, strict=True):
        expected = run.classifier.classify(text)
        assert answer["label"] == expected.label
        assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    client.output_dir = str(tmp_path)
    archive = client.predict(made, api_name="/export_adapter")
    with zipfile.ZipFile(archive) as file:
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(file.namelist())
        file.extractall(tmp_path / "adapter")
    again = lc.load_adapter(tmp_path / "adapter", tiny)
    assert again.classify("win cash 3").probabilities == pytest.approx(answers[0]["probabilities"])


def test_watching_goes_on_from_any_event(client, run) -> None:
    everything = [e for u in client.submit(run, api_name="/watch") for e in u["events"]]
    for since in (0, 1, len(everything) - 1, len(everything), len(everything) + 5, -3):
        updates = list(client.submit(run, since, api_name="/watch"))
        assert [e for u in updates for e in u["events"]] == everything[max(0, since) :]
        assert updates[-1]["state"] == "finished"


def test_strength_zero_is_the_base(client, server, run) -> None:
    zero, one = (client.predict(run, "win", s, api_name="/classify")[0] for s in (0.0, 1.0))
    assert zero["probabilities"] != one["probabilities"]
    assert "strength" in refused(client, "/classify", run, "win", 4.5)


def test_stop_over_the_wire(client, server) -> None:
    long = client.predict(**{**SHORT, "steps": ENDLESS}, api_name="/fine_tune")
    waiting = client.predict(**SHORT, api_name="/fine_tune")
    assert client.predict(waiting, api_name="/stop") == "stopped"
    job = client.submit(long, api_name="/watch")
    for update in job:
        if update["step"] > 2:
            break
    client.predict(long, api_name="/stop")
    last = list(client.submit(long, api_name="/watch"))[-1]
    assert last["state"] == "stopped" and last["step"] < ENDLESS
    assert client.predict(long, "win", api_name="/classify")[0]["label"] in ("ham", "spam")
    assert "nothing to classify" in refused(client, "/classify", waiting, "win")


def test_one_visitor_keeps_its_turns_and_a_weak_name_is_refused(client, server) -> None:
    visitor = new_visitor()
    made = [client.predict(**SHORT, visitor=visitor, api_name="/fine_tune") for _ in range(2)]
    assert [run.id for run in server[1].runs(visitor)] == made
    assert "16 to 200" in refused(client, "/fine_tune", **SHORT, visitor="bob")
    for run_id in made:
        list(client.submit(run_id, api_name="/watch"))


@pytest.mark.parametrize("guess", ["", "x", "A" * 22, 7, None, [], {"a": 1}, "../../etc/passwd"])
def test_guessed_ids_get_one_sentence_everywhere(client, guess) -> None:
    for name in ("/stop", "/go_on", "/forget"):
        assert NOT_HERE in refused(client, name, guess)
    assert NOT_HERE in refused(client, "/classify", guess, ["text"])
    assert NOT_HERE in refused(client, "/watch", guess)
    if guess is None or isinstance(guess, str):
        assert NOT_HERE in refused(client, "/export_adapter", guess)


def test_a_run_that_is_forgotten_is_gone(client, server) -> None:
    made = client.predict(**SHORT, api_name="/fine_tune")
    updates = list(client.submit(made, api_name="/watch"))
    assert updates[-1]["interrupted"] is False
    assert "cannot go on" in refused(client, "/go_on", made)
    assert client.predict(made, api_name="/forget") == "forgotten"
    for name in ("/forget", "/watch", "/export_adapter"):
        assert NOT_HERE in refused(client, name, made)


def test_rows_of_one_s_own_are_no_bundled_task_and_no_other_rows(server, client) -> None:
    """Runs are compared by the names of their tasks."""
    swapped = [[text, ROWS[0][1] if label != ROWS[0][1] else "else"] for text, label in ROWS]
    unnamed = {key: value for key, value in SHORT.items() if key != "task"}

    def name_of(**change: Any) -> str:
        settings = {**unnamed, "steps": 1, "visitor": "v" * 32, **change}
        run = server[1].find(client.predict(**settings, api_name="/fine_tune"))
        wait(run)
        return run.task.name

    assert name_of() == "my-sms-spam"
    assert name_of(rows=swapped) == "my-sms-spam-2"
    assert name_of(seed=1) == "my-sms-spam"
    assert name_of(task="mine") == "mine" and name_of(task="mine", rows=swapped) == "mine-2"
    assert name_of(task="mine", rows=swapped, visitor="w" * 32) == "mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": "eight"}, "rank must be a number, not a text"),
        ({"rank": 2.5}, "rank must be a whole number"),
        ({"rank": True}, "rank must be a number"),
        ({"rank": 10**400}, "rank"),
        ({"rank": 65}, "more than this server"),
        ({"alpha": None}, "alpha must be a number, not null"),
        ({"targets": "query"}, "targets must be a list"),
        ({"targets": ["nowhere"]}, "nowhere"),
        ({"steps": 100_000}, "Steps: 100,000 is more than this server"),
        ({"batch_size": 65}, "Texts a step"),
        ({"method": "magic"}, "method must be one of"),
        ({"scaling": ["alpha"]}, "scaling must be a text"),
        ({"base": "/etc"}, "There is no base called"),
        ({"base": "owner/name"}, "There is no base called"),
        ({"base": "../base"}, "There is no base called"),
        ({"rows": [["one"]]}, "Row 1 is not a pair"),
        ({"rows": [["a", "b"], ["c", 3]]}, "Row 2 is not a pair"),
        ({"rows": "text,label"}, "rows must be a list"),
        ({"rows": [["a", "b"]]}, "different ones"),
        ({"rows": [], "task": "../sms-spam"}, "task"),
        ({"watch_texts": [1]}, "list of texts"),
        ({"watch_texts": ["x"] * 9}, "Watched texts: 9"),
        ({"visitor": 12}, "visitor must be a text"),
        ({"task": "<img src=x onerror=alert(1)>", "rows": []}, "&lt;img"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(client, change, said) -> None:
    sentence = refused(client, "/fine_tune", **{**SHORT, **change})
    assert said in sentence and "Traceback" not in sentence and "<img" not in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ([], "at least one"),
        ([""], "blanks"),
        ([3], "list of texts"),
        ({"a": 1}, "list of texts"),
        (["x" * 20_001], "20,001 characters"),
        (["x"] * 101, "101 texts"),
    ],
)
def test_texts_that_make_no_sense_are_refused_in_words(client, run, text, said) -> None:
    assert said in refused(client, "/classify", run, text)


def test_a_run_without_lora_has_no_adapter_to_export(client) -> None:
    made = client.predict(**{**SHORT, "method": "head"}, api_name="/fine_tune")
    list(client.submit(made, api_name="/watch"))
    assert "no adapter" in refused(client, "/export_adapter", made)


def test_an_export_can_be_fetched_for_a_time(server, run) -> None:
    endpoints = api.Endpoints(Lab(server[1]))
    made = [Path(endpoints.export_adapter(run)) for _ in range(files.OF_ONE + 1)]
    assert [path.is_file() for path in made] == [False, *[True] * files.OF_ONE]


def test_a_bug_reaches_the_client_as_a_sentence_and_the_log_without_texts(
    client, server, run, monkeypatch, caplog
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a visitor's text")

    monkeypatch.setattr(server[1].find(run).classifier, "classify_many", broken)
    sentence = refused(client, "/classify", run, "hello")
    assert "log says where" in sentence
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "KeyError" in logged and "visitor's text" not in logged


def test_who_classifies_much_leaves_room_for_others(server, run) -> None:
    """Long lists wait in a line that has an end, and hold no thread; a short text is answered."""
    url, registry = server
    other = registry.submit(
        new_visitor(), tiny_base(), words_task(), lc.LoRAConfig(rank=2), lc.TrainConfig(steps=2)
    )
    wait(other)
    assert other.classifier is not None
    much = {"run_id": other.id, "texts": ["win cash " * 2000] * 20}

    def send(name: str, **values: Any) -> str:
        event = httpx.post(f"{url}/gradio_api/call/v2/{name}", json=values, timeout=60).json()
        return f"{url}/gradio_api/call/{name}/{event['event_id']}"

    with other.classifier.at_strength(1.0):  # nobody else classifies with it meanwhile
        asked = [send("classify", **much) for _ in range(140)]
        answer = httpx.get(send("classify", run_id=run, texts=["win cash"]), timeout=60)
        assert "event: complete" in answer.text
        assert "Many texts are being classified" in httpx.get(asked[-1], timeout=60).text
    first = httpx.get(asked[0], timeout=60)
    assert "event: complete" in first.text and first.text.count('"truncated"') == 20


def test_a_watcher_that_goes_away_leaves_the_run_alone(server, client) -> None:
    made = client.predict(**{**SHORT, "steps": 300}, api_name="/fine_tune")
    url = f"{server[0]}/gradio_api/call/watch"
    event = httpx.post(url, json={"data": [made, 0]}).json()["event_id"]
    with httpx.stream("GET", f"{url}/{event}") as response:
        next(response.iter_lines())
    updates = list(client.submit(made, api_name="/watch"))
    assert updates[-1]["state"] == "finished"


def test_plain_http_answers_and_refusals_have_no_traceback(server, run) -> None:
    def call(name: str, data: Any) -> str:
        url = f"{server[0]}/gradio_api/call/{name}"
        posted = httpx.post(url, json={"data": data})
        if posted.status_code != 200:
            return posted.text
        return httpx.get(f"{url}/{posted.json()['event_id']}", timeout=60).text

    assert "complete" in call("classify", [run, ["win cash"], 1.0])
    assert "log says" not in call("stop", [run])
    for data in ([], [run], [None] * 30, [{"path": "/etc/passwd"}], "text", None, {"a": 1}):
        for name in (
            "classify",
            "watch",
            "stop",
            "go_on",
            "forget",
            "fine_tune",
            "count_parameters",
            "export_adapter",
        ):
            answer = call(name, data)
            assert "Traceback" not in answer and "File " not in answer, (name, data)


def test_clients_side_by_side_get_their_own_results(server) -> None:
    results: dict[int, list[str]] = {}

    def one(number: int) -> None:
        own = Client(server[0], verbose=False)
        labels = [f"a{number}", f"b{number}"]
        rows = [[f"word {i} {labels[i % 2]}", labels[i % 2]] for i in range(40)]
        made = own.predict(**{**SHORT, "rows": rows, "seed": number}, api_name="/fine_tune")
        updates = list(own.submit(made, api_name="/watch"))
        numbers = [u["next"] - len(u["events"]) for u in updates]
        assert numbers == [0, *[u["next"] for u in updates[:-1]]]
        answer = own.predict(made, ["word"], api_name="/classify")[0]
        results[number] = sorted(answer["probabilities"])
        own.close()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert results == {i: [f"a{i}", f"b{i}"] for i in range(6)}
