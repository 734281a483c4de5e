"""A device that is asked for and is not here is a sentence, at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LORA_LAB_DEVICE", "gpu", "must be cpu, cuda or mps"),
        ("LORA_LAB_DTYPE", "float16", "must be float32 or bfloat16"),
        pytest.param(
            "LORA_LAB_DEVICE",
            "cuda",
            "does not find",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_the_app_says_so_and_ends(variable, value, words) -> None:
    done = subprocess.run(
        [sys.executable, "app.py", "--no-browser"],
        env={**os.environ, variable: value},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
