"""What the page shows of runs that a store keeps, or cannot keep now."""

from __future__ import annotations

import lora_core as lc
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store
from lora_core.ui.context import Lab
from lora_core.ui.page import build_page
from lora_core.ui.panels import view
from lora_core.ui.panels.finetune import go_on_all
from tests.cases.folders import tiny_folder
from tests.serving.registry import LONG, endless, full_disk, submit, under_way, wait

VISITOR = "v" * 43


def test_a_run_over_a_folder_of_the_host_is_opened_after_a_restart(task, tmp_path) -> None:
    folder = str(tiny_folder(tmp_path / "base")[0])
    config = lc.TrainConfig(steps=2, evaluations=1, batch_size=4)
    for _ in range(2):
        with Registry(workers=1, store=Store(tmp_path / "data")) as registry:
            build_page(registry, bases=[folder])
            if not registry.runs(VISITOR):
                base = lc.load_base(folder)
                wait(registry.submit(VISITOR, base, task, lc.LoRAConfig(rank=2), config))
            (run,) = registry.runs(VISITOR)
            assert run.classifier is not None, run.lost


def test_of_several_interrupted_runs_the_others_go_on_where_one_cannot(
    tiny, words, tmp_path
) -> None:
    with Registry(LONG, workers=2, store=Store(tmp_path)) as registry:
        for rank in (1, 2):
            under_way(endless(registry, tiny, words, VISITOR, rank=rank), steps=110)
    store = Store(tmp_path)
    damaged = store.of(VISITOR)[0].weights
    store.weights_path(damaged).write_bytes(b"not a file of tensors")
    with Registry(LONG, workers=2, store=store, bases=lambda *_: tiny) as registry:
        (sentence,) = go_on_all(Lab(registry), VISITOR)
        assert "r 1" in sentence and "damaged" in sentence and "r 2" not in sentence
        stays, going = registry.runs(VISITOR)
        assert stays.interrupted and going.lora_config.rank == 2
        under_way(going, steps=going.first_step + 3)


def test_the_page_says_that_nothing_is_kept_while_the_disk_is_full(tiny, words, tmp_path) -> None:
    with Registry(workers=1, store=Store(tmp_path)) as registry:
        shown = view.View(Lab(registry), VISITOR)
        with full_disk():
            run = submit(registry, tiny, words, VISITOR)
            wait(run)
            line = shown.update()[0]["line"]
        assert "done" in line and "disk cannot be written" in line
        registry.sweep()
        line = shown.update()[0]["line"]
        assert "done" in line and "disk" not in line
