"""How many cores a run computes with, from step to step: those that are free, while they help.

Torch's number of threads is a setting of each thread (OpenMP's and MKL's, as of torch 2.13; only
the value that `torch.get_num_threads` gives a thread before its first operation comes from the one
that set it last). Which products give the same bits with every number of threads was measured
(`tests/benchmarks/cores.py`): what does not is computed with `one_core`, and `Cores` looks once a
run, at a whole step, and once a process, at single products, whether it holds on this machine too.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import math
import os
import platform
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

_REMEMBERED = 5  # steps whose median is a speed
_TRIAL = 3  # steps after which a speed is believed
_PAUSE, _LONGEST_PAUSE = 16, 1024  # steps until more cores are tried again; longer each time
_LOOK_AGAIN = 64  # steps after which the speed of one core is measured anew
GAIN = 0.95  # more cores must take at most this share of one core's time
HOPELESS = 2.0  # so many times one core's time, and the step is finished with one
CONTENDED = 1.25  # wall time by processor time of one core, above which others compute here too

Item = TypeVar("Item")
Value = TypeVar("Value")


def set_threads(count: int) -> None:
    """Let the calling thread compute with `count` cores."""
    torch.get_num_threads()  # a thread's first operation would take another's setting over
    torch.set_num_threads(count)


@contextlib.contextmanager
def computing_with(count: int) -> Iterator[None]:
    """Compute with `count` cores, then with as many as before. Never yield events inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_core() -> contextlib.AbstractContextManager[None]:
    """For an operation whose last bits depend on the number of cores."""
    return computing_with(1)


def _power_of_two(count: int) -> int:
    """The largest one up to `count`: three or five threads cut products at odd places."""
    return 1 << max(0, count.bit_length() - 1)


def fix_order_of_sums() -> None:
    """Have MKL add up in one order with any number of threads; before a process's first product.

    For Intel's processors, where it cuts long sums into a part for each thread otherwise ("strict
    conditional numerical reproducibility" in oneMKL's guide for developers). On AMD's the bits were
    the same without, so nothing is set there.
    """
    information = Path("/proc/cpuinfo")  # of Linux
    name = information.read_text() if information.is_file() else platform.processor()
    if "GenuineIntel" in name:
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


@functools.cache
def same_products(count: int, dtype: torch.dtype) -> bool:
    """Whether products in `dtype`, of the bundled base's shapes, have the same bits with `count`
    cores as with one, on this machine.

    On some processors MKL and oneDNN cut a long sum into a part for each thread, for some numbers
    of rows only: the gradient of one batch does not tell what the next one does.
    """
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(1024, 256, generator=generator).to(dtype)
    all_rows: tuple[int, ...] = 16, 33, 64, 127, 200, 333, 1500
    if dtype == torch.float32:  # a batch's rows are a multiple of 16 then: `fast.packing`
        all_rows = 16, 32, 64, 128, 208, 336, 1504
    for rows in all_rows:
        wide = torch.randn(rows, 1024, generator=generator).to(dtype)
        for left, right in ((wide, down), (wide[:, :256], down.t()), (wide[:, :16].t(), wide)):
            with one_core():
                expected = left @ right
            with computing_with(count):
                if not torch.equal(left @ right, expected):
                    return False
    return True


def _answer(
    asked: tuple[Future[Value], Item],
    function: Callable[[Item], Value],
    waiting: deque[tuple[Future[Value], Item]],
) -> None:
    """Compute one item; where that fails, nobody begins those that wait."""
    future, item = asked
    try:
        future.set_result(function(item))
    except BaseException as error:
        future.set_exception(error)
        while waiting:
            with contextlib.suppress(IndexError):
                waiting.popleft()[0].cancel()


