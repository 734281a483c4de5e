"""Workers on other machines, lent by a scheduler of dask.distributed: `--dask tcp://host:8786`.

The engine does what engines do: it knows its workers, notices one that is lost, and gives its task
to another, which begins the run again. All compute on their CPU, in the number format of this
machine. Where their processors are of one kind, a run is the same on each, bit for bit, and what
was reported of it before is reported once; where they are not, its curve begins anew
(`repetition.py`). Where the scheduler or all of its workers are away, a local executor trains.

Messages are those of `wire`, through a queue of the scheduler; a base goes to each worker once and
is checked by its digest. Dask itself uses pickle: its network must be one that you trust.

Whatever waits for the network does so in dask's own loop: the thread of a run only waits for what
comes from there, and for a Stop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import queue
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, Event, KilledWorker, Queue, get_client, get_worker

from lora_core.base.checkpoint import Base
from lora_core.devices import Device, choose_device
from lora_core.errors import LabError
from lora_core.serving import log, wire
from lora_core.serving.executors import Executor, WorkerLostError
from lora_core.serving.repetition import Repetition
from lora_core.serving.worker import Job, Outcome, Report, train, use_one_thread

CONNECT_SECONDS = 5.0  # seconds in which a scheduler must answer
_SEND = 120.0  # seconds in which a base must reach all workers
_LOOK = 1.0  # seconds between two looks at the workers
_LOOKS = 3  # looks in a row that fail before the scheduler is given up
AGAIN_SECONDS = 10.0  # seconds between two tries to find a scheduler that is away
_PATIENCE = 15.0  # seconds that a run waits for the last worker to come back
_LISTEN = 0.5  # seconds between two looks at a run of which nothing is heard
HEAR_SECONDS = 0.4  # in which a worker must say that it heard of a Stop
END_SECONDS = 2.0  # in which it must then have ended
_FLUSH = 0.1  # seconds in which a worker collects what it says
_AT_ONCE = 512  # runs
_TRIES = 3  # times that a run is given to the scheduler before it is trained here

_bases: dict[str, Base] = {}  # of a worker, by digest
_loading = threading.Lock()


class MachineError(LabError, RuntimeError):
    """A worker that cannot train what it was sent."""


@dataclass(eq=False)
class _Order:
    """A run that was submitted, and who has to hear of its Stop."""

    stopped: threading.Event = field(default_factory=threading.Event)
    inbox: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)  # None: look again
    here: Future[Outcome] | None = None  # of the local executor


class Machines:
    """An `Executor` over the workers of a scheduler; `local` trains while there are none."""

    def __init__(self, address: str, local: Executor) -> None:
        """`address`: of the scheduler, as tcp://host:8786. It may come later, and go."""
        self.address, self.local = address, local
        self._lock = threading.Lock()  # held for no longer than it takes to look something up
        self._orders: dict[str, _Order] = {}  # by the run's id
        self._sent: weakref.WeakKeyDictionary[Base, asyncio.Task[Any]] = weakref.WeakKeyDictionary()
        self._client: Client | None = None
        self._remote = 0  # workers of the scheduler
        self._more: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "lora-lab-machine", use_one_thread)
        self._looking = threading.Lock()
        self._looks = 0  # that told whether the scheduler is there
        self._failed = 0  # looks since then
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
        order = _Order()
        with self._lock:
            self._orders[job.id] = order
        return self._pool.submit(self._run, job, order, report)

    def stop(self, job_id: str) -> None:
        """See `Executor`. A run that waits for a worker, here or there, ends at once."""
        with self._lock:
            order = self._orders.get(job_id)
        if order is not None:
            order.stopped.set()
            order.inbox.put(None)
            self._stop_here(job_id, order)

    def on_more_workers(self, callback: Callable[[], None]) -> None:
        """See `Executor`."""
        self._more = callback

    def shutdown(self) -> None:
        """See `Executor`."""
        self._closing.set()
        self._pool.shutdown(wait=True)
        self.local.shutdown()
        with self._looking:
            self._drop()

    # One run ---------------------------------------------------------------------------------

    def _run(self, job: Job, order: _Order, report: Callable[[Report], None]) -> Outcome:
        job = replace(job, device=shared_device())
        repetition = Repetition(job, report, order.stopped.is_set)
        try:
            for _ in range(_TRIES):
                client = self._client
                if client is None or not self._remote or order.stopped.is_set():
                    break
                try:
                    return self._run_there(client, job, order, repetition)
                except WorkerLostError:
                    raise
                except MachineError:
                    self._sent.pop(job.base, None)  # the next run sends it again
                    raise
                except Exception as error:  # dask's own, of many kinds: the run begins again
                    log.broke(job.id, error)
                    self._await_look(order)
            if order.stopped.is_set():
                return repetition.stopped()
            return self._run_here(job, order, repetition)
        finally:
            with self._lock:
                self._orders.pop(job.id, None)

    def _await_look(self, order: _Order) -> None:
        """Return when it is known whether the scheduler is still there, or the run is stopped."""
        looks = self._looks
        while looks == self._looks and not self._closing.is_set():
            if order.stopped.wait(0.1):
                return

    def _run_here(self, job: Job, order: _Order, repetition: Repetition) -> Outcome:
        order.here = self.local.submit(job, repetition)
        if order.stopped.is_set():
            self._stop_here(job.id, order)
        try:
            return repetition.outcome(order.here.result())
        except concurrent.futures.CancelledError:
            return repetition.stopped()
        except WorkerLostError as error:
            raise WorkerLostError(str(error), repetition.progress) from error

    def _stop_here(self, job_id: str, order: _Order) -> None:
        """A run that has not begun in the local executor never does: many can wait for it."""
        if order.here is not None and not order.here.cancel():
            self.local.stop(job_id)

    def _run_there(
        self, client: Client, job: Job, order: _Order, repetition: Repetition
    ) -> Outcome:
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        order.inbox = inbox
        channel = Queue(f"lora-lab-{uuid.uuid4().hex}", client=client)
        talk = asyncio.run_coroutine_threadsafe(
            self._talk(client, job, channel, inbox.put), _loop(client).asyncio_loop
        )
        talk.add_done_callback(lambda _: inbox.put(None))
        try:
            return self._listen(client, talk, job, order, repetition)
        finally:
            talk.cancel()
            with contextlib.suppress(Exception):
                channel.close()  # the only one: a worker that still puts something in is told so

    async def _talk(
        self, client: Client, job: Job, channel: Queue, say: Callable[[dict[str, Any]], None]
    ) -> None:
        """In dask's loop: hand the run to a worker, and say on what comes from it until it breaks.

        Raises what dask raises, and `ConnectionError` where nobody trains the run any more.
        """
        base = await self._base_there(client, job.base)
        message, blob = await asyncio.to_thread(_message_of, job)
        task = client.submit(
            train_there, message, blob, base, channel.name, _event(job.id), pure=False, retries=0
        )
        last = time.monotonic()
        try:
            while True:
                try:
                    say(await channel.get(timeout=_LISTEN))
                    continue
                except TimeoutError:
                    pass
                if task.status == "error":
                    raise await task.exception()
                if task.status in ("cancelled", "lost") or client.status != "running":
                    raise ConnectionError("The scheduler has let go of this run.")
                if self._remote:
                    last = time.monotonic()
                elif time.monotonic() - last > _PATIENCE:
                    raise ConnectionError("No worker is left.")
        finally:
            task.release()
            _loop(client).add_callback(_clear_event, client, job.id)

    def _listen(
        self,
        client: Client,
        talk: Future[None],
        job: Job,
        order: _Order,
        repetition: Repetition,
    ) -> Outcome:
        attempt, past = "", set()
        deadline: float | None = None
        while True:
            if order.stopped.is_set():
                if not attempt or repetition.is_behind:  # a worker adds nothing to what is there
                    return repetition.stopped()
                if deadline is None:
                    deadline = time.monotonic() + HEAR_SECONDS
                    _loop(client).add_callback(_set_event, client, job.id)
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                batch = order.inbox.get(timeout=left)
            except queue.Empty:
                return repetition.stopped()
            if batch is None:
                if talk.done():
                    try:
                        talk.result()
                    except KilledWorker as error:
                        raise WorkerLostError(str(error), repetition.progress) from error
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
                    return repetition.outcome(wire.outcome_of(message, blob, job))
                if message["kind"] == "stopping":
                    deadline = time.monotonic() + END_SECONDS
                    continue
                repetition(wire.report_of(message, blob))

    async def _base_there(self, client: Client, base: Base) -> Any:
        """In dask's loop: the base on the workers, sent once to each of them."""
        sent = self._sent.get(base)
        if sent is None or not _arrives(sent, client):
            sent = self._sent[base] = asyncio.ensure_future(_send(client, base))
        return await asyncio.shield(sent)

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
                threads = self._client.nthreads(callback_timeout=CONNECT_SECONDS)
                self._remote = sum(threads.values())
            except Exception:  # dask's own, of many kinds: it is away, or did not answer once
                self._failed += 1
                closed = self._client is None or self._client.status == "closed"
                if not closed and self._failed < _LOOKS:
                    return
                self._drop()
            self._looks, self._failed = self._looks + 1, 0
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


