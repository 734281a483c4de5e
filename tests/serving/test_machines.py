"""Runs on workers of a real scheduler of dask.distributed, all processes of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.serving.executors import Threads
from lora_core.serving.machines import Machines
from lora_core.serving.registry import Registry, new_visitor
from tests.servers import free_port
from tests.serving.registry import WAIT, adapter, same, submit, wait

ROOT = Path(lc.__file__).parent.parent
PROGRAM = "import runpy, sys; runpy.run_module('distributed.cli.dask_{}', run_name='__main__')"
tick = threading.Event().wait


@contextmanager
def started(kind: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `dask scheduler` or a `dask worker`, ended afterwards."""
    command = [sys.executable, "-c", PROGRAM.format(kind), *options]
    with (folder / f"{kind}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scheduler(folder: Path, port: int):
    return started(
        "scheduler", folder, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
    )


def worker(folder: Path, address: str):
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
    options += ["--preload", "lora_core.serving.machines"]  # torch takes seconds to import
    return started("worker", folder, address, *options)


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
