"""Learning from rewards on noised clean samples: no trajectory, no transition density, any solver for the samples.

A sample of the policy is noised to one level and denoised again. ``velocity`` is the trained policy's prediction there,
``sampled`` that of the policy which drew the sample, without gradient, and ``target`` is ``noise - x0``. Errors are
means over elements of ``|velocity - target|^2``; ``policy`` are those of the trained policy, and what they are compared
with, ``sampled`` or ``reference``, has no gradient.

Where the policy is the one that sampled, every loss moves it along the covariance of advantage and target given the
noised latent; the losses differ in what ends that pull. Population minima are stated for a ``sampled`` that is the mean
of the target given the noised latent; few solver steps or guidance in the rollout break that.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core.advantage import Grouped
from reelign.core.flow import Each, Latent, PerSample, expand_to, per_sample_mean, refuse_non_positive, velocity_error
from reelign.core.transition import Strength

SCALE_MIN = 1e-5
"""Smallest mean absolute error that `self_normalised` divides by, in units of the latent."""


def probability(advantage: Float[Tensor, "*any"], limit: float) -> Float[Tensor, "*any"]:
    """How likely a sample is a good one (DiffusionNFT, arXiv 2509.16117): ``1/2 + 1/2 clip(A / limit, -1, 1)``.

    ``limit`` is the advantage that counts as certainty, positive; the authors use 5. An advantage of 0, which teaches
    nothing, gives 1/2.

    Raises:
        ValueError: if limit is not positive.
    """
    refuse_non_positive("limit", limit)
    return 0.5 + 0.5 * (advantage / limit).clamp(-1, 1)


def implicit_velocities(velocity: Latent, sampled: Latent, beta: float) -> tuple[Latent, Latent]:
    """The good and the bad policy that one network stands for (DiffusionNFT): ``sampled ± beta (velocity - sampled)``.

    Both are exactly ``sampled`` as long as the policy is the one that sampled.
    """
    moved = beta * (velocity - sampled)
    return sampled + moved, sampled - moved


def self_normalised(velocity: Latent, target: Latent, sigma: PerSample) -> Each:
    """Squared error of the clean prediction in units of its own mean absolute error, a constant for the gradient.

    The clean prediction is off by ``sigma (target - velocity)``, so neither the latent nor x0 is needed; ``sigma`` is
    the level of the noised latent. The gradient is that of the squared error divided by ``max(mean |error|,
    SCALE_MIN)``.
    """
    gap = expand_to(sigma, velocity) * (velocity - target)
    scale = per_sample_mean(gap.detach().abs()).clamp(min=SCALE_MIN)
    return per_sample_mean(gap.square()) / scale


def nft(
    velocity: Latent, sampled: Latent, target: Latent, chance: Each, beta: float, *, sigma: PerSample | None = None
) -> Each:
    """Negative-aware fine-tuning (DiffusionNFT, arXiv 2509.16117): good samples pull one way, bad ones the other.

    ``(r |v+ - u|^2 + (1 - r) |v- - u|^2) / beta`` with the two velocities of `implicit_velocities`. Where the policy is
    the one that sampled, the value does not depend on r and the gradient is ``2 (2r - 1) (sampled - target)`` over the
    number of elements. The population minimum is ``velocity - sampled = 2 / beta Cov(r, target | x)``: with
    `probability` it is, to first order, the tilt by ``A / tau`` with ``tau = beta limit``.

    ``chance`` is r from `probability`; ``beta``, positive, says how far the good policy lies beyond ``sampled`` in
    steps of the policy, 0.1 to 1. A ``sigma``, the level of the noised latent, asks for the authors' form, where each
    error is `self_normalised`; they also multiply the loss by their limit.

    Raises:
        ValueError: if a probability lies outside [0, 1] or beta is not positive.
    """
    refuse_non_positive("beta", beta)
    if not bool(((chance >= 0) & (chance <= 1)).all()):
        raise ValueError("a probability lies outside [0, 1]; make it from advantages with `probability`")
    good, bad = implicit_velocities(velocity, sampled, beta)
    if sigma is None:
        near, far = velocity_error(good, target), velocity_error(bad, target)
    else:
        near, far = self_normalised(good, target, sigma), self_normalised(bad, target, sigma)
    return (chance * near + (1 - chance) * far) / beta


def log_ratio(policy: Each, sampled: Each, weight: Strength) -> Each:
    """Log-likelihood ratio from denoising errors (AWM, arXiv 2509.25050): ``w (sampled - policy)``, for any surrogate.

    Both errors are at the same level and noise. The weight w(sigma) is non-negative, one for all samples or one each.
    With ``(1 - sigma) / sigma``, levels uniform in (0, 1), the mean over levels and noises is the exact log-likelihood
    ratio of x0 per element. For `policy_loss.clipped`; exactly 0 where the policy is the one that sampled.
    """
    return weight * (sampled - policy)


def divergence(velocity: Latent, other: Latent) -> Each:
    """How far two velocities lie apart, ``|velocity - other|^2`` as a mean over elements.

    This family's penalty: against the reference, or as AWM's anchor against the policy that sampled.
    """
    return velocity_error(velocity, other)


def anchored(velocity: Latent, sampled: Latent, target: Latent, advantage: Each, beta: float) -> Each:
    """Advantage-weighted matching with a quadratic anchor (AWM, arXiv 2509.25050).

    ``A |velocity - target|^2 + beta |velocity - sampled|^2``. Where the policy is the one that sampled, the gradient is
    that of the ratio surrogate on `log_ratio` with weight 1. The population minimum is
    ``velocity - sampled = Cov(A, target | x) / (beta + E[A | x])``. Where the denominator is not positive there is
    none, so beta, in units of advantage, must outweigh the lowest advantage; clamp these.
    """
    return advantage * velocity_error(velocity, target) + beta * divergence(velocity, sampled)


def implicit_reward(policy: Grouped, sampled: Grouped) -> Grouped:
    """How much better than its siblings a sample is denoised by now (CRD, arXiv 2603.14128).

    ``-(policy - sampled)`` above the group's mean, for which members share their level: of mean 0 in every group, and
    exactly 0 where the policy is the one that sampled.
    """
    return _centred(sampled - policy)


def crd(policy: Grouped, sampled: Grouped, advantage: Grouped, beta: float) -> Grouped:
    """Centred reward distillation (CRD, arXiv 2603.14128): squared error of beta `implicit_reward` to the advantage.

    The target is finite, so the pull ends. A group's sum has the gradient ``-2 beta`` times its own residual with
    respect to each member's ``policy``. Advantages are centred here; ``beta`` is advantage per unit of implicit reward,
    in proportion to the number of elements, as errors are means.
    """
    return (beta * implicit_reward(policy, sampled) - _centred(advantage)).square()


def group_weight(policy: Grouped, reference: Grouped, advantage: Grouped, beta: float) -> Float[Tensor, " p"]:
    """How much a group still has to teach (DGPO): ``sigmoid(beta mean(A (policy - reference)))``, without gradient.

    1/2 when the policy is the reference; towards 0 as good members are denoised better and bad ones worse.
    """
    return torch.sigmoid(beta * (advantage * (policy - reference)).mean(dim=1)).detach()


def dgpo(policy: Grouped, reference: Grouped, advantage: Grouped, beta: float) -> Grouped:
    """Direct group preference optimisation (DGPO, arXiv 2510.08425): ``A policy`` times the `group_weight`.

    The mean over a group has the gradient of ``-log sigmoid(-beta mean(A (policy - reference))) / beta``; a pair with
    advantages 1 and -1 is `preference_loss.flow_dpo`. Members of a group share level and noise, and their advantages
    have mean 0; ``beta`` is a strength for errors that are means over elements, 10 to 100. Only the gradient has a
    meaning.
    """
    return group_weight(policy, reference, advantage, beta)[:, None] * advantage * policy


def _centred(values_pg: Tensor) -> Tensor:
    return values_pg - values_pg.mean(dim=1, keepdim=True)
