"""How far to believe a reward: BPGO's two scales around a prior (arXiv 2511.18919).

A prior is the reward that a clear, typical sample of the same prompt earns. `reliability` scales whole groups by where
they stand against it; `contrast` spreads members around it. Each exists in the paper's form and in the form that the
authors released, which is another formula.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core.advantage import Grouped

EXPONENT = 30.0
"""Largest magnitude of an exponent in `contrast` and `contrast_released`."""


def reliability(
    rewards_pg: Grouped, prior: Float[Tensor, " p"], *, strength: float = 0.5, slope: float = 1.0
) -> Float[Tensor, " p"]:
    """Reliability-adaptive scaling: groups above their prior count more, groups below it less (BPGO, RAS).

    Args:
        rewards_pg: ``[p g]``, on the scale of the prior.
        prior: ``[p]``.
        strength: alpha in ``[0, 1)``; 0 turns it off.
        slope: k, per unit of reward, positive.

    Returns:
        ``[p]`` factors ``1 + alpha (2 sigmoid(k (mean - prior)) - 1)`` in ``(1 - alpha, 1 + alpha)``, for advantages.

    Raises:
        ValueError: for a strength or slope outside its range.
    """
    if not 0 <= strength < 1 or slope <= 0:
        raise ValueError(f"strength is {strength} and slope {slope}; strength lies in [0, 1), slope above 0")
    return 1 + strength * (2 * torch.sigmoid(slope * (rewards_pg.mean(dim=1) - prior)) - 1)


def contrast(rewards_pg: Grouped, prior: Float[Tensor, " p"]) -> Grouped:
    """Contrastive reward transformation: what beats the prior is lifted, the rest pressed together (BPGO, CRT).

    ``(R - prior + [R > prior]) exp(R)``. It keeps the order of rewards above ``prior - 1`` only; below that it turns
    back towards 0.

    Args:
        rewards_pg: ``[p g]``, on the scale of the prior.
        prior: ``[p]``.

    Returns:
        ``[p g]``, rewards for a loss of their own that is added to the plain one.
    """
    apart = rewards_pg - prior[:, None]
    return (apart + (apart > 0).to(apart.dtype)) * rewards_pg.clamp(-EXPONENT, EXPONENT).exp()


def contrast_released(rewards_pg: Grouped, prior: Float[Tensor, " p"]) -> Grouped:
    """The released code's transformation, ``(50 (R - prior) + [R > prior]) R / (1 + exp(-R / 5))``.

    Its last factor turns the order of negative rewards around: the worst would be rewarded most.

    Raises:
        ValueError: for a negative reward; give raw rewards, not standardised ones.
    """
    if bool((rewards_pg < 0).any()):
        raise ValueError(
            f"a reward is {rewards_pg.min().item():g}, but this form turns the order of negative rewards around; "
            "give rewards of at least 0, not standardised ones, or use the paper's form"
        )
    apart = rewards_pg - prior[:, None]
    gate = 1 + (-rewards_pg / 5).clamp(-EXPONENT, EXPONENT).exp()
    return (50 * apart + (apart > 0).to(apart.dtype)) / gate * rewards_pg


def reliability_released(rewards_pg: Grouped, prior: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """The released code's scaling: the posterior probability that a group's mean lies above its prior.

    A normal posterior from the group's mean (Bessel variance, 1 for a single member) and the prior, whose variance is
    1 squared reward unit.

    Args:
        rewards_pg: ``[p g]``, on the scale of the prior.
        prior: ``[p]``.

    Returns:
        ``[p]`` factors from 0.5, of a group that is surely below its prior, to 1.5, of one that is surely above.
    """
    members = rewards_pg.shape[1]
    spread = rewards_pg.var(dim=1) + 1e-8 if members > 1 else torch.ones_like(prior)
    variance = 1 / (members / spread + 1)
    middle = variance * (members * rewards_pg.mean(dim=1) / spread + prior)
    return 0.5 + torch.special.ndtr((middle - prior) / variance.sqrt())
