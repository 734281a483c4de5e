"""What a stranger's request can reach: routes, sizes, shapes, addresses, uploads, prefixes."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from gradio.utils import get_upload_folder

from lora_core.limits import Limits
from lora_core.ui import bodies, gate, uploads
from lora_core.ui.bodies import JSON_MB, Bodies
from lora_core.ui.process import Sparing
from tests.ui.strangers import page_served

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page_served(Limits(upload_mb=1)) as address:
        yield address


CLOSED = [
    "/pwa_icon",
    "/pwa_icon/12000",
    "/pwa_icon/1",
    "/pwa_icon/0192",
    "/monitoring",
    "/monitoring/summary",
    "/monitoring/key",
    "/login",
    "/logout",
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/dev/reload",
    "/gradio_api/custom_component/textbox/client/component/index.js",
    "/gradio_api/proxy=https://example.hf.space/",
    "/gradio_api/file=https://example.com/x",
    "/gradio_api/file=HTTP://127.0.0.1:1/x",
    "/gradio_api/file=ftp://example.com/x",
    "/gradio_api/file/https://example.com/x",
    "/gradio_api/stream/a/b/1/playlist-file",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
    "/gradio_api/runs",
    "/gradio_api/run-history/buckets",
    "/gradio_api/vibe-code",
    "/gradio_api/profiling/summary",
    "/gradio_api/token",
    "/docs",
    "/openapi.json",
    "/board",  # of a room, which this server has not
    "/desk",
    "/room/board",
    "/room/desk",
    "/room/pupil?ticket=x",
    "/room/file/board.js",
    "/room/runs.csv",
    "/room/report.html",
]
CLOSED_POSTS = [
    "/login",
    "/gradio_api/process_recording",
    "/gradio_api/component_server",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-code",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/vibe-starter-queries",
    "/gradio_api/stream/abc",
    "/gradio_api/stream/abc/close",
    "/gradio_api/run-history/connect",
    "/room/enter",
    "/room/do",
    "/room/join",
    "/room/name",
]


def test_routes_that_compute_read_print_or_fetch_are_closed(url, capfd) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for path in CLOSED:
            assert client.get(path).status_code == 404, path
        for path in CLOSED_POSTS:
            assert client.post(path, json={}).status_code == 404, path
    said = capfd.readouterr()
    assert not said.out and not said.err


def test_every_route_of_gradio_is_either_listed_or_closed(url) -> None:
    """What the page and its clients use answers; nothing is open by chance."""
    with httpx.Client(base_url=url, timeout=30) as client:
        for path in ("/", "/config", "/gradio_api/info", "/manifest.json", "/favicon.ico"):
            assert client.get(path).status_code == 200, path
        for size in (192, 512):
            answer = client.get(f"/pwa_icon/{size}")
            assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG")
        icons = client.get("/manifest.json").json()["icons"]
        assert [client.get(f"/{icon['src']}").status_code for icon in icons] == [200, 200]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("call/nothing", {"data": []}),
        ("call/v2/nothing", {}),
        ("run/nothing", {"data": []}),
        ("run/predict", {"data": [], "fn_index": 99_999}),
        ("queue/join", {"data": [], "fn_index": 99_999, "session_hash": "a"}),
        ("queue/join", {"data": [], "fn_index": -1, "session_hash": "a"}),
    ],
)
def test_a_function_that_is_not_there_is_a_sentence_without_a_traceback(
    url, path, body, capfd
) -> None:
    answer = httpx.post(f"{url}/gradio_api/{path}", json=body, timeout=60)
    assert answer.status_code == 404
    assert answer.json() == {"detail": "There is no such function here."}
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_a_session_that_is_over_ends_its_stream_without_a_traceback(url, capfd) -> None:
    answer = httpx.get(f"{url}/gradio_api/queue/data?session_hash=nobody", timeout=60)
    assert "unexpected_error" in answer.text
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_the_same_error_is_logged_once_a_minute() -> None:
    once = Sparing()

    def record(text: str, level: int = logging.ERROR) -> logging.LogRecord:
        return logging.LogRecord("asyncio", level, "f.py", 1, text, None, None)

    assert once.filter(record("out of descriptors"))
    assert not any(once.filter(record("out of descriptors")) for _ in range(1000))
    assert once.filter(record("something else"))
    assert all(once.filter(record("run ended", logging.INFO)) for _ in range(3))


# Bodies ------------------------------------------------------------------------------------------


def test_a_large_body_is_refused_before_it_is_read(url) -> None:
    """By its announced length at once; without one, as soon as it is too long."""
    host = urlsplit(url).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("POST", "/gradio_api/call/classify")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(32 * MEGABYTE))
    connection.endheaders()
    answer = connection.getresponse()  # nothing of it was sent
    assert answer.status == 413 and f"{JSON_MB} MB" in json.loads(answer.read())["detail"]
    connection.close()

    def endless() -> Iterator[bytes]:
        yield b'{"data": ["'
        for _ in range(10):
            yield b"x" * MEGABYTE

    answer = httpx.post(
        f"{url}/gradio_api/call/classify",
        content=endless(),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "data",
    [b"[" + b"[]," * 500_000 + b"[]]", b"[" + b"0," * 500_000 + b"0]"],
    ids=["lists", "numbers"],
)
def test_a_body_of_many_parts_is_refused(url, data) -> None:
    answer = httpx.post(
        f"{url}/gradio_api/call/classify",
        content=b'{"data": ' + data + b"}",
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 413 and "values" in answer.json()["detail"]


def test_the_parts_of_a_body_are_counted_before_it_is_read(monkeypatch) -> None:
    """In whatever it is spelled: what stands inside of texts is no part."""
    many = [b"[]", b"0", b'""', b'","', b'"[\\",["', b'{"a,":1}']
    for one in many:
        assert bodies.many_parts(b"[" + (one + b",") * 400_000 + one + b"]"), one
    text = json.dumps({"data": [',"\\[{' * 500_000]}).encode()
    assert not bodies.many_parts(text)
    monkeypatch.setattr(bodies.orjson, "loads", pytest.fail)
    body = b"[" + b"[]," * 1_300_000 + b"[]]"
    refusal = bodies.examined(body)
    assert refusal is not None and refusal.status_code == 413


def test_what_the_page_and_the_web_api_send_passes() -> None:
    """The longest text of the page in its widest spelling; a table with the most rows."""
    text = json.dumps({"data": ["\U0001f600" * 20_000]}).encode()
    rows = json.dumps({"data": [[[f"a text, number {i}", "ham"] for i in range(50_000)]]}).encode()
    for body in (text, rows):
        assert len(body) < JSON_MB * MEGABYTE
        assert bodies.examined(body) is None


def _asgi(body: list[bytes], app: Bodies) -> list[dict[str, Any]]:
    """What an ASGI application answers to a POST that arrives in pieces."""
    sent: list[dict[str, Any]] = []
    pieces = iter(body)

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is None:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/x", "headers": []}
    asyncio.run(app(scope, receive, send))
    return sent


async def _never(*_: Any) -> None:
    raise AssertionError("reached")


def test_a_body_that_never_ends_is_given_up_and_many_together_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    app = Bodies(_never, upload_mb=1)
    assert _asgi([b"{"], app)[0]["status"] == 408
    assert app.buffered == 0
    app.buffered = bodies.BUFFERED_MB * MEGABYTE
    assert _asgi([b"{"], app)[0]["status"] == 503
    assert app.buffered == bodies.BUFFERED_MB * MEGABYTE


@pytest.mark.parametrize(
    "path",
    [
        "http://{host}/x.csv",
        "HTTPS://{host}/x",
        " http://{host}/x",
        "ftp://{host}/",
        "http:/{host}",
    ],
)
def test_an_address_in_the_place_of_a_file_is_refused_and_nobody_is_asked(url, path) -> None:
    """A server of ours stands where the address points, and hears nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        file = {"path": path.format(host=host), "meta": {"_type": "gradio.FileData"}}
        spelled = json.dumps({"data": [file], "fn_index": 0, "session_hash": "s"})
        spelled = spelled.replace("http", "\\u0068ttp")  # as JSON may spell it
        for name in ("queue/join", "call/classify", "run/predict"):
            answer = httpx.post(
                f"{url}/gradio_api/{name}",
                content=spelled,
                headers={"content-type": "application/json"},
                timeout=60,
            )
            assert answer.status_code == 400 and "not an address" in answer.text, name
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("name", ["session_hash", "event_id", "trigger_id"])
def test_a_name_that_gradio_would_keep_is_short(url, name) -> None:
    body = {"data": [], "fn_index": 0, "session_hash": "s", name: "x" * 1_000_000}
    answer = httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60)
    assert answer.status_code == 400 and "100 characters" in answer.text


