"""Runs in worker processes: the same adapters, and a run that dies takes nothing with it."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.serving import wire
from lora_core.serving.processes import Processes
from lora_core.serving.registry import Registry, new_visitor
from lora_core.serving.worker import Job
from tests.serving.registry import (
    LONG,
    WAIT,
    adapter,
    endless,
    same,
    submit,
    tiny_base,
    under_way,
    until,
    wait,
)


def test_adapters_are_bit_for_bit_those_of_threads(tiny, words) -> None:
    wanted = [
        {"rank": 1 + i % 3, "seed": i, "method": method, "steps": 8, "evaluations": 4}
        for i, method in enumerate(["lora", "head", "full", "lora"])
    ]
    digest = tiny.digest()
    with Registry(workers=1) as registry:
        alone = [submit(registry, tiny, words, watch=["win"], **s) for s in wanted]
        wait(*alone)
    with Registry(executor=Processes(2)) as registry:
        runs = [submit(registry, tiny, words, watch=["win"], **s) for s in wanted * 2]
        wait(*runs)
    for i, run in enumerate(runs):
        other = alone[i % len(alone)]
        assert run.state == "finished" and run.test_score == other.test_score
        assert same(adapter(run), adapter(other))
        answers, expected = run.test_score.answers, other.test_score.answers
        assert torch.equal(answers.said, expected.said)
        assert torch.equal(answers.probabilities, expected.probabilities)
        assert [type(e) for e in run.events] == [type(e) for e in other.events]
        losses = [[e.loss for e in r.events if isinstance(e, lc.Step)] for r in (run, other)]
        assert losses[0] == losses[1]
        first, second = run.classifier, other.classifier
        assert first.classify("win", 0.0) == second.classify("win", 0.0)
        assert first.scores == second.scores
    assert tiny.digest() == digest


def test_a_run_stops_and_a_killed_worker_takes_only_its_own(tiny, words) -> None:
    executor = Processes(2)
    with Registry(LONG, executor=executor) as registry:
        stopped, killed = (endless(registry, tiny, words, new_visitor()) for _ in range(2))
        following = submit(registry, tiny, words)
        under_way(stopped)
        under_way(killed, steps=210)
        os.kill(executor.process_of(killed.id), signal.SIGKILL)
        wait(killed)
        under_way(stopped, steps=stopped.step + 20)
        registry.stop(stopped.visitor, stopped.id)
        wait(stopped, following)
        assert stopped.state == "stopped" and stopped.classifier is not None
        assert following.state == "finished"
        assert killed.state == "failed" and "only that one" in killed.reason
        assert killed.classifier is not None
        assert killed.classifier.classify("win").label in words.labels
        assert killed.interrupted
        going = registry.go_on(killed.visitor, killed.id)  # without a store, from memory
        under_way(going, steps=going.first_step + 5)
        assert going.first_step > 0
        registry.stop(going.visitor, going.id)


def test_a_base_is_the_same_on_the_other_side(base, tmp_path) -> None:
    path = tmp_path / "base.safetensors"
    wire.write_base(base, path)
    again = wire.read_base(path)
    assert again.digest() == base.digest() and again.config == base.config
    text = "Free entry! ü 😀"
    assert again.tokenizer.encode(text) == base.tokenizer.encode(text)


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process as Linux can")
def test_a_worker_without_memory_says_so_and_the_next_run_finishes(tiny, words) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    executor = Processes(1)
    with Registry(LONG, executor=executor) as registry:
        first = endless(registry, tiny, words)
        under_way(first, steps=20)
        pid = executor.process_of(first.id)
        held = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (held, held))
        registry.stop(first.visitor, first.id)
        big = submit(registry, tiny, words, rank=2, steps=400, batch_size=64)
        wait(first, big)
        assert first.state == "stopped"
        assert big.state == "failed" and "memory" in big.reason, (big.state, big.reason)
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
        following = submit(registry, tiny, words)  # in a new worker where that one has ended
        wait(following)
        assert following.state == "finished"


def test_workers_end_with_their_server_however_it_ends() -> None:
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from lora_core.serving.processes import Processes\n"
        "workers, mine = Processes(2), Path(f'/proc/{os.getpid()}/task').glob('*/children')\n"
        "print(*[pid for one in mine for pid in one.read_text().split()], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(lc.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    ticker, pids = threading.Event(), [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for _ in range(int(WAIT / 0.05)):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        ticker.wait(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.skipif(os.name == "nt", reason="signals as Linux and macOS send them")
def test_the_end_of_a_service_is_its_server_s_affair(tiny, words) -> None:
    """Ctrl-C and systemd's SIGTERM reach the workers, too: a run must not be lost by that."""
    executor = Processes(1)
    with Registry(LONG, executor=executor) as registry:
        run = endless(registry, tiny, words)
        under_way(run)
        worker = executor.process_of(run.id)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker, number)
            under_way(run, steps=run.step + 20)
    assert run.state == "stopped" and "server is ending" in run.reason
    assert run.classifier is not None


def jobs(base, task) -> Iterator[Job]:
    settings = lc.TrainConfig(steps=3, batch_size=4, evaluations=1)
    for number in itertools.count():
        yield Job(f"run {number}", base, task, lc.LoRAConfig(rank=2), settings)


def test_the_file_of_a_base_goes_with_it(words, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    executor = Processes(1)

    def trained() -> int:
        base = tiny_base()
        executor.submit(next(jobs(base, words)), lambda _: None).result(WAIT)
        files = list(tmp_path.rglob("*.safetensors"))
        assert base.name == "tiny"  # it is here until now
        return len(files)

    def none_left() -> bool:
        gc.collect()
        return not list(tmp_path.rglob("*.safetensors"))

    for _ in range(2):
        assert trained() == 1
        until(none_left)
    executor.shutdown()


def test_a_base_that_is_written_holds_nobody_up(words, monkeypatch) -> None:
    asked, answered, write = threading.Event(), threading.Event(), wire.write_base
    waited: list[bool] = []

    def slow(base, path) -> None:
        asked.set()
        waited.append(answered.wait(WAIT / 2))
        write(base, path)

    monkeypatch.setattr(wire, "write_base", slow)
    executor, some = Processes(1), jobs(tiny_base(), words)
    futures = [executor.submit(next(some), lambda _: None)]
    assert asked.wait(WAIT)
    futures.append(executor.submit(next(some), lambda _: None))
    executor.stop("run 1")
    answered.set()
    assert [future.result(WAIT).state for future in futures] == ["finished", "stopped"]
    assert waited == [True]
    executor.shutdown()