class Cores:
    """The cores of one run. Made by whoever knows what else computes on this machine.

    More cores than one are used only while they are faster: on cores that are busy with something
    else two threads wait for each other, and can take many times as long as one.
    """

    def __init__(
        self,
        free: Callable[[], int],
        clock: Callable[[], float] = time.perf_counter,
        processor_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`free` says how many cores this run may use now; it is asked before every step.

        The clocks give seconds: those that pass, and those that this thread has computed for.
        """
        self._free = free
        self._clock, self._processor_clock = clock, processor_clock
        # Seconds a unit of work, of the last steps: with one core, beside processor seconds; and
        # by the number of cores.
        self._alone: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._together: defaultdict[int, deque[float]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        self._same_bits: dict[int, bool] = {}
        self._steps = 0
        self._resume_at = 0  # the step at which more cores are tried again
        self._pause = _PAUSE
        self._count = 1
        self._deadline = math.inf  # of the step under way

    @contextlib.contextmanager
    def step(
        self, work: float, gradient: Callable[[], Tensor], dtype: torch.dtype = torch.float32
    ) -> Iterator[None]:
        """Take a step of `work` units, with products in `dtype`; `gradient` computes it without
        taking it, twice at most in a run for each number of cores: to compare the bits."""
        self._steps += 1
        self._count = self._choose(gradient, dtype)
        begin, processor = self._clock(), self._processor_clock()
        if self._count > 1:
            self._deadline = begin + HOPELESS * work * self._one_core_seconds
        with computing_with(self._count):
            yield
        self._deadline = math.inf
        seconds = (self._clock() - begin) / work
        if self._count == 1:
            self._alone.append((seconds, (self._processor_clock() - processor) / work))
        else:
            self._together[self._count].append(seconds)

    def between(self) -> None:
        """Called within a step: finishes one that takes far too long with one core."""
        if self._clock() > self._deadline:
            torch.set_num_threads(1)

    def map(self, function: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
        """`function` of every item, in their order, each computed with one core; the last ones
        first, as those of sorted texts are the longest. Raises what `function` raises.

        The calling thread computes, too, and waits for no thread to begin: where memory is short,
        one that Python has started may never run (`Thread.start` then waits for ever).
        """
        futures: list[Future[Value]] = [Future() for _ in items]
        waiting = deque(reversed(list(zip(futures, items, strict=True))))

        def compute() -> None:
            while waiting:
                with contextlib.suppress(IndexError):  # another thread took the last one
                    _answer(waiting.popleft(), function, waiting)

        def help_out() -> None:
            set_threads(1)
            compute()

        for _ in range(min(self._free(), len(items)) - 1):
            with contextlib.suppress(RuntimeError):  # no thread can be started: without it, then
                _thread.start_new_thread(help_out, ())
        with one_core():
            compute()
        ended = [future for future in futures if not future.cancelled()]
        for error in filter(None, [future.exception() for future in ended]):
            raise error
        return [future.result() for future in futures]

    @property
    def _one_core_seconds(self) -> float:
        return statistics.median(seconds for seconds, _ in self._alone)

    def _choose(self, gradient: Callable[[], Tensor], dtype: torch.dtype) -> int:
        count = _power_of_two(self._free())
        if count <= 1 or len(self._alone) < _TRIAL or self._steps % _LOOK_AGAIN == 0:
            return 1
        if self._steps < self._resume_at:
            return 1
        seconds, processor = (sum(column) for column in zip(*self._alone, strict=True))
        together, alone = self._together[count], self._one_core_seconds
        # One bad step in a good series is chance; in a trial, or twice, it is not.
        recent = list(together)[-2:] if len(together) >= _TRIAL else list(together)[-1:]
        hopeless = bool(recent) and min(recent) > HOPELESS * alone
        slower = len(together) >= _TRIAL and statistics.median(together) > GAIN * alone
        if hopeless or slower or seconds > CONTENDED * processor:
            together.clear()
            self._resume_at = self._steps + self._pause
            self._pause = min((8 if hopeless else 2) * self._pause, _LONGEST_PAUSE)
            return 1
        if len(together) >= _TRIAL:
            self._pause = _PAUSE
        return count if self._gives_the_same(count, gradient, dtype) else 1

    def _gives_the_same(
        self, count: int, gradient: Callable[[], Tensor], dtype: torch.dtype
    ) -> bool:
        if count not in self._same_bits:
            with one_core():
                expected = gradient().clone()
            with computing_with(count):
                same = torch.equal(gradient(), expected)
            self._same_bits[count] = same and same_products(count, dtype)
        return self._same_bits[count]
