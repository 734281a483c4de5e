"""`app.py` in a process of its own, for tests: what it says is read all along, by a thread, so that
no line is lost, no pipe runs full, and a wait ends at the moment when the line is there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"LoRA Lab is at (http://\S+?)/?\s")


class Server:
    """A started process; `address` waits until it serves."""

    def __init__(self, *options: str, code: str = "", **environment: str) -> None:
        program = ["-c", code] if code else [str(ROOT / "app.py")]
        self.process = subprocess.Popen(
            [sys.executable, *program, *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._said: list[str] = []
        self._new = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._new:
                self._said.append(line.decode("utf-8", "replace"))
                self._new.notify_all()
        with self._new:
            self._over = True
            self._new.notify_all()

    @property
    def said(self) -> str:
        """Everything so far."""
        with self._new:
            return "".join(self._said)

    def wait_for(self, pattern: str | re.Pattern[str], seconds: float = 180) -> re.Match[str]:
        """Until it has said something; fails when it ends without, or the time is over."""
        end = time.monotonic() + seconds
        with self._new:
            while not (match := re.search(pattern, "".join(self._said))):
                left = end - time.monotonic()
                assert left > 0 and not self._over, f"no {pattern!r} in:\n" + "".join(self._said)
                self._new.wait(left)
        return match

    @property
    def address(self) -> str:
        """Where it serves, without a slash at the end."""
        return self.wait_for(READY)[1]

    def end(self, number: int = signal.SIGTERM, seconds: float = 120) -> int:
        """Send a signal, wait; the exit status. Afterwards `said` is complete."""
        self.process.send_signal(number)
        try:
            status = self.process.wait(seconds)
        finally:
            self.process.kill()
        self._reader.join(seconds)
        return status


@contextmanager
def served(*options: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, without a browser; ended afterwards, whatever happens."""
    server = Server("--port", str(free_port()), "--no-browser", *options, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
