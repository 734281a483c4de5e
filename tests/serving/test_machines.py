"""Runs on workers of a real scheduler of dask.distributed, all processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import pytest
from distributed.cli import dask_worker

import lora_core as lc
from lora_core.devices import choose_device
from lora_core.serving import wire
from lora_core.serving.executors import Threads
from lora_core.serving.machines import Machines
from lora_core.serving.registry import Registry, new_visitor
from lora_core.serving.worker import Job
from tests.servers import free_port
from tests.serving.registry import (
    ENDLESS,
    LONG,
    WAIT,
    adapter,
    endless,
    same,
    submit,
    tiny_base,
    under_way,
    wait,
)

ROOT = Path(lc.__file__).parent.parent
PROGRAM = "import runpy, sys; runpy.run_module('distributed.cli.dask_{}', run_name='__main__')"
tick = threading.Event().wait


@contextmanager
def started(
    kind: str, folder: Path, *options: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A `dask scheduler` or a `dask worker`, ended afterwards."""
    command = [sys.executable, "-c", PROGRAM.format(kind), *options]
    with (folder / f"{kind}.log").open("ab") as log:
        environment = {**os.environ, **variables}
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scheduler(folder: Path, port: int):
    return started(
        "scheduler", folder, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
    )


def worker(folder: Path, address: str, threads: int = 1, **variables: str):
    options = ["--nthreads", str(threads), "--local-directory", str(folder)]
    options += ["--no-nanny", "--no-dashboard"]
    options += ["--preload", "lora_core.serving.machines"]  # torch takes seconds to import
    return started("worker", folder, address, *options, **variables)


def until(condition) -> None:
    for _ in range(int(WAIT / 0.05)):
        if condition():
            return
        tick(0.05)
    raise AssertionError("waited in vain")


def test_a_lost_worker_s_run_begins_again_and_adapters_are_those_of_one_machine(
    tmp_path, tiny, words
) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    settings = [{"rank": 1 + i, "seed": i, "steps": 2000, "evaluations": 40} for i in range(2)]
    with Registry(workers=1) as registry:
        alone = [submit(registry, tiny, words, watch=["win"], **s) for s in settings]
        wait(*alone)
    with (
        scheduler(tmp_path, port),
        worker(tmp_path, address) as first,
        worker(tmp_path, address),
    ):
        machines = Machines(address, Threads(1))
        with Registry(executor=machines) as registry:
            until(lambda: machines.workers == 2)
            assert "2 workers" in machines.sentence
            digest = tiny.digest()
            # Whoever gets the base first would be at its end while the other still reads it.
            wait(*[submit(registry, tiny, words, seed=i) for i in range(2)])
            runs = [submit(registry, tiny, words, watch=["win"], **s) for s in settings]
            until(lambda: all(run.step > 20 for run in runs))
            first.send_signal(signal.SIGKILL)  # in the middle of one of the two
            assert not any(run.is_over for run in runs)
            wait(*runs)
            for run, other in zip(runs, alone, strict=True):
                assert run.state == "finished", run.reason
                assert same(adapter(run), adapter(other)) and run.test_score == other.test_score
                steps = [e.step for e in run.events if isinstance(e, lc.Step)]
                assert steps == list(range(1, 2001))  # nothing twice, nothing missing
                assert [type(e) for e in run.events] == [type(e) for e in other.events]
            until(lambda: machines.workers == 1)
            assert tiny.digest() == digest
            stopped = submit(registry, tiny, words, new_visitor(), steps=2000)
            until(lambda: stopped.step > 20)
            registry.stop(stopped.visitor, stopped.id)
            wait(stopped)
            assert stopped.state == "stopped" and stopped.classifier is not None


def test_without_a_scheduler_runs_train_here_and_it_may_come_and_go(
    tmp_path, tiny, words, caplog, monkeypatch
) -> None:
    monkeypatch.setattr("lora_core.serving.machines.CONNECT_SECONDS", 1.0)
    monkeypatch.setattr("lora_core.serving.machines.AGAIN_SECONDS", 0.5)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    machines = Machines(address, Threads(1))
    assert "does not answer" in machines.sentence and machines.workers == 1
    with Registry(executor=machines) as registry:
        here = submit(registry, tiny, words)
        wait(here)
        assert here.state == "finished"
        with scheduler(tmp_path, port), worker(tmp_path, address), worker(tmp_path, address):
            until(lambda: machines.workers == 2)
            wait(*[submit(registry, tiny, words, seed=i) for i in range(2)])
            there = [submit(registry, tiny, words, steps=2000, seed=i) for i in range(2)]
            until(lambda: all(run.step > 20 for run in there))
            assert [run.state for run in there] == ["running"] * 2
        wait(*there)  # they began again here
        assert [run.state for run in there] == ["finished"] * 2, [run.reason for run in there]
        assert "does not answer" in caplog.text


