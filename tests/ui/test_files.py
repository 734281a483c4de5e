"""Files made at a click: few of one visitor, bounded together, deleted in time."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_core.limits import MEGABYTE, RunError
from lora_core.ui import files
from lora_core.ui.files import Downloads


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Downloads:
    monkeypatch.setattr(files, "get_upload_folder", lambda: str(tmp_path))
    return Downloads()


def test_who_presses_without_end_keeps_the_newest_few_and_nobody_else_loses_any(downloads) -> None:
    other = downloads.folder("other")
    pressed = [downloads.folder("ann") for _ in range(20)]
    assert [folder.exists() for folder in pressed] == [False] * (20 - files.OF_ONE) + [
        True
    ] * files.OF_ONE
    assert other.exists()


def test_all_together_are_bounded_and_the_oldest_goes(downloads, monkeypatch) -> None:
    monkeypatch.setattr(files, "IN_ALL_MB", 3)
    made = []
    for i in range(5):
        made.append(downloads.folder(f"visitor {i}"))
        (made[-1] / "model.zip").write_bytes(b"x" * MEGABYTE)
    downloads.sweep()
    assert [folder.exists() for folder in made] == [False, False, True, True, True]


def test_what_is_old_goes_by_itself(downloads) -> None:
    folder = downloads.folder("ann")
    downloads.sweep()
    assert folder.exists()
    downloads.seconds = -1.0
    downloads.sweep()
    assert not folder.exists()


def test_many_who_press_at_once_lose_none_and_leave_none_behind(downloads, tmp_path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of things
    try:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: downloads.folder("ann"), range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert len(set(made)) == 400
    downloads.folder("ann")
    assert len(list(tmp_path.iterdir())) == files.OF_ONE


def test_of_what_fails_nothing_stays(downloads) -> None:
    with downloads.making("ann") as whole:
        (whole / "model.zip").write_bytes(b"x")
    with pytest.raises(OSError, match="full"), downloads.making("ann") as half:
        (half / "model.zip").write_bytes(b"x")
        raise OSError("full")
    assert whole.exists() and not half.exists()


def test_what_is_being_written_is_not_deleted_and_one_more_is_told_to_wait(downloads) -> None:
    downloads.seconds = -1.0  # everything that is done is too old
    with contextlib.ExitStack() as stack:
        in_work = [stack.enter_context(downloads.making("ann")) for _ in range(files.OF_ONE)]
        with pytest.raises(RunError, match="Try again"), downloads.making("ann"):
            pass
        with downloads.making("other"):
            downloads.sweep()
        assert all(folder.exists() for folder in in_work)
    downloads.sweep()
    assert not any(folder.exists() for folder in in_work)
    with downloads.making("ann") as folder:
        assert folder.exists()
