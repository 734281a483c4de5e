"""Files that unpack to a thousand times their size: a sentence, and how much memory that takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.limits import Limits
from lora_core.tasks import binary_program
from tests.tasks.bombs import bombs

# The kernel counts what a process had before it became another program, so the one that starts the
# reader is a small one. Prints the reader's answer, and the most memory that it had, in MB.
MEASURE = """
import os, subprocess, sys
reader = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
answer = reader.stdout.read().decode()
_, _, used = os.wait4(reader.pid, 0)
print(answer)
print(used.ru_maxrss // 1024)
"""
BOMBS = bombs()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_a_sentence_and_takes_little_memory(tmp_path: Path, name: str) -> None:
    content, words = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(content)
    kind = "XLSX" if name.endswith(".xlsx") else "Parquet"
    limits = Limits()
    most = [limits.max_rows, limits.max_columns, limits.unpacked_mb * 1_000_000]
    reader = [sys.executable, "-P", binary_program.__file__, str(path), kind, *map(str, most)]
    command = [sys.executable, "-S", "-c", MEASURE, *reader, "null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer, megabytes = done.stdout.splitlines()
    assert re.search(words, json.loads(answer)["error"])
    assert int(megabytes) < 500, f"{len(content):,} bytes"