def shared_device() -> Device:
    """What all machines have: their CPU. In the number format of this one, so that a run has one
    from its start to its end, whoever trains it."""
    own = choose_device()
    if own.device.type == "cpu":
        return own
    reason = "Runs train on several machines: in float32, on the CPU, which they all have."
    return Device(torch.device("cpu"), torch.float32, reason)


def _message_of(job: Job) -> tuple[dict[str, Any], bytes]:
    return wire.job_message(job, job.base.digest())


async def _send(client: Client, base: Base) -> Any:
    content = await asyncio.to_thread(wire.base_bytes, base)
    return await client.scatter(content, broadcast=True, hash=False, timeout=_SEND)


def _arrives(sent: asyncio.Task[Any], client: Client) -> bool:
    """Whether a base is on its way to this client's workers, or there."""
    if not sent.done():
        return True
    if sent.cancelled() or sent.exception() is not None:
        return False
    return bool(sent.result().client is client and sent.result().status == "finished")


def _loop(client: Client) -> Any:
    """Dask's own event loop: it may be asked for from any thread."""
    return client.loop


def _event(job_id: str) -> str:
    return f"lora-lab-stop-{job_id}"


async def _set_event(client: Client, job_id: str) -> None:
    scheduler: Any = client.scheduler
    with contextlib.suppress(Exception):  # it has gone, and with it the run
        await scheduler.event_set(name=_event(job_id))


