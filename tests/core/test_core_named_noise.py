"""Named seeds, weights over noise levels, and intervals."""

import math

import pytest
import torch
from torch.testing import assert_close

from reelign.core import rng, schedule, stats, weighting


def test_a_name_gives_the_same_seed_in_every_process() -> None:
    # Pinned, because stored runs are resumed by it.
    assert rng.seed_for(0, "rollout", 3, 1, 2, 0) == 7225170801217062803


def test_every_part_of_a_name_counts() -> None:
    names = [(), ("a",), ("a", 1), ("a", "1"), (1, "a"), ("a1",), ("a", 1, 0), ("", "a1"), (-1,), (1,)]
    seeds = {rng.seed_for(0, *name) for name in names} | {rng.seed_for(1, *name) for name in names}
    assert len(seeds) == 2 * len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_only_whole_numbers_and_strings_name_a_draw() -> None:
    with pytest.raises(TypeError, match="cannot name"):
        rng.seed_for(0, True)


def test_noise_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    seed = rng.seed_for(0, "noise")
    assert torch.equal(rng.normal((3, 4), seed=seed), rng.normal((3, 4), seed=seed))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_row_of_noise_does_not_depend_on_its_neighbours() -> None:
    seeds = [rng.seed_for(0, "noise", member) for member in range(5)]
    together = rng.normals(seeds, (4, 3, 3))
    assert torch.equal(together[3], rng.normals(seeds[3:4], (4, 3, 3))[0])


def test_noise_is_standard_normal() -> None:
    noise = rng.normal((200_000,), seed=rng.seed_for(0, "law"), dtype=torch.float64)
    assert abs(noise.mean().item()) < 0.01
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert (noise**4).mean().item() == pytest.approx(3, abs=0.1)


def test_seeds_that_share_their_low_32_bits_still_give_uncorrelated_noise() -> None:
    # torch's CPU generator would make these two identical.
    a, b = (rng.normal((50_000,), seed=7 + high * 2**32) for high in (1, 2))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) < 3 / math.sqrt(50_000)


def test_integers_and_permutations_are_named_too() -> None:
    assert {rng.integer(4, seed=seed) for seed in range(50)} == {0, 1, 2, 3}
    assert sorted(rng.permutation(6, seed=1)) == list(range(6))
    draws = rng.uniform((1000,), seed=1)
    assert 0 <= draws.min() < draws.max() < 1
    with pytest.raises(ValueError, match="cannot choose"):
        rng.integer(0, seed=1)


@pytest.mark.parametrize("kind", ["flow", "dance", "flash", "longcat", "cps"])
def test_every_weighting_has_mean_one(kind: str) -> None:
    levels = schedule.sigmas(12, 5.0)[:-1]
    sigma, after = levels[:-1], levels[1:]
    for weigh in (weighting.noise_scale, weighting.rectified, weighting.proportional):
        assert weigh(kind, sigma, after, 0.5).mean().item() == pytest.approx(1, abs=1e-6)


def test_late_flow_steps_would_dominate_without_rectification() -> None:
    levels = schedule.sigmas(20, 5.0)[:-1]
    native = weighting.gradient_scale("flow", levels[:-1], levels[1:], 0.7)
    assert native[-1] > 5 * native[1]


def test_weights_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        weighting.mean_one(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="deterministic"):
        weighting.rectified("flow", torch.tensor([0.7]), torch.tensor([0.6]), 0.0)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(100):
        values = rng.normal((40,), seed=rng.seed_for(0, "values", trial))
        _, low, high = stats.over_prompts(values.tolist(), range(40), seed=trial)
        hits += low <= 0 <= high
    assert 85 <= hits <= 100


def test_an_interval_is_reproducible_and_holds_its_estimate() -> None:
    values = rng.normal((30,), seed=1).tolist()
    found = stats.over_prompts(values, range(30), seed=4)
    assert found == stats.over_prompts(values, range(30), seed=4)
    assert found.low < found.estimate < found.high


def test_samples_of_one_prompt_widen_the_interval() -> None:
    prompts = rng.normal((12,), seed=2)
    values, ids = prompts.repeat_interleave(16).tolist(), torch.arange(12).repeat_interleave(16).tolist()
    naive, clustered = stats.over_prompts(values, range(len(values))), stats.over_prompts(values, ids)
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)


def test_pairing_removes_what_both_share() -> None:
    shared, extra = rng.normal((50,), seed=5) * 10, rng.normal((50,), seed=6) * 0.1
    change = (shared + 1 + extra - shared).tolist()
    found = stats.over_prompts(change, range(50))
    assert 0.9 < found.low < found.high < 1.1


def test_limits_over_prompts_are_the_same_whoever_asks_and_whatever_the_prompts_are_called() -> None:
    values, prompts = rng.normal((24,), seed=7).tolist(), [k // 2 for k in range(24)]
    found = stats.over_prompts(values, prompts)
    assert found == stats.over_prompts(values, prompts, seed=stats.PROMPTS_SEED)
    assert found == stats.over_prompts(values, [2**70 + prompt for prompt in prompts])
    mirrored = stats.over_prompts([-value for value in values], prompts)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


@pytest.mark.parametrize(("level", "draws"), [(0.999, 20_000), (0.95, 2000)])
def test_a_level_close_to_one_takes_draws_enough_to_know_its_tails(level: float, draws: int) -> None:
    values = rng.normal((40,), seed=8).double()
    means = values[torch.randint(40, (draws, 40), generator=rng.generator(0))].mean(dim=1)
    limits = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)).tolist()
    assert stats.over_prompts(values.tolist(), range(40), level) == pytest.approx((values.mean().item(), *limits))


def test_win_rates_without_a_decision_have_no_win_rate() -> None:
    found = stats.win_rates(0, 4, 0)
    assert math.isnan(found.win_rate)
    assert found.preference == 0.5
    assert found.margin == 0
    with pytest.raises(ValueError, match="not all 0"):
        stats.win_rates(0, 0, 0)


def test_intervals_need_values_and_a_level() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.over_prompts([], [])
    with pytest.raises(ValueError, match="level"):
        stats.over_prompts([0.0, 0.0], [0, 1], level=1.0)


def test_mean_one_divides_by_the_mean() -> None:
    assert_close(weighting.mean_one(torch.tensor([1.0, 3.0])), torch.tensor([0.5, 1.5]))
