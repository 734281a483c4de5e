"""Worker processes: a run that dies there takes nothing with it, and Python's lock is not shared.

Each worker is `python -m lora_core.serving.processes`, a fresh interpreter (a fork after torch has
started threads can hang), spoken to over its own input and output, and kept for the next run. It
ends by itself when the server does. Bases lie in files that all processes map: one copy for all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_core.base.checkpoint import Base
from lora_core.devices import choose_device
from lora_core.serving import wire
from lora_core.serving.executors import WorkerLostError, available_cores
from lora_core.serving.worker import Job, Outcome, Progress, Report, train, use_one_thread

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(eq=False)
class _Order:
    """A run, and the process that trains it once there is one."""

    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # of all that is written to it

    def tell(self, message: dict[str, Any]) -> None:
        """Say something short to the process, if it has the run already."""
        with self.lock, contextlib.suppress(OSError):
            if message["kind"] == "stop":
                self.stopped = True
            if self.process is not None and self.process.stdin is not None:
                wire.send(self.process.stdin, message)


class Processes:
    """An `Executor` over processes of this machine."""

    def __init__(self, workers: int | None = None) -> None:
        """`workers` defaults to the number of cores that this process may use."""
        self.workers = workers or available_cores()
        self._folder = tempfile.TemporaryDirectory(
            prefix="lora-lab-bases-", ignore_cleanup_errors=True
        )
        self._files: weakref.WeakKeyDictionary[Base, str] = weakref.WeakKeyDictionary()
        self._writing = threading.Lock()  # of the files
        self._lock = threading.Lock()
        self._orders: dict[str, _Order] = {}  # by the run's id
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(self.workers):  # torch takes seconds to import: now, not at the first run
            self._free.put(self._begin())
        self._pool = ThreadPoolExecutor(self.workers, "lora-lab-process", use_one_thread)

    def submit(self, job: Job, report: Callable[[Report], None]) -> Future[Outcome]:
        """See `Executor`."""
        order = _Order()
        with self._lock:
            self._orders[job.id] = order
        future = self._pool.submit(self._run, job, order, report)
        future.add_done_callback(lambda _: self._forget(job.id))
        return future

    def stop(self, job_id: str) -> None:
        """See `Executor`."""
        with self._lock:
            order = self._orders.get(job_id)
        if order is not None:
            order.tell({"kind": "stop"})

    def on_more_workers(self, callback: Callable[[], None]) -> None:
        """See `Executor`; they are always as many."""

    def shutdown(self) -> None:
        """See `Executor`."""
        self._pool.shutdown(wait=True)
        while not self._free.empty():
            process = self._free.get()
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()
            process.stdout.close()
        self._folder.cleanup()

    def process_of(self, job_id: str) -> int | None:
        """The process id of the worker that trains a run; None where none does."""
        with self._lock:
            order = self._orders.get(job_id)
        return order.process.pid if order is not None and order.process is not None else None

    def _run(self, job: Job, order: _Order, report: Callable[[Report], None]) -> Outcome:
        # Chosen once and by the server: a probe on a busy core could choose another format.
        job = replace(job, device=choose_device())
        progress = Progress(job)
        process = self._take()
        assert process.stdin is not None and process.stdout is not None
        try:
            message, blob = wire.job_message(job, self._file_of(job.base))
            with contextlib.suppress(OSError):  # it is gone: nothing is received
                wire.send(process.stdin, message, blob)
                with order.lock:
                    order.process = process
                    if order.stopped:
                        wire.send(process.stdin, {"kind": "stop"})
                self._share_cores()
            while (received := wire.receive(process.stdout)) is not None:
                message, blob = received
                if message["kind"] == "outcome":
                    outcome = wire.outcome_of(message, blob, job)
                    self._free.put(process)
                    return outcome
                item = wire.report_of(message, blob)
                progress.note(item)
                report(item)
        except BaseException:
            process.kill()
            raise
        finally:
            with order.lock:
                order.process = None
        process.kill()
        code = process.wait()
        process.stdout.close()
        self._free.put(self._begin())
        raise WorkerLostError(f"The worker ended with {code}.", progress)

    def _take(self) -> subprocess.Popen[bytes]:
        with contextlib.suppress(queue.Empty):
            while True:
                process = self._free.get_nowait()
                if process.poll() is None:
                    return process
        return self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "lora_core.serving.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._orders.pop(job_id, None)
        self._share_cores()

    def _share_cores(self) -> None:
        """Tell each run how many cores are its own now: all, for one that is alone."""
        with self._lock:
            orders = list(self._orders.values())
        for order in orders:
            order.tell({"kind": "cores", "count": self.workers // len(orders)})

    def _file_of(self, base: Base) -> str:
        """The file of a base, written once, whose tensors are the server's own from then on; it
        goes with the base."""
        with self._writing:
            if base not in self._files:
                path = Path(self._folder.name) / f"{uuid.uuid4().hex}.safetensors"
                wire.write_base(base, path)
                wire.map_base(base, path)
                self._files[base] = str(path)
                weakref.finalize(base, _remove, path).atexit = False  # then the folder goes
            return self._files[base]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps what a worker has mapped
        path.unlink()


def serve() -> None:
    """What a worker process does: one job after the other, until its input ends."""
    # Ctrl-C and a service's end reach all processes. They are the server's: it stops the runs, and
    # ends its workers by the end of their input.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory is short, the kernel takes this, not the page
        Path("/proc/self/oom_score_adj").write_text("500")
    use_one_thread()
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever prints does not disturb
    jobs: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
    stop, cores = threading.Event(), [1]

    def listen() -> None:
        try:
            while (received := wire.receive(source)) is not None:
                kind = received[0]["kind"]
                if kind == "stop":
                    stop.set()
                elif kind == "cores":
                    cores[0] = received[0]["count"]
                else:
                    stop.clear()
                    jobs.put(received)
        finally:  # the server has ended or needs no worker any more; or no memory is left to listen
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    bases: dict[str, Base] = {}
    while True:
        message, blob = jobs.get()
        name = message["base"]
        if name not in bases:
            bases = {name: wire.read_base(Path(name))}  # one: it is mapped again in milliseconds
        job = wire.job_of(message, blob, bases[name])
        outcome = train(
            job,
            lambda item: wire.send(sink, *wire.report_message(item)),
            stop.is_set,
            lambda: cores[0],
        )
        wire.send(sink, *wire.outcome_message(outcome))
        del job, outcome, message, blob  # an idle worker keeps nobody's table


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve()
