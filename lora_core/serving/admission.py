"""Which runs a server takes: the caps of `limits`, applied to a base, a task and what waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lora_core.base.checkpoint import Base
from lora_core.config import ConfigError, LoRAConfig, Method, TrainConfig
from lora_core.limits import MEGABYTE, Limits, RunError
from lora_core.parameters import BYTES_FP32, predict_parameters
from lora_core.serving.estimates import about
from lora_core.serving.run import Run, task_bytes
from lora_core.tasks.task import Task


def check_run(
    limits: Limits,
    base: Base,
    task: Task,
    lora_config: LoRAConfig,
    train_config: TrainConfig,
    watch_texts: Sequence[str] = (),
) -> None:
    """Raise `RunError`, in words, for a run that this server does not take."""
    method = train_config.method
    rank = lora_config.rank if method == "lora" else 1
    rows = len(task.train) + len(task.validation) + len(task.test)
    for what, value, cap in (
        ("steps", train_config.steps, limits.max_steps),
        ("texts a step", train_config.batch_size, limits.max_batch),
        ("rank", rank, limits.max_rank),
        ("evaluations", train_config.evaluations or 0, limits.max_steps),
        ("watched texts", len(watch_texts), limits.max_watched),
        ("rows of the table", rows, limits.max_rows),
    ):
        if value > cap:
            raise RunError(f"{what.capitalize()}: {value:,} is more than this server's {cap:,}.")
    for text in watch_texts:
        limits.check_text(text)
    try:
        needed = run_bytes(base, task, lora_config, method)
    except ConfigError as error:
        raise RunError(str(error)) from error
    if needed > min(limits.run_mb, limits.memory_mb) * MEGABYTE:
        raise RunError(
            f"Training this would take about {needed / MEGABYTE:,.0f} MB of memory, more than "
            "this server lends to one run. Choose LoRA, a lower rank or a smaller base."
        )


def check_visitor(visitor: object) -> None:
    """Raise `RunError` for what cannot be a visitor's token."""
    if not isinstance(visitor, str) or not 16 <= len(visitor) <= 200:
        raise RunError("A visitor's token is a secret text of 16 to 200 characters.")


def check_room(limits: Limits, waiting_bytes: int, table: Task | None) -> None:
    """Raise `RunError` when the visitors' tables of runs that are not over leave no room for one
    more: they cannot be dropped, and half of the memory is for what has ended."""
    if table is None:
        return
    room = limits.memory_mb * MEGABYTE / 2
    if waiting_bytes + task_bytes(table) > room:
        raise RunError(
            f"The tables of runs that wait or train take {waiting_bytes / MEGABYTE:,.0f} MB, and "
            f"this server lends them {room / MEGABYTE:,.0f}. Try again when some of them are over, "
            "or bring fewer rows."
        )


def check_queue(
    limits: Limits,
    own: int,
    at_address: int,
    everybody: int,
    estimate: Callable[[Run | None], float | None],
) -> None:
    """Raise `RunError` when this visitor, its address or everybody has as many runs waiting as may
    wait."""
    if own >= limits.waiting_a_visitor:
        raise RunError(
            f"You have {own} runs waiting, as many as this server takes from one visitor. "
            "Stop one of them, or wait until one has started."
        )
    if at_address >= limits.waiting_an_address:
        raise RunError(
            f"{at_address} runs from your address are waiting, as many as this server takes from "
            "one. Try again when some of them have started."
        )
    if everybody >= limits.waiting_in_all:
        seconds = estimate(None)
        last = "" if seconds is None else f", and the last starts in {about(seconds)}"
        raise RunError(
            f"The queue is full: {everybody} runs are waiting{last}. "
            "Try again later; your settings stay as they are."
        )


def run_bytes(base: Base, task: Task, lora_config: LoRAConfig, method: Method) -> int:
    """Bytes of the weights, gradients, moments and copies of one run while it trains.

    Seven float32 numbers a trained parameter: itself, gradient, AdamW's two moments, the best
    weights so far, and the first and last value that a strength is interpolated between.
    Activations are not in it: the caps on batch and context bound them.
    Raises `ConfigError` where a target does not fit the base.
    """
    count = predict_parameters(base.config, lora_config, len(task.labels), method)
    return 7 * BYTES_FP32 * count.trainable
