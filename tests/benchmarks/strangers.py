"""What a stranger's requests cost the others: real floods against `python app.py`.

    python -m tests.benchmarks.strangers                     all of it
    python -m tests.benchmarks.strangers --only descriptors  a server with 64 and 256 of them
    python -m tests.benchmarks.strangers --only tables       140 workbooks at once, twice
    python -m tests.benchmarks.strangers --only bodies       32 MB of JSON; 128 tables at once

Beside each flood somebody classifies a text all along: how long that takes is what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import secrets
import socket
import string
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
import openpyxl

from tests.benchmarks.load import asked_plainly, row, timed
from tests.benchmarks.served import Sampler, resident_mb
from tests.servers import Server, free_port

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({n}, {n}))
sys.argv[0] = "app.py"
runpy.run_path("app.py", run_name="__main__")
"""
TABLES, TURNS = 140, 2
SMALL: dict[str, Any] = {
    "task": "small",
    "rows": [[f"{'win cash' if i % 2 else 'see you'} {i}", "ab"[i % 2]] for i in range(60)],
    "steps": 5,
    "rank": 2,
}


@contextlib.contextmanager
def serving(descriptors: int = 0) -> Iterator[Server]:
    """A server; with a hard limit of open files where one is named."""
    code = LIMITED.format(n=descriptors) if descriptors else ""
    server = Server("--port", str(free_port()), "--no-browser", "--data", "none", code=code)
    try:
        yield server
    finally:
        server.end()


def called(url: str, name: str, **arguments: Any) -> Any:
    """What an endpoint answers at last, by its public names."""
    address = f"{url}/gradio_api/call/v2/{name}"
    event = httpx.post(address, json=arguments, timeout=300).json()["event_id"]
    answer = httpx.get(f"{url}/gradio_api/call/{name}/{event}", timeout=600).text
    last = [line for line in answer.splitlines() if line.startswith("data: ")][-1]
    return json.loads(last.removeprefix("data: "))


def trained(url: str) -> str:
    """The id of a small run that is over."""
    run = str(called(url, "fine_tune", **SMALL)[0])
    state = called(url, "watch", run_id=run)
    while not isinstance(state, list) or state[0]["state"] in ("waiting", "running"):
        state = called(url, "watch", run_id=run)
    return run


def descriptors(number: int) -> None:
    """More connections than the server may open; afterwards it must be as good as new."""
    with serving(number) as server:
        host = urlsplit(server.address)
        before, held = len(server.said), []
        for _ in range(2 * number):
            with contextlib.suppress(OSError):
                line = socket.create_connection((host.hostname or "", host.port or 0), timeout=1)
                held.append(line)
        begin = time.monotonic()
        while time.monotonic() - begin < 10:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(server.address, timeout=1)
        logged = len(server.said) - before
        for line in held:
            line.close()
        run = trained(server.address)
        answer = called(server.address, "classify", run_id=run, texts=["win cash"])
        print(
            f"| {number} descriptors | {len(held)} connections held | {logged:,} bytes of log | "
            f"then a run, and the answer “{answer[0][0]['label']}” |"
        )


def workbook(path: Path) -> Path:
    """180 kB that do not pack well."""
    chance, book = random.Random(0), openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["text", "label"])
    for i in range(1100):
        text = "".join(chance.choices(string.ascii_letters + " ", k=190))
        sheet.append([text, "ab"[i % 2]])
    book.save(path)
    return path


def dropped(url: str) -> int:
    """The number of the function that a dropped table calls."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    file = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "own-file")
    return next(d["id"] for d in config["dependencies"] if [file, "upload"] in d["targets"])


def tables(folder: Path) -> None:
    """Each from a visitor of its own, as a class would drop them; and again, and again."""
    path = workbook(folder / "table.xlsx")
    with serving() as server:
        url = server.address
        run, function = trained(url), dropped(url)
        with path.open("rb") as file:
            place = httpx.post(f"{url}/gradio_api/upload", files={"files": file}, timeout=60).json()
        # One client: each new one reads certificates, on the same core as the server.
        client = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=TABLES))
        data = {"path": place[0], "meta": {"_type": "gradio.FileData"}}
        alone = [timed(asked_plainly(url, run))() for _ in range(5)]
        print(row("classify, alone", alone, "ms"))

        def drop() -> None:
            body = {
                "data": [secrets.token_urlsafe(32), data],
                "fn_index": function,
                "session_hash": secrets.token_hex(8),
            }
            client.post(f"{url}/gradio_api/queue/join", json=body)

        for turn in range(1, TURNS + 1):
            flood(url, run, drop, TABLES, f"classify, {TABLES} workbooks of 180 kB, time {turn}")


def flood(url: str, run: str, call: Callable[[], None], number: int, name: str) -> None:
    """`number` calls at once; meanwhile, and for ten seconds after, somebody classifies."""
    with Sampler(timed(asked_plainly(url, run)), 0.1) as answers:
        threads = [threading.Thread(target=call) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(10)
    print(row(name, answers.values, "ms") + f" {answers.errors} failed")


def bodies() -> None:
    """The server's memory, at its peak, while bodies come that are too large, or many."""
    with serving() as server:
        url, process = server.address, server.process.pid
        run = trained(url)
        texts = [
            [f"a text of some words, number {i}, and a few more", "ab"[i % 2]]
            for i in range(40_000)
        ]
        body = json.dumps({**SMALL, "rows": texts}).encode()
        large = b'{"data": [' + b'"' + b"x" * 32_000_000 + b'"]}'

        client = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=128))

        def post(content: bytes) -> None:
            with contextlib.suppress(httpx.HTTPError):
                headers = {"content-type": "application/json"}
                address = f"{url}/gradio_api/call/v2/fine_tune"
                client.post(address, content=content, headers=headers)

        for name, content, number in (("32 MB of JSON", large, 8), ("3 MB tables", body, 128)):
            with Sampler(lambda: resident_mb(process), 0.05) as memory:
                what = f"classify, {number} x {name}"
                flood(url, run, partial(post, content), number, what)
            first, peak = memory.values[0], max(memory.values)
            print(
                f"| memory, {number} x {name} | {first:,.0f} MB before | {peak:,.0f} MB at most |"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("descriptors", "tables", "bodies"))
    only = parser.parse_args().only
    if only in (None, "descriptors"):
        for number in (64, 256):
            descriptors(number)
    with TemporaryDirectory() as folder:
        if only in (None, "tables"):
            tables(Path(folder))
    if only in (None, "bodies"):
        bodies()


if __name__ == "__main__":
    main()
