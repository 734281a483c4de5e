"""Workers on other machines, lent by a scheduler of dask.distributed: `--dask tcp://host:8786`.

The engine does what engines do: it knows its workers, notices one that is lost, and gives its task
to another. A run that begins again has the same seed and so makes the same steps: what was reported
of it before is reported once. Where the scheduler or all of its workers are away, a local executor
trains.

Messages are those of `wire`, through a queue of the scheduler; a base goes to each worker once and
is checked by its digest. Dask itself uses pickle: its network must be one that you trust.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Event, KilledWorker, Queue, get_client, get_worker

from lora_core.base.checkpoint import Base
from lora_core.errors import LabError
from lora_core.serving import log, wire
from lora_core.serving.executors import Executor, WorkerLostError
from lora_core.serving.worker import Job, Outcome, Progress, Report, train, use_one_thread

CONNECT_SECONDS = 5.0  # seconds in which a scheduler must answer
_SEND = 120.0  # seconds in which a base must reach all workers
_LOOK = 1.0  # seconds between two looks at the workers
AGAIN_SECONDS = 10.0  # seconds between two tries to find a scheduler that is away
_PATIENCE = 15.0  # seconds that a run waits for the last worker to come back
_FLUSH = 0.1  # seconds in which a worker collects what it says
_AT_ONCE = 512  # runs
_TRIES = 3  # times that a run is given to the scheduler before it is trained here

_bases: dict[str, Base] = {}  # of a worker, by digest
_loading = threading.Lock()


class MachineError(LabError, RuntimeError):
    """A worker that cannot train what it was sent."""


class Machines:
    """An `Executor` over the workers of a scheduler; `local` trains while there are none."""

    def __init__(self, address: str, local: Executor) -> None:
        """`address`: of the scheduler, as tcp://host:8786. It may come later, and go."""
        self.address, self.local = address, local
        self._lock = threading.Lock()
        self._stopped: dict[str, threading.Event] = {}  # by the run's id
        self._sent: weakref.WeakKeyDictionary[Base, Any] = weakref.WeakKeyDictionary()
        self._client: Client | None = None
        self._remote = 0  # workers of the scheduler
        self._more: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "lora-lab-machine", use_one_thread)
        self._looking = threading.Lock()
        self._said = ""
        dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:g}s"})
        self._look()
        threading.Thread(target=self._watch, name="lora-lab-machines", daemon=True).start()

    @property
    def workers(self) -> int:
        """How many runs execute at once, there or, without them, here."""
        return self._remote or self.local.workers

    @property
    def sentence(self) -> str:
        """Where runs train now, for the host."""
        if self._client is None:
            return f"The scheduler {self.address} does not answer: runs train on this machine."
        if not self._remote:
            return f"The scheduler {self.address} has no workers: runs train on this machine."
        return f"Runs train on {self._remote} workers of the scheduler {self.address}."

    def submit(self, job: Job, report: Callable[[Report], None]) -> Future[Outcome]:
        """See `Executor`."""
        with self._lock:
            stopped = self._stopped[job.id] = threading.Event()
        return self._pool.submit(self._run, job, stopped, report)

    def stop(self, job_id: str) -> None:
        """See `Executor`."""
        with self._lock:
            stopped = self._stopped.get(job_id)
        if stopped is None:
            return
        stopped.set()
        self.local.stop(job_id)
        client = self._client
        if client is not None and client.loop is not None:  # in its thread: nobody waits here
            client.loop.add_callback(_set_event, client, job_id)

    def on_more_workers(self, callback: Callable[[], None]) -> None:
        """See `Executor`."""
        self._more = callback

    def shutdown(self) -> None:
        """See `Executor`."""
        self._closing.set()
        self._pool.shutdown(wait=True)
        self.local.shutdown()
        self._drop()

    # One run ---------------------------------------------------------------------------------

    def _run(self, job: Job, stopped: threading.Event, report: Callable[[Report], None]) -> Outcome:
        once = _Once(job, report)
        try:
            for _ in range(_TRIES):
                client = self._client
                if client is None or not self._remote:
                    break
                try:
                    return self._run_there(client, job, stopped, once)
                except (WorkerLostError, MachineError):
                    raise
                except Exception as error:  # dask's own, of many kinds: the run begins again
                    log.broke(job.id, error)
                    self._sent.pop(job.base, None)
                    self._look()
            future = self.local.submit(job, once)
            if stopped.is_set():
                self.local.stop(job.id)
            return future.result()
        finally:
            with self._lock:
                self._stopped.pop(job.id, None)

    def _run_there(
        self, client: Client, job: Job, stopped: threading.Event, once: _Once
    ) -> Outcome:
        base = self._base_for(client, job.base)
        message, blob = wire.job_message(job, job.base.digest())
        with _channel(client, job.id) as (channel, event):
            task = client.submit(
                train_there, message, blob, base, channel.name, event.name, pure=False, retries=0
            )
            try:
                if stopped.is_set():
                    event.set()
                return self._listen(client, channel, event, task, job, stopped, once)
            finally:
                task.release()

    def _listen(
        self,
        client: Client,
        channel: Queue,
        event: Event,
        task: Any,
        job: Job,
        stopped: threading.Event,
        once: _Once,
    ) -> Outcome:
        attempt, stop_sent, last = "", False, time.monotonic()
        past: set[str] = set()
        while True:
            if stopped.is_set() and not stop_sent:
                event.set()
                stop_sent = True
            try:
                batch = channel.get(timeout=0.2)
            except TimeoutError:
                if task.status == "error":
                    error = task.exception()
                    if isinstance(error, KilledWorker):
                        raise WorkerLostError(str(error), once.progress) from error
                    raise error from None
                if task.status in ("cancelled", "lost") or client.status != "running":
                    raise ConnectionError("The scheduler has let go of this run.") from None
                if self._remote:
                    last = time.monotonic()
                elif time.monotonic() - last > _PATIENCE:
                    raise ConnectionError("No worker is left.") from None
                continue
            if batch["attempt"] != attempt:  # another worker took over
                if batch["attempt"] in past:
                    continue  # a worker that was given up goes on speaking
                past.add(attempt)
                attempt = batch["attempt"]
            stream = io.BytesIO(batch["said"])
            while (received := wire.receive(stream)) is not None:
                message, blob = received
                if message["kind"] == "outcome":
                    return wire.outcome_of(message, blob, job)
                once(wire.report_of(message, blob))

    def _base_for(self, client: Client, base: Base) -> Any:
        """The base on the workers: sent once to each of them."""
        with self._lock:
            kept = self._sent.get(base)
            if kept is None or kept.client is not client or kept.status != "finished":
                content = wire.base_bytes(base)
                kept = client.scatter(content, broadcast=True, hash=False, timeout=_SEND)
                self._sent[base] = kept
            return kept

    # The scheduler ---------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK if self._client is not None else AGAIN_SECONDS):
            self._look()

    def _look(self) -> None:
        """Find the scheduler, and count its workers."""
        with self._looking:
            before = self.workers
            try:
                if self._client is None:
                    self._client = Client(
                        self.address, timeout=CONNECT_SECONDS, set_as_default=False, name="lora-lab"
                    )
                self._remote = sum(self._client.nthreads().values())
            except Exception:  # dask's own, of many kinds: it is away
                self._drop()
            if self._said not in ("", self.sentence):
                log.log.warning("%s", self.sentence)
            self._said = self.sentence
        if self.workers > before:
            self._more()

    def _drop(self) -> None:
        client, self._client, self._remote = self._client, None, 0
        self._sent = weakref.WeakKeyDictionary()
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=1)


