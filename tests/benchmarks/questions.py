"""What each question of Experiments costs: processor seconds of one thread, of one run.

    python -m tests.benchmarks.questions [--rank 8] [--task sms-spam]

The run is short, because the arithmetic does not depend on what was learnt. See
`tests.benchmarks.asking` for what the questions cost those who train meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import lora_core as lc
from lora_core.config import Method
from lora_core.cores import set_threads
from lora_core.explain.exam import Exam, finish
from lora_core.explain.forgetting import forgetting, general_text, passage
from lora_core.explain.knife import Knife, cuts
from lora_core.explain.knockout import Switchboard, knockouts
from lora_core.explain.merging import check_merging
from lora_core.explain.voting import ballots, count_votes
from lora_core.ui.experiments import rows_without


def trained(base: lc.Base, task: lc.Task, rank: int, method: Method) -> lc.Classifier:
    """A run of two steps."""
    settings = lc.TrainConfig(steps=2, batch_size=8, evaluations=1, method=method)
    *_, last = lc.fine_tune(base, task, lc.LoRAConfig(rank=rank), settings)
    assert isinstance(last, lc.Finished)
    return last.classifier


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--task", default="sms-spam")
    options = parser.parse_args()
    set_threads(1)
    base, task = lc.load_base("bundled"), lc.load_task(options.task)
    text = passage(base.tokenizer, general_text(), base.config.context_length)
    lora, full = (trained(base, task, options.rank, method) for method in ("lora", "full"))
    exam, fewer = Exam.of(lora, task), Exam.of(lora, task, rows_without(lora))
    voters = [lora, full]
    questions: dict[str, Callable[[], object]] = {
        f"the knife, ranks 0 to {options.rank}": lambda: finish(cuts(Knife(lora), exam)),
        "each part off, LoRA": lambda: finish(knockouts(Switchboard(lora), fewer)),
        "each part off, full fine-tuning": lambda: finish(knockouts(Switchboard(full), fewer)),
        "did it forget, LoRA": lambda: finish(forgetting(lora, base, text)),
        "did it forget, full fine-tuning": lambda: finish(forgetting(full, base, text)),
        "is merging free": lambda: finish(check_merging(lora, exam)),
        "two who vote": lambda: count_votes(finish(ballots(voters, exam)), exam),
    }
    print(f"{options.task}: {exam.rows} test texts, {fewer.rows} of them without each part\n")
    print("| question | processor time |\n|---|--:|")
    for name, answer in questions.items():
        begin = time.thread_time()
        answer()
        print(f"| {name} | {time.thread_time() - begin:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
