"""Who looks on while a run goes on: the caller's watcher, which may fail, and a log in the run folder."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from reelign.files import append

EVERY = 30.0
"""Seconds between two lines of progress in the log."""


@runtime_checkable
class Watcher(Protocol):
    """Who shows a run's progress."""

    def begin(self, label: str, total: int, done: int) -> None:
        """A stage or an evaluation starts; `done` of `total` steps are already there."""
        ...

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """A step is finished."""
        ...

    def say(self, sentence: str) -> None:
        """Something worth a line."""
        ...


class Log:
    """A watcher that writes lines into a file; those that cannot be written are left out."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is written yet."""
        self._path = path
        self._label, self._total, self._first = "", 0, 0
        self._began = self._told = time.monotonic()

    def begin(self, label: str, total: int, done: int) -> None:
        """One line."""
        self._label, self._total, self._first = label, total, done
        self._began = self._told = time.monotonic()
        self.say(f"{label}: begins at {done} of {total}")

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """A line now and then, with the time left, and one at the end."""
        now = time.monotonic()
        if done >= self._total:
            self.say(f"{self._label}: {done} of {self._total} after {_clock(now - self._began)}")
        elif now - self._told >= EVERY:
            self._told = now
            left = (now - self._began) * (self._total - done) / max(1, done - self._first)
            self.say(f"{self._label}: {done} of {self._total}, {_clock(left)} left")

    def say(self, sentence: str) -> None:
        """One line."""
        text = f"{datetime.now(UTC).isoformat(timespec='seconds')} {' '.join(sentence.split())}\n"
        with suppress(OSError):
            append(self._path, text.encode(errors="backslashreplace"))


class Company:
    """The caller's watcher and the log as one watcher that never fails."""

    def __init__(self, watcher: Watcher, log: Log) -> None:
        """Look on together."""
        self.log, self._watcher = log, watcher
        self._guard = _Guard(log)

    def begin(self, label: str, total: int, done: int) -> None:
        """A stage or an evaluation starts."""
        self.log.begin(label, total, done)
        with self._guard as welcome:
            if welcome:
                self._watcher.begin(label, total, done)

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """A step is finished."""
        self.log.step(done, metrics)
        with self._guard as welcome:
            if welcome:
                self._watcher.step(done, metrics)

    def say(self, sentence: str) -> None:
        """Something worth a line."""
        self.log.say(sentence)
        with self._guard as welcome:
            if welcome:
                self._watcher.say(sentence)


class _Guard:
    """Lets a watcher go that has failed once: whatever is wrong with a display, the training behind it goes on."""

    def __init__(self, log: Log) -> None:
        self._log, self._welcome = log, True

    def __enter__(self) -> bool:
        return self._welcome

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return False
        self._welcome = False
        self._log.say(f"progress is shown no longer, as that failed: {type(error).__name__}: {error}")
        return True


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
