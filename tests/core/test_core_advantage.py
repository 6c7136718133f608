"""From rewards to advantages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign.core import advantage


def _rewards(p: int = 5, g: int = 4) -> torch.Tensor:
    return torch.randn(p, g, generator=torch.Generator().manual_seed(3))


def test_groups_do_not_see_each_other() -> None:
    rewards = _rewards()
    moved = rewards.clone()
    moved[2] = moved[2] * 7 + 3
    before, after = advantage.group(rewards), advantage.group(moved)
    assert torch.equal(before[[0, 1, 3, 4]], after[[0, 1, 3, 4]])


def test_permuting_prompts_permutes_advantages() -> None:
    rewards, order = _rewards(), torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(advantage.group(rewards[order]), advantage.group(rewards)[order])


@pytest.mark.parametrize("scale", advantage.SCALES)
def test_every_scale_centres_each_group(scale: str) -> None:
    found = advantage.group(_rewards(), scale=scale)
    assert_close(found.mean(dim=1), torch.zeros(5), atol=1e-6, rtol=0)


def test_max_group_divides_by_the_widest_group() -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 10.0]])
    found = advantage.group(rewards, 0.0, scale="max_group")
    own = advantage.group(rewards, 0.0)
    assert_close(found[1], own[1])
    assert_close(found[0], own[0] / 10)


def test_global_pools_the_spread_within_groups() -> None:
    rewards = torch.tensor([[0.0, 2.0], [100.0, 104.0]])
    pooled = torch.tensor([2.0, 8.0]).mean().sqrt()
    found = advantage.group(rewards, 0.0, scale="global")
    assert_close(found, torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]) / pooled)


@settings(max_examples=30, deadline=None)
@given(value=st.floats(-1e3, 1e3, width=32), g=st.integers(1, 9), scale=st.sampled_from(advantage.SCALES))
def test_constant_groups_are_exactly_zero(value: float, g: int, scale: str) -> None:
    rewards = torch.full((2, g), value)
    for eps in (0.0, 1e-4):
        assert torch.equal(advantage.group(rewards, eps, scale=scale), torch.zeros(2, g))
    assert not bool(advantage.teaches(rewards).any())


def test_groups_that_rank_teach() -> None:
    rewards = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 1.001]])
    assert advantage.teaches(rewards).tolist() == [False, True, True]
    assert advantage.teaches(rewards, std_floor=0.01).tolist() == [False, True, False]


def test_bad_rewards_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        advantage.group(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match="nothing to compare"):
        advantage.group(torch.zeros(0, 4))
    with pytest.raises(ValueError, match=r"'batch'.*group, global"):
        advantage.group(_rewards(), scale="batch")


def test_clamp_cuts_both_sides() -> None:
    assert advantage.clamp(torch.tensor([-9.0, 0.5, 9.0])).tolist() == [-5.0, 0.5, 5.0]
    with pytest.raises(ValueError, match="positive"):
        advantage.clamp(torch.zeros(1), 0.0)
