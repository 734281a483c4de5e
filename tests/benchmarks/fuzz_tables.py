"""Ten thousand damaged tables: each is a task or a sentence, in bounded time and memory.

    python -m tests.benchmarks.fuzz_tables [how many] [seed]

Text formats are read as the server reads them. XLSX and Parquet, which the server reads in a
process of its own for each file, are read here in one process for all of them, under the same bound
on memory; were it to crash, it is started again and the file counted.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import lora_core as lc
from lora_core.limits import Limits
from lora_core.tasks.own_table import inspect_table
from tests.tasks.mutants import mutated, seeds

ARCHIVES = (".xlsx", ".parquet")
MEMORY = 2_000_000_000  # bytes of address space, as in lora_core.tasks.binary_program

_READER = """
import json, pathlib, resource, sys, time
from lora_core.tasks.binary_program import SheetError, rows_of
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for line in sys.stdin:
    path, kind = json.loads(line)
    start = time.perf_counter()
    try:
        rows = rows_of(pathlib.Path(path), kind, 1000, 200, 20_000_000).rows
        said = "table" if rows else "no rows."
    except SheetError as error:
        said = str(error)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([said, time.perf_counter() - start, memory]), flush=True)
"""


def reader() -> subprocess.Popen[str]:
    """The process that reads archives, a path and a kind a line."""
    command = [sys.executable, "-c", _READER, str(MEMORY)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> int:
    """Print the figures; 1 when something was neither a task nor a sentence."""
    how_many = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    shuffler = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    originals = seeds()
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    slowest, slowest_name, peak_reader = 0.0, "", 0
    limits = Limits(max_rows=1000)
    process = reader()
    sentences: Counter[str] = Counter()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(how_many):
            name = shuffler.choice(sorted(originals))
            path = Path(folder) / name
            path.write_bytes(mutated(originals[name], shuffler))
            start = time.perf_counter()
            if path.suffix in ARCHIVES and path.read_bytes()[:2] in (b"PK", b"PA"):
                kind = "XLSX" if path.suffix == ".xlsx" else "Parquet"
                assert process.stdin and process.stdout
                print(json.dumps([str(path), kind]), file=process.stdin, flush=True)
                answer = process.stdout.readline()
                if not answer:
                    outcomes["the reader crashed, alone"] += 1
                    process = reader()
                    continue
                said, _, memory = json.loads(answer)
                peak_reader = max(peak_reader, memory)
                outcomes["archive read" if said == "table" else "archive: a sentence"] += 1
                sentences[f"{kind}: {said}"] += 1
                if said != "table" and said[-1] not in ".?":
                    wrong.append(f"{number} {name}: {said}")
            else:
                try:
                    inspect_table(path, limits=limits)
                    lc.read_task(path, limits=limits)
                    outcomes["text: a task"] += 1
                except lc.TaskError as error:
                    outcomes["text: a sentence"] += 1
                    if str(error)[-1] not in ".?" or len(str(error)) > 500:
                        wrong.append(f"{number} {name}: {error}")
                except Exception as error:  # what the fuzz looks for
                    wrong.append(f"{number} {name}: {type(error).__name__}: {error}")
            took = time.perf_counter() - start
            if took > slowest:
                slowest, slowest_name = took, f"{name}, number {number}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{how_many:,} files in {time.perf_counter() - begun:.0f} s")
    for what, count in outcomes.most_common():
        print(f"  {count:6,}  {what}")
    for said, count in sentences.most_common(8):
        print(f"    {count:6,}  {said[:110]}")
    print(f"slowest {slowest:.2f} s ({slowest_name})")
    print(f"peak memory {peak / 1e3:,.0f} MB; reader of archives {peak_reader / 1e3:,.0f} MB")
    print(f"neither a task nor a sentence: {len(wrong)}")
    for line in wrong[:20]:
        print("  ", line)
    assert process.stdin
    process.stdin.close()
    process.wait()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