async def _clear_event(client: Client, job_id: str) -> None:
    scheduler: Any = client.scheduler
    with contextlib.suppress(Exception):
        await scheduler.event_clear(name=_event(job_id))


# On a worker -----------------------------------------------------------------------------------


def train_there(
    message: dict[str, Any], blob: bytes, base: bytes, channel: str, event: str
) -> None:
    """Train a run on a worker; what there is to say goes to the queue `channel`.

    Raises `MachineError` for a base that is not the one that was meant.
    """
    use_one_thread()
    job = wire.job_of(message, blob, _base_of(message["base"], base))
    with _Outbox(get_client(), channel, event) as outbox:
        outcome = train(
            job, lambda item: outbox.say(*wire.report_message(item)), outbox.stopped.is_set
        )
        outbox.say(*wire.outcome_message(outcome))


def _base_of(digest: str, content: bytes) -> Base:
    with _loading:
        if digest not in _bases:
            path = Path(get_worker().local_directory) / f"{digest}.safetensors"
            if not path.exists():  # never written to again: a run may still have it mapped
                draft = path.with_suffix(".part")
                draft.write_bytes(content)
                draft.replace(path)
            base = wire.read_base(path)
            if base.digest() != digest:
                with contextlib.suppress(OSError):  # Windows keeps what is mapped
                    path.unlink()
                raise MachineError("The base did not arrive as it was sent.")
            _bases.clear()
            _bases[digest] = base
        return _bases[digest]


class _Outbox:
    """Collects what a run says and sends it, several times a second; hears whether to stop.

    The queue is the server's: whoever puts something in when it is gone is told that nobody listens
    any more.
    """

    def __init__(self, client: Client, channel: str, event: str) -> None:
        self.stopped = threading.Event()
        self._client, self._channel, self._event = client, channel, Event(event, client=client)
        self._attempt = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._said = io.BytesIO()
        self._over = threading.Event()
        self._error: Exception | None = None  # what was said is lost
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Outbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._flush()

    def say(self, message: dict[str, Any], blob: bytes) -> None:
        """Send this soon, in order."""
        with self._lock:
            wire.send(self._said, message, blob)

    def _work(self) -> None:
        while not self._over.wait(_FLUSH):
            try:
                if not self.stopped.is_set() and self._event.is_set():
                    self.stopped.set()
                    self.say({"kind": "stopping"}, b"")
                self._flush()
            except Exception as error:  # dask's own, of many kinds
                self._error = error
                self.stopped.set()
                return

    def _flush(self) -> None:
        with self._lock:
            said, self._said = self._said.getvalue(), io.BytesIO()
        if said:
            batch = {"attempt": self._attempt, "said": said}
            scheduler: Any = self._client.scheduler
            self._client.sync(scheduler.queue_put, name=self._channel, data=batch, timeout=None)
