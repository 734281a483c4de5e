"""Paths, addresses and heads that nobody here sends: each ends in an answer, and nothing is read,
fetched, removed or written on the host's console."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lora_core.limits import Limits
from tests.ui.strangers import page_served

HERE = Path(__file__).resolve()
FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page_served(Limits(upload_mb=1)) as address:
        yield address


def sent(url: str, head: bytes) -> bytes:
    """The first line of the answer to raw bytes; nothing where the line is cut."""
    host = urlsplit(url)
    with socket.create_connection((host.hostname or "", host.port or 0), timeout=60) as line:
        try:
            line.sendall(head)
            return line.recv(1000).split(b"\r\n")[0]
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=app.py",
        f"/gradio_api/file={HERE}",
        "/gradio_api/file=assets/tasks/sms-spam.csv",
        "/gradio_api/file=/proc/self/environ",
        "/lab/../../app.py",
        "/lab/%2e%2e/%2e%2e/app.py",
        "/lab/..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/app.py",
        "//etc/passwd",
    ],
)
def test_no_path_leads_out_of_what_is_served(url, path) -> None:
    answer = sent(url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"403", b"404"), answer


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"GET /?a="])
def test_a_head_without_end_is_refused(url, head) -> None:
    assert not sent(url, head + b"x" * 4_000_000).endswith(b"200 OK")


@pytest.mark.parametrize(
    "data",
    [
        {"path": str(HERE), **FILE},
        {"path": "../../../../etc/passwd", **FILE},
        {"path": "", **FILE},
        {"path": "//127.0.0.1/x"},
        {"url": "x", **FILE},
        "x",
        7,
        [],
    ],
)
def test_what_is_no_uploaded_file_is_a_sentence_and_stays_where_it_is(url, data, capfd) -> None:
    config = httpx.get(f"{url}/config", timeout=60).json()
    for elem_id, before, after in (
        ("own-file", ["v" * 40], []),
        ("bring", ["v" * 40, ""], ["bundled"]),
    ):
        files = data if elem_id == "own-file" else [data]
        (file,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id]
        number = next(d["id"] for d in config["dependencies"] if [file, "upload"] in d["targets"])
        body = {"data": [*before, files, *after], "fn_index": number, "session_hash": elem_id}
        httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60).raise_for_status()
        stream = f"{url}/gradio_api/queue/data?session_hash={elem_id}"
        answer = httpx.get(stream, timeout=60).text
        assert "does not fit" in answer, answer
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err and HERE.is_file()


@pytest.mark.parametrize("name", ["url", "orig_name", "mime_type"])
def test_an_address_beside_a_path_is_not_fetched(url, name) -> None:
    asked: list[str] = []

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Host) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        files = {"files": ("a.csv", b"text,label\na,b\n")}
        (path,) = httpx.post(f"{url}/gradio_api/upload", files=files, timeout=60).json()
        config = httpx.get(f"{url}/config", timeout=60).json()
        (file,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == "own-file"]
        number = next(d["id"] for d in config["dependencies"] if [file, "upload"] in d["targets"])
        table = {"path": path, name: f"http://127.0.0.1:{other.server_port}/x.csv", **FILE}
        body = {"data": ["v" * 40, table], "fn_index": number, "session_hash": name}
        httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60).raise_for_status()
        stream = f"{url}/gradio_api/queue/data?session_hash={name}"
        assert "a.csv: 1 row" in httpx.get(stream, timeout=60).text
        other.shutdown()
    assert asked == []
