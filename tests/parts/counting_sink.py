"""A sink from outside: counts events by kind."""

from collections import Counter

from reelign.events import About, Event
from reelign.parts import PartConfig

SEEN: Counter[str] = Counter()


class Config(PartConfig):
    name: str = "tests.parts.counting_sink:build"


class Counting:
    def send(self, event: Event) -> None:
        SEEN[event.kind] += 1

    def close(self) -> None:
        SEEN["closed"] += 1


def build(config: Config, run: About) -> Counting:
    return Counting()