@pytest.mark.parametrize("options", [[], ["--workers", "processes"]])
def test_the_app_does_not_import_dask_unless_asked(options) -> None:
    code = (
        f"import sys, app\n"
        f"executor, _ = app.where_runs_train(app.parse({options!r}))\n"
        f"executor.shutdown()\n"
        f"print('distributed' in sys.modules, type(executor).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "Processes" if options else "Threads"], done.stderr


@contextmanager
def hall(folder: Path, monkeypatch, **variables: str):
    """A scheduler with one worker of two threads, and a registry that trains there."""
    monkeypatch.setattr("lora_core.serving.machines.AGAIN_SECONDS", 0.5)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(folder, port), worker(folder, address, 2, **variables) as process:
        machines = Machines(address, Threads(1))
        until(lambda: "2 workers" in machines.sentence)
        with Registry(LONG, executor=machines) as registry:
            yield machines, registry, process


@pytest.fixture
def away(monkeypatch) -> Machines:
    """Machines without a scheduler."""
    monkeypatch.setattr("lora_core.serving.machines.CONNECT_SECONDS", 0.5)
    return Machines(f"tcp://127.0.0.1:{free_port()}", Threads(1))


def test_of_many_runs_that_train_here_the_waiting_ones_stop_at_once(away, tiny, words) -> None:
    """As they do where a scheduler goes with many workers: more runs than this machine has."""
    settings = lc.TrainConfig(steps=ENDLESS, batch_size=4)
    jobs = [Job(f"run {i}", tiny, words, lc.LoRAConfig(rank=2), settings) for i in range(3)]
    begun = threading.Event()
    training, *waiting = [away.submit(job, lambda _: begun.set()) for job in jobs]
    assert begun.wait(WAIT)
    for job, future in zip(jobs[1:], waiting, strict=True):
        away.stop(job.id)
        assert future.result(WAIT).state == "stopped"
    assert not training.done()
    away.stop(jobs[0].id)
    assert training.result(WAIT).state == "stopped"
    away.shutdown()


def test_a_stop_after_a_loss_keeps_what_was_reported(tmp_path, tiny, words, monkeypatch) -> None:
    with hall(tmp_path, monkeypatch) as (machines, registry, process):
        run = endless(registry, tiny, words)
        until(lambda: any(isinstance(e, lc.Evaluated) and e.step and e.best for e in run.events))
        process.send_signal(signal.SIGKILL)
        until(lambda: machines.workers == 1)  # those of this machine
        best = [e for e in run.events if isinstance(e, lc.Evaluated) and e.best][-1]
        registry.stop(run.visitor, run.id)
        wait(run)
        assert run.state == "stopped" and run.classifier is not None
        assert isinstance(run.events[-1], lc.events.Finished)
        assert run.events[-1].best_step >= best.step > 0
        with distributed.Client(machines.address) as client:  # and nothing stays behind
            until(lambda: client.run_on_scheduler(queues) == [])


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGSTOP to send")
def test_a_stop_waits_for_nobody_who_does_not_say_that_it_stops(
    tmp_path, tiny, words, monkeypatch
) -> None:
    monkeypatch.setattr("lora_core.serving.machines.END_SECONDS", 2 * WAIT)
    with hall(tmp_path, monkeypatch) as (_, registry, process):
        monkeypatch.setattr("lora_core.serving.machines.HEAR_SECONDS", WAIT)
        heard, hung = (endless(registry, tiny, words) for _ in range(2))
        under_way(heard, hung, steps=110)
        registry.stop(heard.visitor, heard.id)
        wait(heard)
        assert "temperature" in heard.classifier.scores  # its worker ended it
        monkeypatch.setattr("lora_core.serving.machines.HEAR_SECONDS", 0.4)
        process.send_signal(signal.SIGSTOP)  # as a network that hangs
        registry.stop(hung.visitor, hung.id)
        wait(hung)
        assert hung.state == "stopped" and hung.classifier is not None


def queues(dask_scheduler) -> list[str]:
    return list(dask_scheduler.extensions["queues"].queues)


def test_a_run_has_one_number_format_and_outlasts_a_look_that_fails(
    tmp_path, tiny, words, monkeypatch, caplog
) -> None:
    monkeypatch.setenv("LORA_LAB_DTYPE", "float32")
    choose_device.cache_clear()
    looks: list[bool] = []
    look = distributed.Client.nthreads

    def failing_once(self, *arguments, **named):
        looks.append(len(looks) != 0)
        if not looks[-1]:
            raise OSError
        return look(self, *arguments, **named)

    with hall(tmp_path, monkeypatch, LORA_LAB_DTYPE="bfloat16") as (_, registry, _):
        run = endless(registry, tiny, words)
        under_way(run)
        monkeypatch.setattr(distributed.Client, "nthreads", failing_once)
        until(lambda: sum(looks) == 2)
        under_way(run, steps=run.step + 20)
        registry.stop(run.visitor, run.id)
        wait(run)
        started = [e for e in run.events if isinstance(e, lc.Started)]
        assert [e.device.format for e in started] == ["float32"]
        assert "does not answer" not in caplog.text, "it was there all the time"
    choose_device.cache_clear()


def test_a_base_that_is_sent_holds_nobody_up_and_is_checked(
    tmp_path, tiny, words, monkeypatch
) -> None:
    asked, gate, honest = threading.Event(), threading.Event(), wire.base_bytes
    other = tiny_base()
    other.model.final_norm.weight.data.add_(1)

    def slow(base) -> bytes:
        asked.set()
        gate.wait()
        return honest(base)

    with hall(tmp_path, monkeypatch) as (_, registry, _):
        monkeypatch.setattr(wire, "base_bytes", slow)
        first = endless(registry, tiny, words)
        assert asked.wait(WAIT)
        second: list = []

        def visit() -> None:
            second.append(submit(registry, tiny, words))
            registry.stop(first.visitor, first.id)

        threading.Thread(target=visit).start()
        try:
            until(lambda: first.is_over)
        finally:
            gate.set()
        wait(*second)
        assert (first.state, second[0].state) == ("stopped", "finished")
        monkeypatch.setattr(wire, "base_bytes", lambda base: honest(tiny))
        wrong = submit(registry, other, words)
        wait(wrong)
        assert wrong.state == "failed" and "did not arrive" in wrong.reason
        monkeypatch.setattr(wire, "base_bytes", honest)
        right = submit(registry, other, words)
        wait(right)
        assert right.state == "finished", right.reason


def test_another_kind_of_processor_begins_the_curve_anew(
    tmp_path, tiny, words, monkeypatch
) -> None:
    monkeypatch.setenv("LORA_LAB_DTYPE", "float32")
    choose_device.cache_clear()
    with hall(tmp_path, monkeypatch) as (machines, registry, first):
        run = endless(registry, tiny, words)
        older = {"ATEN_CPU_CAPABILITY": "default"}  # adds in another order
        with worker(tmp_path, machines.address, **older):
            until(lambda: "3 workers" in machines.sentence and run.step > 100)
            first.send_signal(signal.SIGKILL)
            until(lambda: sum(isinstance(e, lc.Started) for e in run.events) == 2)
            under_way(run, steps=120)
            alone = endless(registry, tiny, words)
            registry.stop(run.visitor, run.id)
            wait(run)
            under_way(alone, steps=120)
            registry.stop(alone.visitor, alone.id)
            wait(alone)
    choose_device.cache_clear()
    curves = [[e for e in r.curve() if isinstance(e, lc.Step)][:120] for r in (run, alone)]
    assert [e.step for e in curves[0]] == list(range(1, 121)), "nothing twice, nothing missing"
    assert [e.loss for e in curves[0]] == [e.loss for e in curves[1]], "all of one processor"
    before = [e for e in run.events if isinstance(e, lc.Step)][:120]
    assert [e.loss for e in before] != [e.loss for e in curves[0]]


def test_the_readme_starts_a_worker_of_one_thread_for_each_core(monkeypatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    options = re.search(r"dask worker (tcp://.*)", text).group(1).split()
    threads: list[int] = []

    class Nanny:
        def __init__(self, address: str, nthreads: int, **_) -> None:
            assert address == "tcp://HOST:8786"
            threads.append(nthreads)

        def __await__(self):
            yield from ()

        async def finished(self) -> None: ...

    monkeypatch.setattr(dask_worker, "Nanny", Nanny)
    for cores in (1, 8):
        threads.clear()
        monkeypatch.setattr(dask_worker, "CPU_COUNT", cores)
        monkeypatch.setattr("distributed.deploy.utils.CPU_COUNT", cores)
        dask_worker.main.main(options, standalone_mode=False)
        assert threads == [1] * cores