def test_an_upload_that_nobody_made_is_not_remembered(url) -> None:
    path = f"{url}/gradio_api/upload_progress?upload_id="
    assert httpx.get(path + "x" * 5_000, timeout=60).status_code == 404


def test_nested_without_end_is_refused_without_a_traceback(url, capfd) -> None:
    answer = httpx.post(
        f"{url}/gradio_api/call/classify",
        content=b'{"data": ' + b"[" * 100_000,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 400 and "no JSON" in answer.text
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("host", ['x"><script>alert(1)</script>', "a/b", "a b"])
def test_a_host_that_is_no_name_does_not_reach_the_page(url, host) -> None:
    answer = httpx.get(f"{url}/", headers={"host": host}, timeout=60)
    assert answer.status_code == 400 and "script" not in answer.text


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-1", "bytes=-1", "bytes=0-99999999", "bytes=a-b", "x", "bytes=" + "0-," * 9000 + "0-"],
    ids=lambda asked: asked[:12],
)
def test_parts_of_a_file_that_make_no_sense_give_no_traceback(url, asked, capfd) -> None:
    path = _upload(url, b"text,label\na,b\n").json()[0]
    answer = httpx.get(f"{url}/gradio_api/file={path}", headers={"range": asked}, timeout=60)
    assert answer.status_code < 500, answer.text
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_other_methods_find_nothing(url, method) -> None:
    assert httpx.request(method, f"{url}/config", timeout=60).status_code == 404


