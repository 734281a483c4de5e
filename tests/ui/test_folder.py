"""The folder of a process for files: private, emptied by who comes next, gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lora_core.ui.folder import OwnFolder

HOLDER = """
import sys
from lora_core.ui.folder import FOLDER
FOLDER.open()
(FOLDER.files / "table.csv").write_text("text,label")
print(FOLDER.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder with a visitor's table in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={**os.environ, "GRADIO_TEMP_DIR": str(parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_private_and_gone_at_the_end(parent: Path) -> None:
    folder = OwnFolder()
    assert not folder.path.exists() and not folder.remark
    folder.open()
    assert folder.files.is_dir() and parent in folder.path.parents
    if hasattr(os, "getuid"):
        assert not folder.path.parent.stat().st_mode & 0o077
    assert folder.path in Path(tempfile.gettempdir()).parents
    folder.close()
    assert not folder.path.exists()
    assert folder.path not in Path(tempfile.gettempdir()).parents


def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(
    parent: Path,
) -> None:
    killed, left = holder(parent)
    living, held = holder(parent)
    try:
        killed.kill()
        killed.wait(60)
        assert (left / "files" / "table.csv").is_file()
        folder = OwnFolder()
        folder.open()
        assert not left.exists() and (held / "files" / "table.csv").is_file()
        folder.close()
    finally:
        living.kill()
        living.wait(60)


@pytest.mark.parametrize("wanted", ["/dev/null/gradio", "file/in/the/way"])
def test_a_place_that_cannot_be_used_is_said_and_another_taken(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    if not wanted.startswith("/"):
        wanted = str(tmp_path / wanted)
    monkeypatch.setenv("GRADIO_TEMP_DIR", wanted)
    folder = OwnFolder()
    assert f"GRADIO_TEMP_DIR={wanted} cannot be written to" in folder.remark
    folder.open()
    assert folder.files.is_dir()
    folder.close()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner here")
def test_a_folder_that_others_can_write_to_or_that_points_elsewhere_is_not_used(
    parent: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = parent / f"lora-lab-{os.getuid()}"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    assert home not in OwnFolder().path.parents
    home.rmdir()
    home.symlink_to(tmp_path_factory.mktemp("elsewhere"))
    assert home.resolve() not in OwnFolder().path.parents


def test_a_childs_folder_is_beside_its_parents_not_in_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    parent = OwnFolder()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(parent.files))  # as importing the page does
    child = OwnFolder()
    assert child.path.parent == parent.path.parent and child.path != parent.path
    assert not parent.path.exists()  # a folder without a lock: the next start would empty it
