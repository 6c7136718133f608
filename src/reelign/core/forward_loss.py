"""Learning from rewards on noised clean samples: no trajectory, no transition density, any solver for the samples.

A sample of the policy is noised to one level and denoised again. ``velocity`` is the trained policy's prediction there,
``sampled`` that of the policy which drew the sample, without gradient, and ``target`` is ``noise - x0``. Errors are
means over elements of ``|velocity - target|^2``.

Where the policy is the one that sampled, every loss moves it along the covariance of advantage and target given the
noised latent; the losses differ in what ends that pull. Population minima are stated for a ``sampled`` that is the mean
of the target given the noised latent; few solver steps or guidance in the rollout break that.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core.flow import PerSample, expand_to, per_sample_mean, velocity_error
from reelign.core.transition import Strength

SCALE_MIN = 1e-5
"""Smallest mean absolute error that `self_normalised` divides by, in units of the latent."""


def probability(advantage: Float[Tensor, "*any"], limit: float) -> Float[Tensor, "*any"]:
    """How likely a sample is a good one (DiffusionNFT, arXiv 2509.16117): ``1/2 + 1/2 clip(A / limit, -1, 1)``.

    Args:
        advantage: any shape.
        limit: advantage that counts as certainty, positive; the authors use 5.

    Returns:
        Probabilities in [0, 1]; 1/2 for an advantage of 0, which teaches nothing.

    Raises:
        ValueError: if limit is not positive.
    """
    _refuse_non_positive("limit", limit)
    return 0.5 + 0.5 * (advantage / limit).clamp(-1, 1)


def implicit_velocities(
    velocity: Float[Tensor, "b *latent"], sampled: Float[Tensor, "b *latent"], beta: float
) -> tuple[Float[Tensor, "b *latent"], Float[Tensor, "b *latent"]]:
    """The good and the bad policy that one network stands for (DiffusionNFT): ``sampled ± beta (velocity - sampled)``.

    Both are exactly ``sampled`` as long as the policy is the one that sampled.
    """
    moved = beta * (velocity - sampled)
    return sampled + moved, sampled - moved


def self_normalised(
    velocity: Float[Tensor, "b *latent"], target: Float[Tensor, "b *latent"], sigma: PerSample
) -> Float[Tensor, " b"]:
    """Squared error of the clean prediction in units of its own mean absolute error, a constant for the gradient.

    The clean prediction is off by ``sigma (target - velocity)``, so neither the latent nor x0 is needed.

    Args:
        velocity: of a policy.
        target: ``noise - x0``.
        sigma: level of the noised latent, in [0, 1].

    Returns:
        ``[b]``; its gradient is that of the squared error divided by ``max(mean |error|, SCALE_MIN)``.
    """
    gap = expand_to(sigma, velocity) * (velocity - target)
    scale = per_sample_mean(gap.detach().abs()).clamp(min=SCALE_MIN)
    return per_sample_mean(gap.square()) / scale


def nft(
    velocity: Float[Tensor, "b *latent"],
    sampled: Float[Tensor, "b *latent"],
    target: Float[Tensor, "b *latent"],
    chance: Float[Tensor, " b"],
    beta: float,
    *,
    sigma: PerSample | None = None,
) -> Float[Tensor, " b"]:
    """Negative-aware fine-tuning (DiffusionNFT, arXiv 2509.16117): good samples pull one way, bad ones the other.

    ``(r |v+ - u|^2 + (1 - r) |v- - u|^2) / beta`` with the two velocities of `implicit_velocities`. Where the policy is
    the one that sampled, the value does not depend on r and the gradient is ``2 (2r - 1) (sampled - target)`` over the
    number of elements. The population minimum is ``velocity - sampled = 2 / beta Cov(r, target | x)``: with
    `probability` it is, to first order, the tilt by ``A / tau`` with ``tau = beta limit``.

    Args:
        velocity: of the policy.
        sampled: of the policy that drew the samples, without gradient.
        target: ``noise - x0``.
        chance: r from `probability`.
        beta: how far the good policy lies beyond ``sampled``, in steps of the policy, positive; 0.1 to 1.
        sigma: level of the noised latent; asks for the authors' form, where each error is `self_normalised`. They also
            multiply the loss by their limit.

    Raises:
        ValueError: if a probability lies outside [0, 1] or beta is not positive.
    """
    _refuse_non_positive("beta", beta)
    if not bool(((chance >= 0) & (chance <= 1)).all()):
        raise ValueError("a probability lies outside [0, 1]; make it from advantages with `probability`")
    good, bad = implicit_velocities(velocity, sampled, beta)
    if sigma is None:
        near, far = velocity_error(good, target), velocity_error(bad, target)
    else:
        near, far = self_normalised(good, target, sigma), self_normalised(bad, target, sigma)
    return (chance * near + (1 - chance) * far) / beta


def log_ratio(policy: Float[Tensor, " b"], sampled: Float[Tensor, " b"], weight: Strength) -> Float[Tensor, " b"]:
    """Log-likelihood ratio from denoising errors (AWM, arXiv 2509.25050): ``w (sampled - policy)``, for any surrogate.

    Args:
        policy: error of the policy.
        sampled: error of the policy that drew the samples at the same level and noise, without gradient.
        weight: w(sigma), non-negative, one for all samples or one each. With ``(1 - sigma) / sigma``, levels uniform in
            (0, 1), the mean over levels and noises is the exact log-likelihood ratio of x0 per element.

    Returns:
        ``[b]`` for `policy_loss.clipped`; exactly 0 where the policy is the one that sampled.
    """
    return weight * (sampled - policy)


def divergence(velocity: Float[Tensor, "b *latent"], other: Float[Tensor, "b *latent"]) -> Float[Tensor, " b"]:
    """How far two velocities lie apart, ``|velocity - other|^2`` as a mean over elements.

    This family's penalty: against the reference, or as AWM's anchor against the policy that sampled.
    """
    return velocity_error(velocity, other)


def anchored(
    velocity: Float[Tensor, "b *latent"],
    sampled: Float[Tensor, "b *latent"],
    target: Float[Tensor, "b *latent"],
    advantage: Float[Tensor, " b"],
    beta: float,
) -> Float[Tensor, " b"]:
    """Advantage-weighted matching with a quadratic anchor (AWM, arXiv 2509.25050).

    ``A |velocity - target|^2 + beta |velocity - sampled|^2``. Where the policy is the one that sampled, the gradient is
    that of the ratio surrogate on `log_ratio` with weight 1. The population minimum is
    ``velocity - sampled = Cov(A, target | x) / (beta + E[A | x])``. Where the denominator is not positive there is
    none, so beta must outweigh the lowest advantage.

    Args:
        velocity: of the policy.
        sampled: of the policy that drew the samples, without gradient.
        target: ``noise - x0``.
        advantage: clamped.
        beta: strength of the anchor, in units of advantage.
    """
    return advantage * velocity_error(velocity, target) + beta * divergence(velocity, sampled)


def implicit_reward(policy: Float[Tensor, "p g"], sampled: Float[Tensor, "p g"]) -> Float[Tensor, "p g"]:
    """How much better than its siblings a sample is denoised by now (CRD, arXiv 2603.14128).

    ``-(policy - sampled)`` above the group's mean, for which members share their level.

    Args:
        policy: ``[p g]`` errors of the policy.
        sampled: ``[p g]`` errors of the policy that drew the samples, without gradient.

    Returns:
        ``[p g]``, mean 0 in every group; exactly 0 where the policy is the one that sampled.
    """
    return _centred(sampled - policy)


def crd(
    policy: Float[Tensor, "p g"], sampled: Float[Tensor, "p g"], advantage: Float[Tensor, "p g"], beta: float
) -> Float[Tensor, "p g"]:
    """Centred reward distillation (CRD, arXiv 2603.14128): squared error of beta `implicit_reward` to the advantage.

    The target is finite, so the pull ends. A group's sum has the gradient ``-2 beta`` times its own residual with
    respect to each member's ``policy``.

    Args:
        policy: ``[p g]`` errors of the policy.
        sampled: ``[p g]`` errors of the policy that drew the samples, without gradient.
        advantage: ``[p g]``, centred here.
        beta: advantage per unit of implicit reward; in proportion to the number of elements, as errors are means.

    Returns:
        ``[p g]``, one loss per sample.
    """
    return (beta * implicit_reward(policy, sampled) - _centred(advantage)).square()


def group_weight(
    policy: Float[Tensor, "p g"], reference: Float[Tensor, "p g"], advantage: Float[Tensor, "p g"], beta: float
) -> Float[Tensor, " p"]:
    """How much a group still has to teach (DGPO): ``sigmoid(beta mean(A (policy - reference)))``, without gradient.

    1/2 when the policy is the reference; towards 0 as good members are denoised better and bad ones worse.
    """
    return torch.sigmoid(beta * (advantage * (policy - reference)).mean(dim=1)).detach()


def dgpo(
    policy: Float[Tensor, "p g"], reference: Float[Tensor, "p g"], advantage: Float[Tensor, "p g"], beta: float
) -> Float[Tensor, "p g"]:
    """Direct group preference optimisation (DGPO, arXiv 2510.08425): ``A policy`` times the `group_weight`.

    The mean over a group has the gradient of ``-log sigmoid(-beta mean(A (policy - reference))) / beta``; a pair with
    advantages 1 and -1 is `preference_loss.flow_dpo`. Members of a group share level and noise.

    Args:
        policy: ``[p g]`` errors of the policy.
        reference: ``[p g]`` errors of the reference, without gradient.
        advantage: ``[p g]``, mean 0 in every group.
        beta: strength for errors that are means over elements; 10 to 100.

    Returns:
        ``[p g]``; only its gradient has a meaning.
    """
    return group_weight(policy, reference, advantage, beta)[:, None] * advantage * policy


def _centred(values_pg: Tensor) -> Tensor:
    return values_pg - values_pg.mean(dim=1, keepdim=True)


def _refuse_non_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} is {value}, but it must be positive")
