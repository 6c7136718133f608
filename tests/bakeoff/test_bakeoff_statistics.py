"""Means over seeds and prompts, times to a level, and many comparisons: known cases and known coverage."""

import math

import pytest
import torch
from torch.testing import assert_close

from reelign.bakeoff import means
from reelign.core import rng, stats

ONES = torch.ones(3, 8, dtype=torch.float64)


def _values(seeds: int = 3, prompts: int = 8, trial: int = 0) -> torch.Tensor:
    return rng.normal((seeds, prompts), seed=trial, dtype=torch.float64)


def _mean(values: torch.Tensor, draws: int = 4000) -> stats.Crossed:
    return stats.crossed_mean(values, torch.ones_like(values), stats.crossed_draws(*values.shape, seed=1, draws=draws))


def test_variances_are_those_of_the_means_of_seeds_and_of_prompts() -> None:
    values = _values()
    found = _mean(values)
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.of_seeds == pytest.approx((values.mean(dim=1).var() / 3).item())
    assert found.of_prompts == pytest.approx((values.mean(dim=0).var() / 8).item())


def test_the_draws_have_these_variances() -> None:
    found = _mean(_values(), draws=40_000)
    for draws, variance in ((found.seed_draws, found.of_seeds), (found.prompt_draws, found.of_prompts)):
        # of 40,000 draws the mean errs by half a per cent of their spread, and the spread by a third of a per cent
        assert draws.mean().item() == pytest.approx(0, abs=0.02 * variance**0.5)
        assert draws.std().item() == pytest.approx(variance**0.5, rel=0.02)


def test_clips_of_one_prompt_count_together_and_missing_ones_not_at_all() -> None:
    sums = torch.tensor([[2.0, 1.0, 0.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    counts = torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    found = stats.crossed_mean(sums, counts, stats.crossed_draws(2, 3, seed=0))
    assert found.estimate == pytest.approx(7 / 5)
    kept = stats.crossed_mean(sums[:, :2], counts[:, :2], stats.crossed_draws(2, 2, seed=0))
    assert kept[:3] == pytest.approx(found[:3])


def test_statistics_of_the_same_draws_are_paired() -> None:
    ours, theirs = _values(trial=1), _values(trial=2)
    draws = stats.crossed_draws(3, 8, seed=0)
    ours_found, theirs_found = (stats.crossed_mean(values, ONES, draws) for values in (ours, theirs))
    gap = stats.crossed_mean(ours - theirs, ONES, draws)
    assert_close(ours_found.seed_draws - theirs_found.seed_draws, gap.seed_draws)
    assert_close(ours_found.prompt_draws - theirs_found.prompt_draws, gap.prompt_draws)


def test_one_seed_leaves_the_prompts() -> None:
    values = _values(seeds=1)
    found = _mean(values)
    assert found.of_seeds == 0
    assert found.of_prompts == pytest.approx((values.var() / 8).item())


def test_a_constant_has_no_variance_and_nothing_has_no_mean() -> None:
    assert _mean(torch.full((3, 8), 0.5, dtype=torch.float64))[:3] == (0.5, 0.0, 0.0)
    with pytest.raises(ValueError, match="no values"):
        stats.crossed_mean(ONES, torch.zeros_like(ONES), stats.crossed_draws(3, 8, seed=0))


def _scaled(scale: float) -> stats.Crossed:
    """A mean whose seeds have `scale` times the deviations of a common one."""
    common = _mean(_values())
    return common._replace(of_seeds=scale**2 * common.of_seeds, seed_draws=scale * common.seed_draws)


def test_entries_share_the_variance_of_their_seeds_and_one_that_has_more_keeps_its_own() -> None:
    found = [_scaled(scale) for scale in (1.0, 0.5, 2.0)]
    shared = sum(each.of_seeds for each in found) / 3
    expected = [max(each.of_seeds, shared) + each.of_prompts for each in found]
    pooled = means.pooled(found, 6, 2)
    assert [each.std**2 for each in pooled] == pytest.approx(expected)
    assert [each.freedom for each in pooled] == [6, 6, 6]
    for each in pooled:
        assert each.draws.std().item() == pytest.approx(each.std, rel=0.05)
    assert means.pooled([], 6, 2) == []


def test_an_entry_that_its_seeds_move_much_further_stands_alone() -> None:
    found = [_scaled(scale) for scale in (1.0, 1.0, 10.0)]
    first, _, wild = means.pooled(found, 6, 2)
    assert first.std**2 == pytest.approx(found[0].of_seeds + found[0].of_prompts)
    assert wild.std**2 == pytest.approx(found[2].of_seeds + found[2].of_prompts)
    assert (first.freedom, wild.freedom) == (4, 2)


@pytest.mark.parametrize(("of_seed", "of_prompt", "of_clip"), [(1.0, 0.1, 0.1), (0.1, 0.3, 0.5), (0.0, 0.3, 1.0)])
def test_intervals_of_three_seeds_cover_the_truth(of_seed: float, of_prompt: float, of_clip: float) -> None:
    trials, covered = 400, 0
    for trial in range(trials):
        values = of_seed * rng.normal((3, 1), seed=rng.seed_for(trial, "seed"), dtype=torch.float64)
        values = values + of_prompt * rng.normal((1, 20), seed=rng.seed_for(trial, "prompt"), dtype=torch.float64)
        values = values + of_clip * rng.normal((3, 20), seed=rng.seed_for(trial, "clip"), dtype=torch.float64)
        _, low, high = means.pooled([_mean(values, draws=2)], 2, 2)[0].interval()
        covered += low <= 0 <= high
    # 400 trials of an interval that covers 95 % fall below 0.92 once in 300 times; resampling seeds and prompts and
    # taking percentiles covers 0.72 in the first of these cases.
    assert covered / trials > 0.92


LINE = torch.tensor([[0.0, 10.0, 20.0, 30.0]])


@pytest.mark.parametrize(
    ("y", "level", "expected"),
    [
        ([1.0, 2.0, 4.0, 4.0], 3.0, 15.0),
        ([1.0, 2.0, 4.0, 4.0], 2.0, 10.0),
        ([1.0, 2.0, 4.0, 4.0], 1.0, 0.0),
        ([1.0, 2.0, 4.0, 4.0], 0.5, 0.0),
        ([1.0, 2.0, 4.0, 4.0], 4.5, math.inf),
        ([1.0, 3.0, 1.0, 3.0], 2.0, 5.0),
        ([1.0, 0.0, -1.0, 3.0], 1.0, 0.0),
        ([0.0, -1.0, -1.0, 3.0], 1.0, 25.0),
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0.0),
    ],
)
def test_a_level_is_reached_where_the_line_first_crosses_it(y: list[float], level: float, expected: float) -> None:
    assert stats.first_crossing(LINE, torch.tensor([y]), torch.tensor([level])).item() == pytest.approx(expected)


def test_holms_correction() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.2]) == [0.2]
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_p_values_and_intervals_agree() -> None:
    for trial in range(40):
        found = means.pooled([_mean(_values(trial=trial) + 0.8, draws=2)], 2, 2)[0]
        _, low, high = found.interval()
        assert (low > 0 or high < 0) == (found.p_value() < 0.05)


def test_a_difference_without_any_noise_is_certain() -> None:
    assert means.Mean(0.1, 0.0, 2.0, torch.zeros(1)).p_value() == 0.0
    assert means.Mean(0.0, 0.0, 2.0, torch.zeros(1)).p_value() == 1.0
