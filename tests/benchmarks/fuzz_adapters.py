"""Ten thousand mutated adapters: none may crash the loader, take long, or take much memory.

python -m tests.benchmarks.fuzz_adapters [--count 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

import lora_core as lc
from tests.adapters.hostile import memory, mutated, small_adapter, small_base


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(arguments.seed)
    base = small_base()
    digest = base.digest()
    outcomes: collections.Counter[str] = collections.Counter()
    sentences: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.zip"
        good = small_adapter(base, path)
        lc.load_adapter(path, base)
        begun, memory_before = time.perf_counter(), memory()
        for number in range(arguments.count):
            archive = mutated(good, chance)
            path.write_bytes(archive)
            start = time.process_time()
            try:
                classifier = lc.load_adapter(path, base, max_bytes=2**20)
                answer = classifier.classify("hello").probabilities
                outcomes["loaded" if abs(sum(answer.values()) - 1) < 1e-3 else "WRONG"] += 1
            except lc.AdapterError as error:
                outcomes["refused"] += 1
                sentences[re.sub(r"'[^']*'|[\d.,]+|\([^)]*\)", "…", str(error))[:90]] += 1
            except Exception:
                outcomes["CRASHED"] += 1
                traceback.print_exc()
                Path(f"crash-{arguments.seed}-{number}.zip").write_bytes(archive)
            slowest = max(slowest, time.process_time() - start)
    seconds = time.perf_counter() - begun
    print(f"{arguments.count:,} mutated archives, seed {arguments.seed}, {seconds:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"  {count:6,} {outcome}")
    print(f"slowest: {slowest * 1000:.0f} ms of processor time")
    print(f"memory at most: {(memory() - memory_before) / 1e6:+.1f} MB")
    print(f"base unchanged: {base.digest() == digest}")
    print("the commonest sentences:")
    for sentence, count in sentences.most_common(12):
        print(f"  {count:6,} {sentence}")
    return int(bool(outcomes["CRASHED"] or outcomes["WRONG"] or base.digest() != digest))


if __name__ == "__main__":
    sys.exit(main())
