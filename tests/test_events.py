"""What people are shown of events: stages and evaluations that begin, steps, sentences."""

from collections.abc import Mapping
from typing import Any

from reelign.events import Event, Progress, Sink


class Noting(Progress):
    def __init__(self) -> None:
        self.shown: list[Any] = []

    def begin(self, label: str, total: int, done: int) -> None:
        self.shown.append((label, done, total))

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.shown.append((done, dict(metrics)))

    def say(self, sentence: str) -> None:
        self.shown.append(sentence)


def _shown(*events: Event) -> list[Any]:
    noting = Noting()
    assert isinstance(noting, Sink)
    for event in events:
        noting.send(event)
    return noting.shown


def test_a_stage_begins_and_steps() -> None:
    begun, step = Event(0.0, "stage", "sft", 2, 5), Event(1.0, "step", "sft", 3, 5, {"loss": 0.5})
    assert _shown(begun, step) == [("sft", 2, 5), (3, {"loss": 0.5})]


def test_an_evaluation_on_the_way_is_shown_and_the_stage_goes_on_after_it() -> None:
    judging = [Event(2.0, "phase", "sft", done, 8, {"phase": "evaluating"}) for done in (0, 4, 8)]
    shown = _shown(Event(0.0, "stage", "sft", 0, 5), *judging, Event(3.0, "step", "sft", 3, 5))
    assert shown == [("sft", 0, 5), ("evaluate sft (clips)", 0, 8), (4, {}), (8, {}), ("sft", 2, 5), (3, {})]


def test_of_the_rest_only_sentences_are_shown() -> None:
    quiet = [
        Event(0.0, "phase", "sft", data={"phase": "saving"}),
        Event(0.0, "saved", "sft", data={"checkpoint": "sft-00002"}),
        Event(0.0, "evaluation", "sft", 2, 5, {"label": "sft", "means": {}}),
        Event(0.0, "gate", "sft", 5, 5, {"verdict": "passed"}),
        Event(0.0, "sample", "sft", 2, 5, {}),
    ]
    assert _shown(*quiet, Event(1.0, "note", data={"text": "well"})) == ["well"]
