"""What a run frees goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from lora_core.serving.registry import Registry
from tests.serving.registry import submit, wait

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps it")

MEGABYTE = 1_000_000


def resident() -> int:
    """Bytes of this process that lie in memory; the question takes no room in the heap."""
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    pages = os.read(statm, 100).split()[1]
    os.close(statm)
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_what_lies_free_in_the_heap_goes_back_when_a_run_ends(tiny, words) -> None:
    with Registry(workers=1) as registry:
        wait(submit(registry, tiny, words))  # what a first run imports and keeps
        before = resident()
        blocks = [b"x" * 100_000 for _ in range(2000)]
        stays = blocks.pop()  # on top of the others, which glibc keeps for it
        del blocks
        assert resident() > before + 150 * MEGABYTE
        wait(submit(registry, tiny, words))
        assert resident() < before + 50 * MEGABYTE
        assert len(stays) == 100_000


def test_the_tops_of_threads_heaps_go_back_by_themselves() -> None:
    code = """
import threading
from lora_core.serving import heap
from tests.serving.test_heap import MEGABYTE, resident

large = b"x" * (31 << 20)
del large  # from now on glibc maps nothing that is smaller, and keeps twice as much
heap.trim()

def fill():
    before = resident()
    blocks = [b"x" * MEGABYTE for _ in range(40)]
    assert resident() > before + 35 * MEGABYTE
    blocks.clear()
    print(resident() - before)

thread = threading.Thread(target=fill)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * MEGABYTE