# Uploads -----------------------------------------------------------------------------------------


def _upload(url: str, content: bytes, number: int = 1) -> httpx.Response:
    files = [("files", (f"table{i}.csv", content, "text/csv")) for i in range(number)]
    return httpx.post(f"{url}/gradio_api/upload", files=files, timeout=60)


def _lying_about() -> set[Path]:
    tree = os.walk(get_upload_folder())  # of what goes meanwhile it says nothing
    return {Path(folder, name) for folder, names, files in tree for name in (*names, *files)}


def test_equal_files_of_two_visitors_lie_apart_and_can_be_fetched_by_path(url) -> None:
    first, second = (_upload(url, b"text,label\na,b\n").json()[0] for _ in range(2))
    assert first != second and Path(first).parts[-3] != Path(second).parts[-3]
    assert httpx.get(f"{url}/gradio_api/file={first}").content == b"text,label\na,b\n"


def test_uploads_are_bounded_together_and_what_is_refused_leaves_nothing(url) -> None:
    before = _lying_about()
    assert "1 MB" in _upload(url, b"x" * (MEGABYTE + 1)).text
    answer = _upload(url, b"x" * 900_000, number=4)
    assert answer.status_code == 413 and "together" in answer.text
    assert _upload(url, b"x", number=11).status_code == 413
    answer = httpx.post(f"{url}/gradio_api/upload", content=b"no form", timeout=60)
    assert answer.status_code == 400
    field = {"files": (None, "no file")}
    assert httpx.post(f"{url}/gradio_api/upload", files=field, timeout=60).status_code == 400
    assert _lying_about() - before == set()


def test_uploads_of_all_are_bounded_and_the_oldest_goes(url, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "IN_ALL_MB", 2)
    paths = [Path(_upload(url, b"x" * 900_000).json()[0]) for _ in range(5)]
    assert [path.exists() for path in paths] == [False, False, False, True, True]
    assert httpx.get(f"{url}/gradio_api/file={paths[0]}", timeout=60).status_code in (403, 404)


