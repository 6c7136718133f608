"""Progress on stderr: bars on a terminal, a plain line now and then elsewhere. It never ends what it shows."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from reelign.events import Progress

LIVE = (
    "online/reward",
    "online/loss",
    "offline/loss",
    "offline/accuracy",
    "online/max_abs_log_ratio",
    "collect/utility",
)
"""Metrics that are shown, where a step has them."""
SOONEST, LATEST, SHARE = 15.0, 600.0, 0.05
"""A plain line comes after this share of a stage's time so far, within these bounds in seconds."""


class Forgiving:
    """A stream that can be lost: after the first error nothing is written any more, and nobody hears of it.

    A terminal goes away, a pipe is closed, a disk is full; what is computed does not depend on its being watched.
    """

    def __init__(self, stream: Any) -> None:
        """Write to `stream`; None, as Python has it for a closed descriptor, is lost from the start."""
        self._stream, self.lost = stream, stream is None

    def write(self, text: str) -> int:
        """Write what can be written."""
        if not self.lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: closed
                self.lose()
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        if not self.lost:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self.lose()

    def lose(self) -> None:
        """Let the rest go nowhere, also what the stream still holds: Python would complain of it when it ends."""
        self.lost = True
        with suppress(OSError, ValueError, AttributeError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def isatty(self) -> bool:
        """Whether somebody is there to see bars."""
        try:
            return self._stream is not None and not self.lost and self._stream.isatty()
        except ValueError:
            return False

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def shown(metrics: Mapping[str, float]) -> str:
    """What of a step's metrics stands beside its progress."""
    return "  ".join(f"{name.split('/')[-1]} {metrics[name]:.3g}" for name in LIVE if name in metrics)


class Bar(Progress):
    """A line a stage, with time left, reward and loss."""

    def __init__(self, stream: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        stream = stream or Forgiving(sys.stderr)
        bars = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._on: _Bars | Lines = _Bars(stream) if bars else Lines(stream, clock)

    def __enter__(self) -> "Bar":
        if isinstance(self._on, _Bars):
            self._on.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars away; what they said stays."""
        self._on.close()

    def begin(self, label: str, total: int, done: int) -> None:
        """A stage or an evaluation of `total` steps, of which `done` are already there."""
        self._on.begin(label, total, done)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """A step is finished."""
        self._on.step(done, metrics)

    def say(self, sentence: str) -> None:
        """A line of its own."""
        self._on.say(sentence)


class _Bars:
    """On a terminal."""

    def __init__(self, stream: Any) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", justify="left", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[live]}"),
            console=Console(file=stream, highlight=False),
            speed_estimate_period=60,
        )
        self._tasks: dict[str, Any] = {}
        self._task: Any = None
        self.start, self.close = self._progress.start, self._progress.stop

    def begin(self, label: str, total: int, done: int) -> None:
        if label in self._tasks:  # again, as an evaluation on the way
            self._progress.reset(self._tasks[label], total=total, completed=done)
        else:
            self._tasks[label] = self._progress.add_task(label.ljust(16), total=total, completed=done, live="")
        self._task = self._tasks[label]

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self._progress.update(self._task, completed=done, live=shown(metrics))

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, soft_wrap=True, markup=False)


class Lines(Progress):
    """In a file or a pipe: a plain line now and then, with the time left."""

    def __init__(
        self, stream: Any, clock: Callable[[], float] = time.monotonic, soonest: float = SOONEST, latest: float = LATEST
    ) -> None:
        """Write to `stream`; between two lines of a stage pass from `soonest` to `latest` seconds."""
        self._stream, self._clock, self._soonest, self._latest = stream, clock, soonest, latest
        self._label, self._total, self._first = "", 0, 0
        self._began = self._last = clock()

    def begin(self, label: str, total: int, done: int) -> None:
        """A line."""
        self._label, self._total, self._first = label, total, done
        self._began = self._last = self._clock()
        self.say(f"{label}  {done}/{total}")

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """A line where one is due, and one at the end."""
        now = self._clock()
        gone = now - self._began
        due = min(max(self._soonest, SHARE * gone), self._latest)
        if done < self._total and now - self._last < due:
            return
        self._last = now
        fresh = done - self._first
        left = f", {duration(gone / fresh * (self._total - done))} left" if done < self._total and fresh > 0 else ""
        told = f"{self._label}  {done}/{self._total}", shown(metrics), f"{duration(gone)}{left}"
        self.say("  ".join(filter(None, told)))

    def say(self, sentence: str) -> None:
        """A line."""
        self._stream.write(f"{sentence}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration(3671.4)
        '1:01:11'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
