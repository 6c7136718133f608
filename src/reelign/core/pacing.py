"""When to emphasise which reward: weights over reward components from how the group does (TaRoS, arXiv 2511.19356 v4).

Components come in the order in which they should be learnt, as ``[k p g]`` on a fixed scale of numbers of at least 0:
sparsity is no measure of rewards that have been shifted.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core.flow import refuse_non_positive


def hoyer(rewards: Float[Tensor, "*n g"]) -> Float[Tensor, "*n"]:
    """Hoyer sparsity of a group's rewards: 0 if all are equal, 1 if only one is not 0.

    ``(sqrt(g) - |r|_1 / |r|_2) / (sqrt(g) - 1)``; 0 where all rewards are 0.

    Args:
        rewards: ``[... g]``, at least 0, g of at least 2.

    Raises:
        ValueError: for a negative reward or a single member.
    """
    members = rewards.shape[-1]
    if members < 2:
        raise ValueError("sparsity needs at least two members")
    if bool((rewards < 0).any()):
        raise ValueError(
            f"a reward is {rewards.min().item():g}, but sparsity is defined for rewards of at least 0 on a fixed "
            "scale; give raw rewards, not standardised ones"
        )
    length = rewards.square().sum(dim=-1).sqrt()
    nothing = length == 0
    ratio = rewards.sum(dim=-1) / torch.where(nothing, 1, length)
    return torch.where(nothing, 0, (math.sqrt(members) - ratio) / (math.sqrt(members) - 1)).clamp(0, 1)


def literal(
    rewards_kpg: Float[Tensor, "k p g"],
    thresholds: Float[Tensor, " k"],
    *,
    sparsity: float = 0.3,
    slope: float = 1.0,
    temperature: float = 1.0,
) -> Float[Tensor, "k p"]:
    """The printed weights: ``softmax_j(sigmoid(slope (mean_j - tau_j)) + beta (S_j - S_(j+1)))``, S of none being 0.

    A component above its threshold gets more weight, not less, and for rewards that lie close together the sparsity is
    near 0, so these weights do not hand over by themselves; `gated` does.

    Args:
        rewards_kpg: ``[k p g]``, at least 0, on a fixed scale.
        thresholds: ``[k]``, tau, in reward units.
        sparsity: beta, at least 0.
        slope: of the sigmoid, per unit of reward, positive.
        temperature: of the softmax, positive.

    Returns:
        ``[k p]`` weights that sum to 1 for each prompt.
    """
    refuse_non_positive("slope", slope)
    refuse_non_positive("temperature", temperature)
    own = hoyer(rewards_kpg)
    following = torch.cat([own[1:], torch.zeros_like(own[:1])])
    passed = torch.sigmoid(slope * (rewards_kpg.mean(dim=-1) - thresholds[:, None]))
    return ((passed + sparsity * (own - following)) / temperature).softmax(dim=0)


def gated(
    rewards_kpg: Float[Tensor, "k p g"], thresholds: Float[Tensor, " k"], *, slope: float = 20.0, keep: float = 0.5
) -> Float[Tensor, "k p"]:
    """Weights whose mass moves on: a component hands over what it has passed to the components after it.

    With ``h_j = sigmoid(slope (mean_j - tau_j))`` the weights are ``h_1 ... h_(j-1) (1 - h_j)``, for the last component
    ``h_1 ... h_(k-1)``. So the mass after component j is ``h_1 ... h_j``: it rises with each of these components' means
    and does not depend on the others. A share `keep` of all mass stays spread evenly: what a reward guards would drift
    without it, and a component whose noise never lets it pass would hold everything.

    Arguments are those of `literal`; weights sum to 1 for each prompt.
    """
    refuse_non_positive("slope", slope)
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is {keep}, but it is a share in [0, 1]")
    passed = torch.sigmoid(slope * (rewards_kpg.mean(dim=-1) - thresholds[:, None]))
    reached = torch.cat([torch.ones_like(passed[:1]), passed[:-1].cumprod(dim=0)])
    held = torch.cat([1 - passed[:-1], torch.ones_like(passed[:1])])
    return keep / len(passed) + (1 - keep) * reached * held


def mixed(rewards_kpg: Float[Tensor, "k p g"], weights_kp: Float[Tensor, "k p"]) -> Float[Tensor, "p g"]:
    """The weighted sum of components; one reward for one group comparison."""
    return (weights_kp[..., None] * rewards_kpg).sum(dim=0)


def calibrate(history: Float[Tensor, "n k"], quantile: float = 0.6) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Thresholds and slopes from group means of the past, component by component.

    A threshold is the quantile of its component's group means; the slope takes the sigmoid from 0.1 to 0.9 over their
    interquartile range.

    Args:
        history: ``[n k]``, n group means of each component.
        quantile: in (0, 1).

    Returns:
        Thresholds ``[k]`` in reward units and slopes ``[k]`` per unit of reward.

    Raises:
        ValueError: for fewer than four group means.
    """
    if len(history) < 4:
        raise ValueError(f"there are {len(history)} group means; at least 4 are needed to know their spread")
    quarter, threshold, three = torch.quantile(history, history.new_tensor([0.25, quantile, 0.75]), dim=0)
    return threshold, 2 * math.log(9) / (three - quarter).clamp_min(1e-3)