def test_tiny_uploads_are_bounded_together_too(url, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "IN_ALL_MB", 1)
    paths = [Path(_upload(url, b"x").json()[0]) for _ in range(25)]
    assert not paths[0].exists() and paths[-1].exists()
    assert sum(path.exists() for path in paths) == 20


def test_a_broken_off_upload_leaves_nothing(url) -> None:
    before = _lying_about()
    host = urlsplit(url)
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
    )
    with socket.create_connection((host.hostname or "", host.port or 0)) as line:
        line.sendall(head.encode() + b"x" * 300_000)
        wait_until(lambda: bool(_lying_about() - before))
    wait_until(lambda: not _lying_about() - before)


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Until it holds; the server works in threads of its own and tells nobody."""
    end = time.monotonic() + seconds
    ticking = threading.Event()
    while not condition():
        assert time.monotonic() < end
        ticking.wait(0.02)


def test_an_upload_that_falls_silent_is_given_up(url, monkeypatch) -> None:
    """Anybody could hold the server's connections, and what had arrived, for ever."""
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    before, host = _lying_about(), urlsplit(url)
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
    )
    with socket.create_connection((host.hostname or "", host.port or 0), timeout=60) as line:
        line.sendall(head.encode() + b"x" * 300_000)
        assert line.recv(100).startswith(b"HTTP/1.1 400")
    wait_until(lambda: not _lying_about() - before)


def test_a_full_disk_is_a_sentence(url, monkeypatch) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads, "upload_fn", full)
    answer = _upload(url, b"text,label\n")
    assert answer.status_code == 507 and "disk is full" in answer.text


# Prefixes ----------------------------------------------------------------------------------------


def _scope(path: str, root_path: str = "", **headers: str) -> dict[str, Any]:
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "root_path": root_path,
        "headers": raw,
    }


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/", "", ("", "/")),
        ("/", "/lab", ("/lab", "/")),
        ("/lab", "/lab", ("/lab", "/")),
        ("/lab/", "/lab", ("/lab", "/")),
        ("/lab/queue.js", "/lab", ("/lab", "/lab/queue.js")),  # cut off: a script of ours
        ("/lab/lab/queue.js", "/lab", ("/lab", "/lab/queue.js")),  # not cut off
        ("/lab/config", "/lab", ("/lab", "/config")),
        ("/lab/gradio_api/queue/data", "/lab", ("/lab", "/gradio_api/queue/data")),
        ("/user/me/proxy/7860/config", "/user/me/proxy/7860/", ("/user/me/proxy/7860", "/config")),
        ("/user/me@uni.edu/config", "/user/me%40uni.edu", ("/user/me%40uni.edu", "/config")),
        ("/config", "/user/me%40uni.edu/", ("/user/me%40uni.edu", "/config")),
        ("/user/Zoë B", "/user/Zo%C3%AB%20B", ("/user/Zo%C3%AB%20B", "/")),
        ("/config", "/x/../y", ("", "/config")),
        ("/config", "/x/%2e%2E/y", ("", "/config")),
        ("/config", "/x%4", ("", "/config")),
        ("/config", "javascript:alert(1)", ("", "/config")),
        ("/config", '/"><script>', ("", "/config")),
    ],
)
def test_a_prefix_that_is_cut_off_or_not_leads_to_the_same(path, prefix, expected) -> None:
    assert gate.split(_scope(path, x_forwarded_prefix=prefix)) == expected
    assert gate.split(_scope(path, root_path=prefix)) == expected
    whole = _scope(path, root_path=f"https://example.com{prefix}")
    assert not prefix.startswith("/") or gate.split(whole) == expected


def test_the_public_address_is_put_together_from_what_proxies_say() -> None:
    scope = _scope(
        "/config",
        host="127.0.0.1:7860",
        x_forwarded_host="example.com, inner",
        x_forwarded_proto="https, http",
    )
    seen = gate.public(scope, "/lab", "/config")
    assert (seen["root_path"], seen["path"], seen["scheme"]) == ("/lab", "/lab/config", "https")
    assert seen["headers"][-1] == (b"host", b"example.com")
    bad = gate.public(_scope("/", host="a", x_forwarded_host="a/b<c>"), "", "/")
    assert (b"host", b"a") in bad["headers"]
