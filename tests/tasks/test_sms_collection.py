"""The SMS Spam Collection against a local server: whole, cut, wrong, gone."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.tasks import sms_collection


def archive(ham: int = 4827, spam: int = 747, member: str = "SMSSpamCollection") -> bytes:
    """An archive of UCI's form, with made-up messages."""
    lines = [f'ham\tsee you at "stop {i}"' for i in range(ham)]
    lines += [f"spam\twin prize number {i}" for i in range(spam)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archived:
        archived.writestr(member, "\n".join(lines) + "\n")
    return file.getvalue()


@pytest.fixture
def server() -> Iterator[dict]:
    """A server whose answer the test chooses: `state["body"]`, `["status"]`; counts requests."""
    state = {"body": b"", "status": 200, "requests": 0, "cut": False}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["requests"] += 1
            self.send_response(state["status"])
            self.send_header("Content-Length", str(len(state["body"])))
            self.end_headers()
            body = state["body"]
            self.wfile.write(body[: len(body) // 2] if state["cut"] else body)

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{httpd.server_port}/sms.zip"
    yield state
    httpd.shutdown()
    httpd.server_close()


def fetch(server: dict, cache: Path) -> lc.Task:
    digest = hashlib.sha256(server["body"]).hexdigest()
    return sms_collection.sms_spam_collection(url=server["url"], cache=cache, sha256=digest)


def test_it_is_balanced_and_split_as_in_the_book(server, tmp_path) -> None:
    server["body"] = archive()
    task = fetch(server, tmp_path)
    assert [len(p) for p in (task.train, task.validation, task.test)] == [1045, 149, 300]
    rows = task.train + task.validation + task.test
    assert len(set(rows)) == 2 * 747
    assert sum(e.label == task.labels.index("spam") for e in rows) == 747
    assert any('"' in e.text for e in rows)


def test_it_is_downloaded_once(server, tmp_path) -> None:
    server["body"] = archive()
    first, second = fetch(server, tmp_path), fetch(server, tmp_path)
    assert server["requests"] == 1 and first.train == second.train


def test_a_damaged_cache_is_fetched_again(server, tmp_path) -> None:
    server["body"] = archive()
    fetch(server, tmp_path)
    (tmp_path / "sms-spam-collection.zip").write_bytes(b"rubbish")
    fetch(server, tmp_path)
    assert server["requests"] == 2


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path) -> None:
    server["body"] = archive()
    with pytest.raises(lc.TaskError, match="not the archive that is expected"):
        sms_collection.sms_spam_collection(url=server["url"], cache=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": True}, "could not be downloaded|not the archive"),
        ({"status": 404}, "answered 404"),
        ({"status": 503}, "answered 503"),
        ({"body": b"x" * 300_000}, "larger"),
        ({"body": b"no zip"}, "damaged"),
        ({"body": archive(member="other.txt")}, "damaged"),
        ({"body": archive(spam=700)}, "747"),
    ],
)
def test_what_is_wrong_is_a_sentence(server, tmp_path, change, words) -> None:
    server["body"] = archive()
    server.update(change)
    with pytest.raises(lc.TaskError, match=words):
        fetch(server, tmp_path)


def test_no_network_is_a_sentence(tmp_path) -> None:
    with pytest.raises(lc.TaskError, match="is there a network"):
        sms_collection.sms_spam_collection(url="http://127.0.0.1:9/sms.zip", cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_no_error(server, tmp_path) -> None:
    server["body"] = archive()
    (tmp_path / "file").write_text("not a folder")
    assert len(fetch(server, tmp_path / "file").test) == 300
