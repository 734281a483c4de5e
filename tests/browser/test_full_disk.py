"""A disk that is really full, a small one of the server's own: said beside the button of step 5."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

import lora_core as lc
from lora_core.adapters.adapter import zip_adapter
from lora_core.ui.sentences import DISK_FULL
from tests.browser.conftest import PATIENCE, Log
from tests.peers.stranger import adapted
from tests.servers import Server, free_port

OWN = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
SERVE = """
import os, sys
mount = "mount -t tmpfs -o size={size}m none {place} && exec \\"$@\\""
os.execvp({own!r}[0], [*{own!r}, mount, "sh", sys.executable, "app.py", *sys.argv[1:]])
"""


# A model is written in two steps: with 20 MB the first fails, of its tensors; with 40 the second.
@pytest.fixture(params=[20, 40], ids=lambda size: f"{size} MB")
def small_disk(request, tmp_path: Path) -> Iterator[str]:
    """The address of a server whose files lie on a disk of so many megabytes."""
    mounted = (
        shutil.which("unshare")
        and not subprocess.run(
            [*OWN, f"mount -t tmpfs none {tmp_path}"], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("this system lets nobody mount a disk of one's own")
    code = SERVE.format(size=request.param, place=tmp_path, own=OWN)
    options = ["--port", str(free_port()), "--no-browser", "--data", "none"]
    server = Server(*options, code=code, GRADIO_TEMP_DIR=str(tmp_path))
    try:
        yield server.address
    finally:
        if server.process.poll() is None:
            server.end()


def test_a_full_disk_is_said_beside_the_button_and_what_fits_still_comes(
    context: BrowserContext, small_disk: str, log: Log, base: lc.Base, tmp_path_factory
) -> None:
    archive = tmp_path_factory.mktemp("archive") / "adapter.zip"
    zip_adapter(adapted(base, lc.LoRAConfig(4, 8), classes=2, bias=True), archive)
    page = context.new_page()
    log.watch(page)
    page.goto(f"{small_disk}/?view=full")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor') !== null")
    page.locator("#bring input[type=file]").set_input_files(archive)
    expect(page.locator("#take-model")).to_be_enabled(timeout=PATIENCE)
    for _ in range(2):
        page.locator("#take-model").click()
        expect(page.locator("#take-note .bad")).to_contain_text(DISK_FULL, timeout=PATIENCE)
        with page.expect_download(timeout=PATIENCE) as download:  # nothing of it was left there
            page.locator("#take-adapter").click()
        assert Path(download.value.path()).stat().st_size > 1000
        expect(page.locator("#take-note .bad")).to_have_count(0)
    assert page.locator(".toast-body").count() == 0
