"""What the commands share: quiet libraries, progress with time left, JSON or text results."""

import json
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

DEBUG = False
STDERR = Console(stderr=True, highlight=False)


def setup(debug: bool) -> None:
    """Logs to stderr; libraries speak only when something is wrong; nothing reaches for the network."""
    global DEBUG
    DEBUG = debug
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print a result: JSON for programs, text for people."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1) if as_json else text)


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A plain text table; numbers to the right."""
    grid = [[str(c) for c in header], *[[f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    lines = []
    for index, row in enumerate(grid):
        cells = [c.rjust(w) if index and _number(c) else c.ljust(w) for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
        if index == 0:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Bar:
    """A run's progress on stderr: one line a stage, with time left, reward and loss live."""

    LIVE = (
        "online/reward",
        "online/loss",
        "offline/loss",
        "offline/accuracy",
        "online/max_abs_log_ratio",
        "collect/utility",
    )

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._progress = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[live]}"),
            console=STDERR,
            speed_estimate_period=60,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Bar":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def begin(self, label: str, total: int, done: int) -> None:
        """A new line."""
        self._task = self._progress.add_task(label.ljust(16), total=total, completed=done, live="")

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """Move the present line on."""
        live = "  ".join(f"{k.split('/')[-1]} {metrics[k]:.3g}" for k in self.LIVE if k in metrics)
        assert self._task is not None
        self._progress.update(self._task, completed=done, live=live)

    def say(self, sentence: str) -> None:
        """A line above the bars."""
        self._progress.console.print(sentence, soft_wrap=True, markup=False)
