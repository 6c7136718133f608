"""From rewards of a group to advantages: who did better than the siblings of the same prompt.

Rewards come as ``[p g]``: p prompts, g members each.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reelign.core.flow import refuse_non_positive

Grouped = Float[Tensor, "p g"]
"""One value per member of each prompt's group."""
SCALES = ("group", "global", "max_group")


def group(
    rewards_pg: Grouped, eps: float = 1e-4, *, population: bool = False, std_floor: float = 0.0, scale: str = "group"
) -> Grouped:
    """Deviation from the group's mean in units of a standard deviation (GRPO, arXiv 2402.03300).

    Args:
        rewards_pg: ``[p g]``, finite.
        eps: added to the standard deviation; in reward units.
        population: divide by g instead of g - 1.
        std_floor: groups with a smaller spread carry noise only and get zeros; in reward units.
        scale: whose spread is the unit. ``group``: each group's own. ``global``: all groups that rank, pooled, each
            around its own mean. ``max_group``: the widest group's (LongCat-Video, arXiv 2510.22200). The last two do
            not blow up the noise of prompts that are all good or all bad.

    Returns:
        ``[p g]``. Singleton and constant groups are exactly zero.

    Raises:
        ValueError: for rewards that are not finite, an empty axis, or an unknown scale.

    Example:
        >>> group(torch.tensor([[1.0, 2.0, 3.0]]), eps=0.0)
        tensor([[-1.,  0.,  1.]])
    """
    if rewards_pg.numel() == 0:
        raise ValueError(f"got rewards of shape {tuple(rewards_pg.shape)}; there is nothing to compare")
    if not bool(torch.isfinite(rewards_pg).all()):
        raise ValueError("a reward is not finite; drop failed samples before comparing groups")
    mask = teaches(rewards_pg, population=population, std_floor=std_floor)
    centred = rewards_pg - rewards_pg.mean(dim=1, keepdim=True)
    unit = _unit(rewards_pg, mask, scale, population) + eps
    # In idle groups the unit may be 0; dividing by 1 there keeps NaN out before the zero is chosen.
    return torch.where(mask[:, None], centred / torch.where(mask[:, None], unit, 1), 0)


def teaches(rewards_pg: Grouped, *, population: bool = False, std_floor: float = 0.0) -> Bool[Tensor, " p"]:
    """Which groups rank their members; the others are idle, neither in the loss nor in its denominator.

    Args:
        rewards_pg: ``[p g]``.
        population: as in `group`.
        std_floor: a group must spread at least this much; in reward units.

    Returns:
        ``[p]``, False for singletons, constant groups and groups under the floor.
    """
    # Equality of extremes, not std > 0: the mean of equal floats may differ from them in the last bit.
    spread = rewards_pg.amax(dim=1) > rewards_pg.amin(dim=1)
    return spread & (_group_std(rewards_pg, population) >= std_floor)


def clamp(advantage: Float[Tensor, "*any"], limit: float = 5.0) -> Float[Tensor, "*any"]:
    """Advantages cut to ``[-limit, limit]``, against single outliers."""
    refuse_non_positive("limit", limit)
    return advantage.clamp(-limit, limit)


def _unit(rewards_pg: Tensor, mask: Tensor, scale: str, population: bool) -> Tensor:
    std = _group_std(rewards_pg, population)
    if scale == "group":
        return std[:, None]
    if scale == "global":
        # Idle groups are left out here too, or the others would be blown up by their number.
        return (std.square() * mask).sum().div(mask.sum().clamp(min=1)).sqrt()
    if scale == "max_group":
        return std.max()
    raise ValueError(f"there is no scale called {scale!r}; use one of {', '.join(SCALES)}")


def _group_std(rewards_pg: Tensor, population: bool) -> Tensor:
    if rewards_pg.shape[1] == 1:
        return rewards_pg.new_zeros(rewards_pg.shape[0])
    return rewards_pg.std(dim=1, correction=0 if population else 1)
