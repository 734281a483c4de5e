"""The tasks that come along, and the one that is downloaded when asked for."""

from __future__ import annotations

import csv
from pathlib import Path

from lora_core.tasks.sms_collection import sms_spam_collection
from lora_core.tasks.task import Task, TaskError, make_task

BUNDLED_TASKS = Path(__file__).resolve().parents[2] / "assets" / "tasks"
TITLES = {
    "sms-spam": "SMS: spam or ham",
    "sentiment": "Reviews: good or bad",
    "support-topic": "Support mail: topic",
    "prompt-injection": "Prompts: injection or not",
}
COLLECTION = "sms-spam-collection"  # downloaded when asked for, see `sms_collection`


def task_names() -> list[str]:
    """Names of the bundled tasks."""
    return sorted(path.stem for path in BUNDLED_TASKS.glob("*.csv"))


def load_task(name: str) -> Task:
    """A task by its name, split 70/10/20 into train, validation and test, always the same way.

    Bundled, written for this project, each with a card beside it in `assets/tasks`: "sms-spam",
    "sentiment", "support-topic", "prompt-injection" (`task_names()` lists them). Besides,
    "sms-spam-collection" is the real SMS Spam Collection, downloaded from UCI when first asked for.

        task = lc.load_task("sms-spam")
        task.labels              # ("ham", "spam")
        task.train[0]            # Example(text="…", label=0): the index of its label
        len(task.train), len(task.validation), len(task.test)

    Raises `TaskError`, a sentence: for another name with those that there are, and for a download
    that failed.
    """
    if name == COLLECTION:
        return sms_spam_collection()
    if name not in task_names():
        raise TaskError(f"There is no task called '{name}'. There are: {', '.join(task_names())}.")
    with (BUNDLED_TASKS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return make_task(name, rows, title=TITLES.get(name, name))
