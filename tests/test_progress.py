"""Progress on stderr: bars for people, lines for files, and never a reason to end a run."""

import io
import os
import pty
import re
from collections.abc import Callable
from typing import Any

import pytest

from reelign.events import Event
from reelign.progress import Bar, Forgiving


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Breaking(io.StringIO):
    """A stream that takes so many writes and then fails."""

    def __init__(self, good: int, error: Exception, terminal: bool = False) -> None:
        super().__init__()
        self.good, self.error, self.terminal, self.tries = good, error, terminal, 0

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.tries += 1
        if self.tries > self.good:
            raise self.error
        return super().write(text)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _run(stream: Any, seconds: float, steps: int, done: int = 0, metrics: dict[str, float] | None = None) -> Any:
    clock = Clock()
    with Bar(Forgiving(stream), clock) as bar:
        bar.begin("grpo", steps, done)
        for step in range(done, steps):
            clock.now += seconds
            bar.step(step + 1, metrics or {})
        bar.say("grpo: passed; all is well")
    return stream


def test_without_a_terminal_a_plain_line_comes_now_and_then_with_time_left() -> None:
    metrics = {"online/reward": 0.6123, "online/loss": 2.1e-4, "update/wall_s": 3.0}
    lines = _run(io.StringIO(), 5.0, 12, metrics=metrics).getvalue().splitlines()
    assert lines == [
        "grpo  0/12",
        "grpo  3/12  reward 0.612  loss 0.00021  0:00:15, 0:00:45 left",
        "grpo  6/12  reward 0.612  loss 0.00021  0:00:30, 0:00:30 left",
        "grpo  9/12  reward 0.612  loss 0.00021  0:00:45, 0:00:15 left",
        "grpo  12/12  reward 0.612  loss 0.00021  0:01:00",
        "grpo: passed; all is well",
    ]


def test_a_slow_stage_says_something_after_every_step_and_a_resumed_one_counts_its_own_time() -> None:
    lines = _run(io.StringIO(), 60.0, 4, done=2).getvalue().splitlines()
    assert lines[:3] == ["grpo  2/4", "grpo  3/4  0:01:00, 0:01:00 left", "grpo  4/4  0:02:00"]


def test_lines_grow_rarer_so_that_a_night_fills_no_disk() -> None:
    lines = _run(io.StringIO(), 1.0, 36_000).getvalue().splitlines()
    assert 100 < len(lines) < 200
    assert "10:00:00" in lines[-2]


def test_a_terminal_gets_bars() -> None:
    text = _run(Terminal(), 0.0, 3, metrics={"offline/loss": 0.25}).getvalue()
    assert "3/3" in text
    assert "loss 0.25" in text
    assert "grpo: passed; all is well" in text


def test_evaluations_on_the_way_share_one_bar() -> None:
    stream = Terminal()
    with Bar(Forgiving(stream)) as bar:
        for step in (1, 2):
            bar.send(Event(0.0, "phase", "sft", 0, 8, {"phase": "evaluating"}))
            bar.send(Event(0.0, "phase", "sft", 8, 8, {"phase": "evaluating"}))
            bar.send(Event(0.0, "step", "sft", step, 5, {}))
    back = re.findall(r"(?:\x1b\[1A\x1b\[2K)+", stream.getvalue())  # up over all bars but one, to draw them anew
    assert {each.count("1A") for each in back} == {1}


def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert _run(Terminal(), 0.0, 3).getvalue().splitlines()[0] == "grpo  0/3"


def test_names_are_no_markup() -> None:
    stream = Terminal()
    with Bar(Forgiving(stream)) as bar:
        bar.begin("[red]stage[/red] [/]", 1, 0)
        bar.step(1, {})
        bar.say("[bold]said[/] [/]")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "[red]stage[/red] [/]" in plain
    assert "[bold]said[/] [/]" in plain


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("good", [0, 1, 4])
@pytest.mark.parametrize(
    "error", [OSError(5, "dead terminal"), BrokenPipeError(32, "pipe"), OSError(28, "full"), ValueError("closed file")]
)
def test_a_stream_that_is_lost_is_left_alone_and_the_run_goes_on(terminal: bool, good: int, error: Exception) -> None:
    stream = Breaking(good, error, terminal)
    _run(stream, 20.0, 5)
    assert stream.tries == good + 1


def _closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [lambda: None, _closed])
def test_a_stream_that_was_never_there(make: Callable[[], Any]) -> None:
    _run(make(), 20.0, 3)


def test_a_terminal_whose_window_was_closed() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, Bar(Forgiving(terminal)) as bar:
        bar.begin("grpo", 3, 0)
        bar.step(1, {})
        os.close(master)
        bar.step(2, {})
        bar.say("still here")
        bar.step(3, {})


def test_half_a_character_in_a_name_loses_nothing_but_itself() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    with Bar(Forgiving(stream)) as bar:
        bar.begin("st\ud83dage", 1, 0)
        bar.step(1, {})
    stream.flush()
    assert raw.getvalue().startswith(b"st\\ud83dage  0/1\n")
