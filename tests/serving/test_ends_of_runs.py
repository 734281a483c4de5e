"""Whatever goes wrong while a run ends: it ends, no page waits for it, the next one trains."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from lora_core.serving import recall, worker
from lora_core.serving.bases import Bases
from lora_core.serving.executors import Threads, WorkerLostError
from lora_core.serving.registry import Registry, new_visitor
from lora_core.serving.run import Best
from lora_core.serving.store import Store
from lora_core.serving.worker import Progress
from lora_core.ui.api import Endpoints
from lora_core.ui.context import Lab
from lora_core.ui.panels.view import View
from tests.serving.registry import WAIT, submit, under_way, wait


class Losing(Threads):
    """Loses the worker of the first run, once it has weights; whoever waits, waits for `lose`."""

    def __init__(self) -> None:
        super().__init__(1)
        self.lose, self._first = threading.Event(), True
        self._losing = ThreadPoolExecutor(1)

    def submit(self, job, report):
        if not self._first:
            return super().submit(job, report)
        self._first = False
        return self._losing.submit(self._run, job, report)

    def _run(self, job, report):
        progress = Progress(job)

        def told(item) -> None:
            progress.note(item)
            report(item)

        worker.train(job, told, lambda: progress.step > 0)
        assert isinstance(progress.best, Best) and self.lose.wait(WAIT)
        raise WorkerLostError("gone", progress)


def test_a_lost_run_that_there_is_no_memory_for_ends_and_the_next_one_trains(
    tiny, words, monkeypatch
) -> None:
    executor = Losing()
    with Registry(executor=executor) as registry:
        lost, following = submit(registry, tiny, words), submit(registry, tiny, words)
        under_way(lost, steps=1)

        def full(*_):
            raise MemoryError

        monkeypatch.setattr(worker, "rebuild", full)
        executor.lose.set()
        wait(lost, following)
        assert lost.state == "failed" and "out of memory" in lost.reason
        assert following.state == "finished"


def test_a_page_does_not_wait_while_a_lost_run_s_model_is_built(tiny, words, monkeypatch) -> None:
    executor, asked, answered = Losing(), threading.Event(), threading.Event()
    waited: list[bool] = []
    rebuild = worker.rebuild

    def slow(*arguments):
        asked.set()
        waited.append(answered.wait(WAIT / 2))
        return rebuild(*arguments)

    monkeypatch.setattr(worker, "rebuild", slow)
    with Registry(executor=executor) as registry:
        lost = submit(registry, tiny, words)
        under_way(lost, steps=1)
        executor.lose.set()
        assert asked.wait(WAIT)
        assert registry.counts() == {"running": 1}
        answered.set()
        wait(lost)
    assert waited == [True] and lost.interrupted and lost.classifier is not None


def test_an_error_of_what_keeps_runs_does_not_hold_up_the_next_one(
    tiny, words, tmp_path, monkeypatch
) -> None:
    def full(*_):
        raise MemoryError

    with Registry(workers=1, store=Store(tmp_path)) as registry:
        monkeypatch.setattr(recall, "trained_weights", full)
        runs = [submit(registry, tiny, words, evaluations=1) for _ in range(3)]
        wait(*runs)
        assert all(run.is_over for run in runs)


def test_a_page_offers_to_go_on_as_soon_as_a_worker_is_lost(tiny, words) -> None:
    executor, visitor = Losing(), new_visitor()
    with Registry(executor=executor) as registry:
        view = View(Lab(registry, Bases(held={"bundled": tiny})), visitor)
        first = view.update()
        lost = submit(registry, tiny, words, visitor)
        under_way(lost, steps=1)
        second = view.update()
        executor.lose.set()
        wait(lost)
        third = view.update()
    assert [update[-1]["visible"] for update in (first, second, third) if update] == [
        False,
        False,
        True,
    ]


def test_a_script_lets_a_lost_run_go_on(tiny, words) -> None:
    executor = Losing()
    with Registry(executor=executor) as registry:
        endpoints = Endpoints(Lab(registry, Bases(held={"bundled": tiny})))
        lost = submit(registry, tiny, words)
        under_way(lost, steps=1)
        executor.lose.set()
        wait(lost)
        rest = registry.find(endpoints.go_on(lost.id))
        wait(rest)
        assert rest.state == "finished" and rest.step == rest.train_config.steps
        assert lost.id not in [run.id for run in registry.runs(rest.visitor)]
