"""One line a run for the host of a workshop: who waited, what ran, how it ended. No texts.

Lines go to the logger `lora_core.serving.registry`; without a handler nothing is written, as in
any library.
"""

from __future__ import annotations

import logging
import threading
import traceback
from typing import TYPE_CHECKING

from lora_core.config import literal

if TYPE_CHECKING:
    from lora_core.serving.run import Run

log = logging.getLogger("lora_core.serving.registry")

_MOST_MESSAGES = 1000  # different ones remembered
_messages: set[str] = set()
_lock = threading.Lock()


def ended(run: Run, *, own_table: bool) -> None:
    """The line of a run that is over. A visitor's own table and names are not mentioned."""
    if not log.isEnabledFor(logging.INFO):
        return
    task = "own table" if own_table else (run.task.name if run.task else "-")
    waited = (run.started or run.ended or run.created) - run.created
    trained = (run.ended or 0.0) - run.started if run.started else 0.0
    result = [f"waited {waited:.1f} s", f"trained {trained:.1f} s", f"{run.step} steps"]
    if run.test_score:
        result.append(f"test accuracy {run.test_score.accuracy:.4f}")
    log.info(
        "run %s %s: %s, %s; %s", short(run.id), run.state, task, settings(run), ", ".join(result)
    )


def broke(run_id: str, error: BaseException) -> None:
    """Where the program failed: the kind of error and the places, not its message, which could
    quote a visitor's text. The same failure is written in full once, then in a line."""
    kind, places = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    if is_new(f"{kind} {places}"):
        log.error("run %s broke: %s\n%s", short(run_id), kind, places)
    else:
        log.error("run %s broke: %s, where one broke before", short(run_id), kind)


def question_broke(error: Exception) -> None:
    """As `broke`, for what was asked of a finished run."""
    kind, places = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    if is_new(f"{kind} {places}"):
        log.error("a question broke: %s\n%s", kind, places)


def once(sentence: str) -> None:
    """A warning that is written the first time only."""
    if is_new(sentence):
        log.warning("%s", sentence)


def is_new(text: str) -> bool:
    """Whether this was not written before."""
    with _lock:
        if text in _messages:
            return False
        if len(_messages) >= _MOST_MESSAGES:
            _messages.clear()
        _messages.add(text)
        return True


def short(run_id: str) -> str:
    """The first characters of the id: enough to tell runs apart, too few to open one."""
    return run_id[:6]


def settings(run: Run) -> str:
    """The settings of a run in a few words."""
    train, lora = run.train_config, run.lora_config
    if train is None:
        return "adapter brought along"
    method: str = train.method
    if method == "lora" and lora is not None:
        method += f" rank {lora.rank} alpha {literal(lora.alpha)}"
    return f"{method}, {train.steps} x {train.batch_size}, seed {train.seed}"
