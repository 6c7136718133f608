"""Who looks on while a run goes on: sinks, any of which may fail, among them log.txt and run.json of its folder."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from reelign import records
from reelign.events import Event, Kind, Sink
from reelign.files import append, refresh
from reelign.progress import Lines

EVERY = 30.0
"""Seconds between two lines of progress in the log."""
SOONEST = 1.0
"""Seconds between two versions of run.json within a phase."""


class Log(Lines):
    """Lines in a file, each with its time; those that cannot be written are left out."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(None, clock, EVERY, EVERY)
        self._path = path

    def say(self, sentence: str) -> None:
        """One line."""
        text = f"{datetime.now(UTC).isoformat(timespec='seconds')} {' '.join(sentence.split())}\n"
        with suppress(OSError):
            append(self._path, text.encode(errors="backslashreplace"))


class Standing:
    """Keeps run.json, which says where the run stands; a version of it that cannot be written is left out."""

    def __init__(self, path: Path) -> None:
        now = time.time()
        self._path, self._written, self._steps = path, 0.0, [0.0, 0.0]
        pid, host = os.getpid(), socket.gethostname()
        self._now = records.Status(pid=pid, host=host, phase="checking", started=now, since=now, updated=now)
        self._write()

    def send(self, event: Event) -> None:
        """Write it anew, within a phase at most once a second."""
        if event.kind not in ("stage", "phase", "step", "saved"):
            return
        news: dict[str, Any] = {"updated": event.at, "stage": event.stage, "each_s": self._each_s(event)}
        news["phase"] = event.data["phase"] if event.kind == "phase" else "training"
        if event.of:
            news |= {"step": event.step, "of": event.of}
        now = self._now.phase, self._now.stage
        turned = (news["phase"], event.stage) != now or (event.kind == "phase" and not event.step)
        if turned:
            news["since"] = event.at
        if news["phase"] in records.OVER:
            news |= {"finished": event.at, "why": event.data.get("text", "")}
        self._now = self._now.model_copy(update=news)
        if turned or event.at - self._written >= SOONEST:
            self._write()

    def _each_s(self, event: Event) -> float | None:
        """Seconds that a step of the stage takes on average, or a clip of the evaluation."""
        if event.kind == "stage":
            self._steps = [0.0, 0.0]
        if event.kind == "step":
            self._steps = [self._steps[0] + event.data["wall_s"], self._steps[1] + 1]
        if event.kind == "phase":
            return (event.at - self._now.since) / event.step if event.step else None
        return self._steps[0] / self._steps[1] if self._steps[1] else None

    def close(self) -> None:
        """What it says stays."""

    def _write(self) -> None:
        self._written = self._now.updated
        with suppress(OSError):
            refresh(self._path, json.dumps(self._now.dump()))


class Company:
    """All who look on at one run. Those that fail are let go."""

    def __init__(self, log: Log, sinks: Iterable[Sink] = ()) -> None:
        self.log, self._sinks = log, list(sinks)

    def join(self, *sinks: Sink) -> None:
        """Let more look on."""
        self._sinks += sinks

    def send(
        self, kind: Kind, stage: str = "", step: int = 0, of: int = 0, data: Mapping[str, Any] | None = None
    ) -> Event:
        """Tell all of them; gives what they were told."""
        event = Event(time.time(), kind, stage, step, of, data or {})
        self.log.send(event)
        for sink in list(self._sinks):
            self._ask(sink, partial(sink.send, event))
        return event

    def say(self, sentence: str) -> None:
        """Something worth a line."""
        self.send("note", data={"text": sentence})

    def close(self) -> None:
        """Nothing more will happen."""
        for sink in list(self._sinks):
            self._ask(sink, sink.close)

    def _ask(self, sink: Sink, deed: Callable[[], object]) -> None:
        """Whatever is wrong with a display, the training behind it goes on."""
        try:
            deed()
        except (Exception, SystemExit) as error:
            self._sinks.remove(sink)
            name = f"{type(sink).__module__.rpartition('.')[2]}.{type(sink).__name__}"
            self.log.say(f"{name} is told nothing any more, as it failed: {type(error).__name__}: {error}")
