"""How long until a run starts or ends, from the speed of this server's own runs."""

from __future__ import annotations

from collections.abc import Sequence

from lora_core.serving.run import Run


class Speeds:
    """A running mean over the steps of all runs, by base and method. The owner locks."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}  # a unit of work

    def measure(self, run: Run, now: float) -> None:
        """Learn from a running run that has just done a step."""
        assert run.base is not None and run.train_config is not None and run.started is not None
        done = run.step - run.first_step
        if done <= 0:
            return
        key = (run.base.name, run.train_config.method)
        speed = (now - run.started) / (done / run.train_config.steps * run.work())
        self._seconds[key] = 0.9 * self._seconds.get(key, speed) + 0.1 * speed

    def whole(self, run: Run) -> float | None:
        """Seconds of a run that has not started; None while unknown."""
        assert run.base is not None and run.train_config is not None
        speed = self._seconds.get((run.base.name, run.train_config.method))
        if speed is None:
            return None
        return speed * run.work() * (1 - run.first_step / run.train_config.steps)

    def left(self, run: Run, now: float) -> float | None:
        """Seconds that a running run still needs; None while unknown."""
        assert run.started is not None and run.train_config is not None
        gone, done = now - run.started, run.step - run.first_step
        if done > 0:
            return gone / done * (run.train_config.steps - run.step)
        whole = self.whole(run)
        return None if whole is None else max(0.0, whole - gone)

    def until(
        self,
        run: Run | None,
        running: Sequence[Run],
        waiting: Sequence[Run],
        workers: int,
        now: float,
    ) -> float | None:
        """Seconds until `run` starts when it waits, or ends when it is running; None: unknown.

        Without a run: until one more would start, at the end of the line.
        """
        left = {id(other): self.left(other, now) for other in running}
        if id(run) in left:
            return left[id(run)]
        ends = [0.0] * (workers - len(left))
        for seconds in left.values():
            if seconds is None:
                return None
            ends.append(seconds)
        if not ends:
            return None
        for other in waiting:
            ends.sort()
            if other is run:
                return ends[0]
            seconds = self.whole(other)
            if seconds is None:
                return None
            ends[0] += seconds
        return min(ends) if run is None else None


def about(seconds: float) -> str:
    """A duration as one says it: to the minute, or to the hour."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"about {round(seconds / size)} {unit}s"
    return "about a minute"