class _Once:
    """Hands reports on that were not handed on yet: a run that begins again repeats itself."""

    def __init__(self, job: Job, report: Callable[[Report], None]) -> None:
        self.progress = Progress(job)
        self._report = report
        self._last: dict[type, int] = {}  # the last step of each kind of report

    def __call__(self, item: Report) -> None:
        step = getattr(item, "step", 0)
        if step > self._last.get(type(item), -1):
            self._last[type(item)] = step
            self.progress.note(item)
            self._report(item)


async def _set_event(client: Client, job_id: str) -> None:
    scheduler: Any = client.scheduler
    with contextlib.suppress(Exception):  # it has gone, and with it the run
        await scheduler.event_set(name=f"lora-lab-stop-{job_id}")


@contextlib.contextmanager
def _channel(client: Client, job_id: str) -> Iterator[tuple[Queue, Event]]:
    """A queue for what a worker says and an event that tells it to stop; gone afterwards."""
    channel = Queue(f"lora-lab-{uuid.uuid4().hex}", client=client)
    event = Event(f"lora-lab-stop-{job_id}", client=client)
    try:
        yield channel, event
    finally:
        with contextlib.suppress(Exception):
            event.clear()
            channel.close()


# On a worker -----------------------------------------------------------------------------------


def train_there(
    message: dict[str, Any], blob: bytes, base: bytes, channel: str, event: str
) -> None:
    """Train a run on a worker; what there is to say goes to the queue `channel`.

    Raises `MachineError` for a base that is not the one that was meant.
    """
    use_one_thread()
    job = wire.job_of(message, blob, _base_of(message["base"], base))
    with _Outbox(Queue(channel, client=get_client()), Event(event, client=get_client())) as outbox:
        outcome = train(
            job, lambda item: outbox.say(*wire.report_message(item)), outbox.stopped.is_set
        )
        outbox.say(*wire.outcome_message(outcome))


def _base_of(digest: str, content: bytes) -> Base:
    with _loading:
        if digest not in _bases:
            path = Path(get_worker().local_directory) / f"{digest}.safetensors"
            path.write_bytes(content)
            base = wire.read_base(path)
            if base.digest() != digest:
                raise MachineError("The base did not arrive as it was sent.")
            _bases.clear()
            _bases[digest] = base
        return _bases[digest]


class _Outbox:
    """Collects what a run says and sends it, several times a second; hears whether to stop."""

    def __init__(self, channel: Queue, event: Event) -> None:
        self.stopped = threading.Event()
        self._channel, self._event = channel, event
        self._attempt = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._said = io.BytesIO()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Outbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._flush()
        self._channel.close()

    def say(self, message: dict[str, Any], blob: bytes) -> None:
        """Send this soon, in order."""
        with self._lock:
            wire.send(self._said, message, blob)

    def _work(self) -> None:
        while not self._over.wait(_FLUSH):
            try:
                self._flush()
                if self._event.is_set():
                    self.stopped.set()
            except Exception:  # nobody is there to hear it any more
                self.stopped.set()
                return

    def _flush(self) -> None:
        with self._lock:
            said, self._said = self._said.getvalue(), io.BytesIO()
        if said:
            self._channel.put({"attempt": self._attempt, "said": said})
