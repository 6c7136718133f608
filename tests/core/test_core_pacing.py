"""Weights over reward components: printed values, and mass that provably moves on."""

import pytest
import torch
from torch.testing import assert_close

from reelign.core import advantage, pacing

ROWS = torch.tensor([[[0.7, 0.75, 0.8, 0.85]], [[0.1, 0.4, 0.7, 0.9]], [[0.5, 0.5, 0.5, 0.9]]], dtype=torch.float64)
TAU = torch.full((3,), 0.75, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ((1.0, 1.0, 1.0, 1.0), 0.0),
        ((1.0, 0.0, 0.0, 0.0), 1.0),
        ((0.7, 0.75, 0.8, 0.85), 0.00518270),
        ((0.1, 0.4, 0.7, 0.9), 0.26794919),
        ((0.5, 0.5, 0.5, 0.9), 0.07846215),
        ((0.0, 0.0, 0.0, 0.0), 0.0),
    ],
)
def test_sparsity_of_known_rows(rewards: tuple[float, ...], expected: float) -> None:
    assert_close(pacing.hoyer(torch.tensor(rewards, dtype=torch.float64)).item(), expected, atol=1e-8, rtol=0)


def test_sparsity_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match=r"a reward is -1, but sparsity"):
        pacing.hoyer(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="two members"):
        pacing.hoyer(torch.tensor([1.0]))


@pytest.mark.parametrize(
    ("beta", "weights", "mixed"),
    [
        (0.3, [0.31881454, 0.34310003, 0.33808543], [0.42652290, 0.54539363, 0.66426437, 0.88405927]),
        (0.5, [0.30180514, 0.35554250, 0.34265236], [0.41814403, 0.53989704, 0.66165004, 0.88490974]),
    ],
)
def test_the_printed_weights(beta: float, weights: list[float], mixed: list[float]) -> None:
    found = pacing.literal(ROWS, TAU, sparsity=beta)
    assert_close(found[:, 0].tolist(), weights, atol=1e-8, rtol=0)
    blend = pacing.mixed(ROWS, found)
    assert_close(blend[0].tolist(), mixed, atol=1e-8, rtol=0)
    if beta == 0.3:
        score = advantage.group(blend, eps=0.0)[0].tolist()
        assert_close(score, [-1.04283762, -0.43379462, 0.17524839, 1.30138385], atol=1e-7, rtol=0)


def test_gated_weights_are_shares_and_start_with_the_first_component() -> None:
    rewards = torch.rand(4, 16, 8, generator=torch.Generator().manual_seed(0))
    found = pacing.gated(rewards, torch.full((4,), 0.5))
    assert_close(found.sum(dim=0), torch.ones(16))
    assert bool((found > 0).all())
    poor = pacing.gated(torch.zeros(3, 1, 4), torch.full((3,), 0.7), keep=0.0)[:, 0]
    assert float(poor[0]) > 0.99


def test_mass_moves_on_as_components_pass_and_never_back() -> None:
    tau = torch.tensor([0.7, 0.6, 0.5], dtype=torch.float64)
    start = torch.full((3, 1, 4), 0.3, dtype=torch.float64)
    for j in range(3):
        tails = []
        for mean in torch.linspace(0.0, 1.0, 21):
            rewards = start.clone()
            rewards[j] = mean
            weights = pacing.gated(rewards, tau)[:, 0]
            tails.append(torch.stack([weights[: j + 1].sum(), *weights[:j]]))
        path = torch.stack(tails)
        after = 1 - path[:, 0]
        if j < 2:
            assert bool((after.diff() > 0).all())
        # What comes before a component does not depend on it.
        assert_close(path[:, 1:], path[:1, 1:].expand_as(path[:, 1:]))


def test_calibrated_thresholds_lie_at_the_quantile_and_slopes_span_the_middle_half() -> None:
    history = torch.rand(4001, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1])
    threshold, slope = pacing.calibrate(history, quantile=0.5)
    assert_close(threshold, torch.tensor([0.5, 0.05]), atol=0.02, rtol=0)
    spread = history.quantile(0.75, dim=0) - history.quantile(0.25, dim=0)
    assert_close(torch.sigmoid(slope * spread / 2), torch.full((2,), 0.9), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="there are 3 group means"):
        pacing.calibrate(history[:3])
