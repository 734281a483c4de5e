"""The app in a process of its own, and what it takes: for the benchmarks that ask a server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from lora_core.devices import choose_device

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def server(port: int, *options: str) -> Iterator[tuple[str, int]]:
    """`python app.py` in a process of its own: its address and process id. Ended by SIGTERM."""
    environment = os.environ | {"LORA_LAB_DTYPE": choose_device().format}
    command = [
        sys.executable,
        "app.py",
        "--no-browser",
        "--data",
        "none",
        "--port",
        str(port),
        *options,
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(url, timeout=60).status_code == 200:
                        break
                time.sleep(0.5)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            status = process.wait(120)
            log.seek(0)
            written = log.read().decode()
            seconds = time.monotonic() - begin
            print(f"server ended with status {status}, {seconds:.1f} s after SIGTERM")
            print(
                f"lines in its log: {written.count(chr(10))}, tracebacks: "
                f"{written.count('Traceback')}"
            )


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB; not a number where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
    return float("nan")


class Sampler:
    """Calls a function again and again in a thread of its own, and keeps what it returns."""

    def __init__(self, function: Callable[[], float | None], pause: float) -> None:
        self.values: list[float] = []
        self.errors = 0
        self._function, self._pause = function, pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                value = self._function()
            except Exception:
                self.errors += 1
            else:
                if value is not None:
                    self.values.append(value)
            self._ended.wait(self._pause)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
