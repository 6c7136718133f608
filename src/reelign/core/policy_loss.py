"""Clipped surrogate on policy ratios, and what to watch about them.

Log-ratios are means over latent elements. For videos they lie in practice just below 0, so a clip range acts as a
one-sided trigger on the divergence; the diagnostics therefore split by the sign of the advantage.
"""

from jaxtyping import Float
from torch import Tensor

from reelign.core.flow import Each, refuse_non_positive


def clipped(
    log_ratio: Float[Tensor, "*ratio"], advantage: Float[Tensor, "*leading"], clip: float
) -> Float[Tensor, "*ratio"]:
    """PPO's pessimistic loss, one value per ratio (arXiv 1707.06347, eq. 7).

    Args:
        log_ratio: log-probability under the policy minus that under the policy that sampled; ``[b]`` or ``[b f h w]``.
        advantage: the same shape, or its leading axes: ``[b]`` with a dense ratio serves every place of a sample.
        clip: half-width of the trust region around ratio 1, positive.

    Returns:
        Loss in the shape of ``log_ratio``: ``max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip))``.

    Raises:
        ValueError: if the advantage would have to be broadcast in another way, or clip is not positive.
    """
    refuse_non_positive("clip", clip)
    weight = _aligned(advantage, log_ratio)
    ratio = log_ratio.exp()
    return (-weight * ratio).maximum(-weight * ratio.clamp(1 - clip, 1 + clip))


def hinge(
    log_ratio: Float[Tensor, "*ratio"], advantage: Float[Tensor, "*leading"], margin: float
) -> Float[Tensor, "*ratio"]:
    """Linear in the log-ratio until it has moved far enough in the right direction (PCPO, arXiv 2509.25774).

    ``max(0, xi |A| - A log ratio)``. Arguments are those of `clipped`; ``margin`` is xi, how far a log-ratio is pushed:
    positive, of the size of a clip range.

    Raises:
        ValueError: as for `clipped`.
    """
    refuse_non_positive("margin", margin)
    weight = _aligned(advantage, log_ratio)
    return (margin * weight.abs() - weight * log_ratio).clamp_min(0)


def masked(
    log_ratio: Float[Tensor, "*ratio"], advantage: Float[Tensor, "*leading"], kl: Each, limit: float
) -> Float[Tensor, "*ratio"]:
    """No clip: a sample stops pushing outwards once its exact divergence is over the limit (Flow-DPPO, 2606.11025).

    ``-A ratio``, times 0 where ``kl >= limit`` and the update would lead further away: a ratio above 1 with a positive
    advantage, or below 1 with a negative one. Arguments are those of `clipped`; ``kl`` is `transition.step_kl` from the
    policy that sampled, which decides only, without gradient, and ``limit`` is delta, positive.

    Raises:
        ValueError: as for `clipped`.
    """
    refuse_non_positive("limit", limit)
    weight = _aligned(advantage, log_ratio)
    far = _aligned(kl.detach() >= limit, log_ratio)
    outward = weight * log_ratio.detach() > 0
    return -weight * log_ratio.exp() * (~(far & outward)).to(log_ratio.dtype)


def guarded(log_ratio: Each, kl: Each, std: Each) -> Each:
    """Log-ratio without its one-sided drift and with the same width at every step (GRPO-Guard, arXiv 2510.22319).

    ``(log_ratio + kl) std``, with the log-ratio as a mean over elements, `transition.step_kl` between the policy and
    the one that sampled for the same elements, and the std of the latter. Its mean is 0; as std is below 1, it needs a
    smaller clip than the plain ratio.
    """
    return (log_ratio + kl) * std


def diagnostics(
    log_ratio: Float[Tensor, "*ratio"], advantage: Float[Tensor, "*leading"], clip: float
) -> dict[str, Tensor]:
    """How far the policy has moved from the one that sampled, as scalars without gradient; arguments as for `clipped`.

    Returns:
        ``clip_frac``: share of ratios outside the range. ``clip_frac_positive``, ``clip_frac_negative``: share of the
        samples with that sign of advantage whose gradient the clip removes. ``below_one``: share of ratios under 1.
        ``ratio_mean``, ``ratio_std``. ``abs_log_ratio``: mean magnitude. ``k3``: estimate of the divergence, mean of
        ``ratio - 1 - log ratio``. ``chi2``: mean of ``(ratio - 1)^2``. ``ess``: effective sample size as a share, in
        (0, 1].
    """
    log_ratio = log_ratio.detach()
    weight = _aligned(advantage.detach(), log_ratio).expand_as(log_ratio)
    ratio = log_ratio.exp()
    high, low = ratio > 1 + clip, ratio < 1 - clip
    positive, negative = weight > 0, weight < 0
    return {
        "clip_frac": (high | low).to(ratio.dtype).mean(),
        "clip_frac_positive": (high & positive).sum() / positive.sum().clamp(min=1),
        "clip_frac_negative": (low & negative).sum() / negative.sum().clamp(min=1),
        "below_one": (ratio < 1).to(ratio.dtype).mean(),
        "ratio_mean": ratio.mean(),
        "ratio_std": ratio.std(correction=0),
        "abs_log_ratio": log_ratio.abs().mean(),
        "k3": (ratio - 1 - log_ratio).mean(),
        "chi2": (ratio - 1).square().mean(),
        "ess": ratio.sum().square() / (ratio.numel() * ratio.square().sum()),
    }


def _aligned(advantage: Tensor, log_ratio: Tensor) -> Tensor:
    leading = log_ratio.shape[: advantage.ndim]
    if advantage.ndim > log_ratio.ndim or advantage.shape != leading:
        raise ValueError(
            f"an advantage of shape {tuple(advantage.shape)} does not fit ratios of shape {tuple(log_ratio.shape)}; "
            "give the same shape or its leading axes"
        )
    return advantage.reshape(*leading, *[1] * (log_ratio.ndim - advantage.ndim))
