"""What the page shows of runs that a store keeps, or cannot keep now."""

from __future__ import annotations

import lora_core as lc
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store
from lora_core.ui.context import Lab
from lora_core.ui.page import build_page
from lora_core.ui.panels import view
from tests.cases.folders import tiny_folder
from tests.serving.registry import full_disk, submit, wait

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
