"""Step 5's buttons: what goes wrong is said beside them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

import lora_core as lc
from lora_core.adapters.merged import save_merged
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui.page import build_page
from lora_core.ui.panels import take
from lora_core.ui.sentences import DISK_FULL
from tests.serving.registry import submit, wait
from tests.ui.pressing import pressed


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")


def test_a_full_disk_is_said_beside_the_button(tiny, words, monkeypatch, tmp_path) -> None:
    visitor = new_visitor()
    with Registry(workers=1) as registry:
        page = build_page(registry)
        run = submit(registry, tiny, words, visitor)
        wait(run)
        for button, name in (("take-adapter", "zip_adapter"), ("take-model", "zip_merged")):
            prepare = pressed(page, button)
            path, note = prepare(visitor, run.id)
            assert Path(path).stat().st_size > 1000 and note == {"text": "", "bad": False}
            monkeypatch.setattr(take, name, full)
            assert prepare(visitor, run.id) == [None, {"text": DISK_FULL, "bad": True}]
        monkeypatch.setattr(take.Downloads, "folder", full)
        _, note = pressed(page, "take-csv")(visitor, run.id)
        assert note == {"text": DISK_FULL, "bad": True}
        monkeypatch.setattr(take.shutil, "copyfile", full)
        saved = lc.save_adapter(run.classifier, tmp_path / "saved")
        dropped = [str(path) for path in sorted(saved.glob("adapter_*"))]
        *_, note, _ = pressed(page, "bring")(visitor, "", dropped, "bundled")
        assert note == {"text": DISK_FULL, "bad": True}
        assert not any(Path(file).exists() for file in dropped), "nothing of it is left behind"


@pytest.mark.parametrize("button", ["take-adapter", "take-model", "take-csv"])
def test_with_nothing_to_take_it_says_so(button) -> None:
    with Registry(workers=1) as registry:
        page = build_page(registry)
        _, note = pressed(page, button)(new_visitor(), "")
    assert note["bad"] and "first" in note["text"]


def test_a_whole_model_that_is_dropped_is_said_to_be_one(tiny, words, tmp_path) -> None:
    """As its two files, as all files of its folder, and as the zip that the page itself made."""
    with Registry(workers=1) as registry:
        page = build_page(registry)
        visitor = new_visitor()
        run = submit(registry, tiny, words, visitor)
        wait(run)
        folder = save_merged(run.classifier, tmp_path / "model")
        zipped = tmp_path / "words-r8-model.zip"
        shutil.copyfile(pressed(page, "take-model")(visitor, run.id)[0], zipped)
        files = {path.name for path in folder.iterdir()}
        for names in ({"config.json", "model.safetensors"}, files):
            (tmp_path / "dropped").mkdir(exist_ok=True)
            dropped = [shutil.copy(folder / name, tmp_path / "dropped") for name in sorted(names)]
            *_, note, _ = pressed(page, "bring")(visitor, "", dropped, "bundled")
            assert "This is a whole model, not an adapter" in note["text"], names
        *_, note, _ = pressed(page, "bring")(visitor, "", [str(zipped)], "bundled")
        assert "This is a whole model, not an adapter" in note["text"]
