"""What the process of a server does for itself before it serves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RAISED = """
import resource
hard = min(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from lora_core.ui.process import raise_descriptor_limit
assert raise_descriptor_limit() == hard, raise_descriptor_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
CONSOLE = """
from lora_core.ui.process import forgiving_console
forgiving_console()
print("a code: \\u2588, a name: \\u0141")
"""
WARM = """
import sys, torch
from lora_core.ui.process import warm_up
assert "torch._dynamo" not in sys.modules
warm_up()
before = set(sys.modules)
weight = torch.nn.Parameter(torch.zeros(2))
optimiser = torch.optim.AdamW([weight])
weight.sum().backward()
optimiser.step()
new = {name for name in set(sys.modules) - before if name.startswith("torch")}
assert not new, new
"""

# Where the processor has bfloat16, torch compiles a product for each number of rows; elsewhere
# there is nothing to keep. What is measured is what the thread keeps, so oneDNN keeps little.
PRODUCTS = """
import os, re
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "8"
import app, torch
def megabytes():
    rollup = open("/proc/self/smaps_rollup").read()
    return int(re.search(r"Anonymous:\\s+(\\d+)", rollup)[1]) // 1024
torch.set_num_threads(1)
B, before = torch.randn(8, 768).bfloat16(), megabytes()
for rows in range(32, 332):
    torch.zeros(rows, 768).bfloat16().addmm_(torch.randn(8, rows).bfloat16().T, B)
assert megabytes() - before < 60, megabytes() - before  # 120 without a bound, 30 with it
"""


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_as_many_connections_as_the_user_may_have() -> None:
    pytest.importorskip("resource")
    _run(RAISED)


def test_a_console_that_cannot_show_a_character_shows_its_number() -> None:
    said = _run(CONSOLE, PYTHONIOENCODING="ascii")
    assert said.strip() == "a code: \\u2588, a name: \\u0141"


def test_the_first_run_imports_nothing_more_of_torch() -> None:
    _run(WARM)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_a_thread_keeps_few_of_the_products_that_torch_compiles() -> None:
    _run(PRODUCTS)
