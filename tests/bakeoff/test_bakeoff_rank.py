"""Verdicts: what is a difference, what is none, who reaches what and when."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from reelign.bakeoff import caveats, headline, page, rank
from reelign.bakeoff.rank import Analysis
from reelign.bakeoff.results import Sheet
from reelign.bakeoff.spec import Spec

MakeSpec = Callable[..., Spec]
MakeSheet = Callable[..., Sheet]
QUIET = (0.0, 0.2, 0.0)
"""Noise of prompts only, which all entries share: differences and times are exact."""


@pytest.fixture
def analyse(spec: MakeSpec, sheet: MakeSheet) -> Callable[..., Analysis]:
    """`analyse({"a": (0, 1), ...}, target={...}, baseline="a", **options of the sheet)`."""

    def make(
        levels: dict[str, tuple[float, ...]], *, target: Any = 0.5, baseline: str = "", **options: Any
    ) -> Analysis:
        aim = {"match": target} if isinstance(target, str) else {"value": target}
        found = spec(
            entries=[{"label": label} for label in levels],
            target={"measure": "level", **aim},
            baseline=baseline,
            checks=len(next(iter(levels.values()))),
            budget=1000,
        )
        return rank.analyse(found, sheet(levels, **options))

    return make


def _verdicts(analysis: Analysis) -> dict[tuple[str, str], str]:
    return {(p.first, p.second): p.change.verdict for p in analysis.boards[0].pairs}


def test_a_clear_gap_is_a_difference_and_equals_are_not(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.0, 0.3, 0.5), "b": (0.0, 0.3, 0.5), "c": (0.0, 0.0, 0.0)})
    assert _verdicts(found) == {("a", "b"): "no difference", ("a", "c"): "better", ("b", "c"): "better"}
    stands = {s.label: s for s in found.boards[0].standings}
    assert [stands[label].rank for label in "abc"] == [1, 1, 3]
    assert [stands[label].groups for label in "abc"] == ["A", "A", "B"]
    assert stands["a"].same_as == ("b",)
    assert [stands[label].gain.verdict for label in "abc"] == ["better", "better", "no difference"]


def test_lower_can_be_better(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.5, 0.1), "b": (0.5, 0.5)}, higher_is_better=False, target=0.3)
    assert _verdicts(found) == {("a", "b"): "better"}
    assert found.boards[0].standings[0].label == "a"
    assert found.boards[0].standings[0].gain.verdict == "better"
    assert found.reaches[0].units.estimate == pytest.approx(500, rel=0.2)
    assert math.isinf(found.reaches[1].units.estimate)


def test_entries_that_do_not_differ_are_rarely_told_apart(analyse: Callable[..., Analysis]) -> None:
    levels = dict.fromkeys("abcd", (0.3, 0.4, 0.5))
    trials, wrong, hasty = 30, 0, 0
    for trial in range(trials):
        # the hardest case for three seeds: nearly all of the noise is theirs
        found = analyse(levels, target=0.4, baseline="a", trial=trial, noise=(0.1, 0.2, 0.01), prompts=20)
        wrong += any(verdict != "no difference" for verdict in _verdicts(found).values())
        hasty += any(r.units_ratio is not None and r.units_ratio.verdict != "no difference" for r in found.reaches)
    # one in twenty is the aim; of 30 trials 6 or more would then be wrong once in 300 times
    assert wrong < 6
    assert hasty < 6


def test_correction_takes_back_what_many_looks_would_find(analyse: Callable[..., Analysis]) -> None:
    levels = dict.fromkeys("abcdefgh", (0.0, 0.3))
    for trial in range(5):
        pairs = analyse(levels, trial=trial, noise=(0.05, 0.2, 0.1)).boards[0].pairs
        alone = [p for p in pairs if not p.change.difference.low <= 0 <= p.change.difference.high]
        called = [p for p in pairs if p.change.verdict != "no difference"]
        assert len(called) <= len(alone)
        assert all(p.change.p < 0.05 for p in called)


@pytest.mark.parametrize(
    ("same", "letters"),
    [
        ({"a": "b", "b": "ac", "c": "b"}, {"a": "A", "b": "AB", "c": "B"}),
        ({"a": "bc", "b": "ac", "c": "ab"}, {"a": "A", "b": "A", "c": "A"}),
        ({"a": "", "b": "", "c": ""}, {"a": "A", "b": "B", "c": "C"}),
        ({"a": "c", "b": "", "c": "a"}, {"a": "A", "b": "B", "c": "A"}),
    ],
)
def test_two_share_a_letter_exactly_if_they_do_not_differ(same: dict[str, str], letters: dict[str, str]) -> None:
    assert rank.groups("abc", same) == letters


def test_times_are_read_off_straight_lines(analyse: Callable[..., Analysis]) -> None:
    levels = {"slow": (0.0, 0.2, 0.4, 0.6), "fast": (0.0, 0.9, 0.9, 0.9), "never": (0.0, 0.1, 0.1, 0.1)}
    found = analyse(levels, target="slow", baseline="slow", noise=QUIET)
    slow, fast, never = found.reaches
    assert found.target.estimate == pytest.approx(found.boards[0].curves["slow"][-1].level.estimate)
    assert slow.units.estimate == pytest.approx(1000)
    assert slow.units_ratio is None
    assert fast.units.estimate == pytest.approx(2000 / 9)
    assert fast.seconds.estimate == pytest.approx(200 / 9)
    assert fast.units_ratio is not None
    assert (fast.units_ratio.value, fast.units_ratio.verdict) == (pytest.approx(2 / 9), "faster")
    assert never.units == (math.inf, math.inf, math.inf)
    assert never.share == 0
    assert never.units_ratio is not None
    # it took more than the budget, in which the baseline got there
    assert (never.units_ratio.value, never.units_ratio.high) == (None, math.inf)
    assert never.units_ratio.low == pytest.approx(1)
    assert never.units_ratio.verdict == "slower"


def test_a_target_that_is_reached_by_chance_is_open_above(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.0, 0.5), "b": (0.0, 0.9)}, target=0.5, baseline="b", noise=(0.05, 0.2, 0.1))
    reach = found.reaches[0]
    assert 0.05 < reach.share < 0.95
    assert math.isfinite(reach.units.low)
    assert math.isinf(reach.units.high)
    assert "–" in headline.between(reach.units.low, reach.units.high, "{:.0f}")
    assert page.plain(reach)["units"]["high"] is None


def test_a_ratio_of_two_that_never_arrive_is_unknown(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.0, 0.1), "b": (0.0, 0.1)}, target=0.9, baseline="a", noise=QUIET)
    ratio = found.reaches[1].units_ratio
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high, ratio.verdict) == (None, 0.0, math.inf, "no difference")


def test_a_target_below_the_start_says_nothing_about_speed(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.5, 0.6), "b": (0.5, 0.9)}, target=0.1, baseline="a", noise=QUIET)
    assert [r.units.estimate for r in found.reaches] == [0.0, 0.0]
    assert found.reaches[1].units_ratio is not None
    assert found.reaches[1].units_ratio.verdict == "no difference"


@pytest.mark.parametrize("few", [{"seeds": 2}, {"prompts": 5}])
def test_too_few_seeds_or_prompts_rank_nothing(analyse: Callable[..., Analysis], few: dict[str, int]) -> None:
    found = analyse({"a": (0.0, 1.0), "b": (0.0, 0.0)}, baseline="a", **few)
    assert not found.decided
    assert set(_verdicts(found).values()) == {"undecided"}
    assert {s.gain.verdict for s in found.boards[0].standings} == {"undecided"}
    assert {r.units_ratio.verdict for r in found.reaches if r.units_ratio} == {"undecided"}
    (name,) = few
    size = f"{few[name]} {name}"
    assert headline.headline(found)[0].startswith(f"Nothing is ranked: {size} are too few")
    assert next(headline.negative(found)).startswith("b does not get to")
    assert any(caveat.grave for caveat in caveats.caveats(found, 1000))


def test_the_headline_never_orders_what_does_not_differ(analyse: Callable[..., Analysis]) -> None:
    same = analyse({"a": (0.0, 0.5), "b": (0.0, 0.5)}, target="a")
    first = headline.headline(same)[0]
    assert "no difference beyond the noise between" in first
    assert "ahead" not in " ".join(headline.headline(same))
    gap = analyse({"a": (0.0, 0.5), "b": (0.0, 0.0)}, target="a")
    assert "a (0.5" in headline.headline(gap)[0]
    assert "ends ahead of b" in headline.headline(gap)[0]
    assert any("b shows no gain" in sentence for sentence in headline.negative(gap))
    assert any("b does not get to" in sentence for sentence in headline.negative(gap))


def test_a_loss_is_told(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.5, 0.8), "b": (0.5, 0.1)}, target="a")
    assert any(sentence.startswith("b ends worse on level than it started") for sentence in headline.negative(found))
    assert "b ends worse than the start" in headline.headline(found)[1]


def test_shares_stay_between_nothing_and_all(analyse: Callable[..., Analysis]) -> None:
    found = analyse({"a": (0.0, 0.6), "b": (-2.0, -2.0)}, rate=True, noise=(0.3, 0.3, 0.3))
    for points in found.boards[0].curves.values():
        assert all(0 <= p.level.low <= p.level.estimate <= p.level.high <= 1 for p in points)
