"""One step of the reverse process as a Gaussian, shared by sampling and replay.

A step goes from ``sigma`` down to ``sigma_next``; ``delta = sigma - sigma_next``. Kinds:

| kind | std | mean |
|---|---|---|
| ``ode`` | 0 | Euler step |
| ``flow`` ``dance`` ``flash`` ``longcat`` | ``rate sqrt(delta)`` | Euler step + score correction |
| ``cps`` | ``sigma_next sin(eta pi / 2)`` | clean and noise predictions, recombined |

The four SDE kinds differ in the rate g(sigma) only. ``eta`` is the user's strength; 0 makes every kind exactly ``ode``.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core import flow, schedule
from reelign.core.flow import Each, Latent, PerSample, expand_to

Strength = float | PerSample

SDE_KINDS = ("flow", "dance", "flash", "longcat")
KINDS = ("ode", *SDE_KINDS, "cps")

LONGCAT_STD_MAX = 0.45
"""Largest standard deviation of one ``longcat`` step (arXiv 2510.22200)."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A Gaussian over the next latent, with one width per sample.

    Attributes:
        mean: ``[b *latent]``, carries the gradient to the policy.
        std: ``[b]``, 0 for a deterministic step; does not depend on the policy.
    """

    mean: Latent
    std: Each


def rate(kind: str, sigma: PerSample, sigma_next: PerSample, eta: Strength) -> PerSample:
    """The noise rate g(sigma) of an SDE kind: noise per square root of sigma, before ``sqrt(delta)``.

    Args:
        kind: ``flow`` (Flow-GRPO, arXiv 2505.05470), ``dance`` (DanceGRPO, arXiv 2505.07818), ``flash`` (Flash-GRPO,
            arXiv 2605.15980) or ``longcat`` (LongCat-Video, arXiv 2510.22200).
        sigma: level before the step, in (0, 1].
        sigma_next: level after it, in [0, sigma).
        eta: factor in front of every rate. The papers use 0.7 for flow, 0.25 to 0.3 for dance, 1 for flash and longcat.

    Returns:
        One rate per sample.

    Raises:
        ValueError: for an unknown kind, or a flow rate at ``sigma = sigma_next = 1``, which is infinite.
    """
    if kind == "flow":
        return _flow_rate(sigma, sigma_next, eta)
    if kind == "dance":
        return eta * torch.ones_like(sigma)
    if kind == "flash":
        return eta * sigma
    if kind == "longcat":
        root = (sigma - sigma_next).sqrt()
        return (_flow_rate(sigma, sigma_next, eta) * root).clamp(max=LONGCAT_STD_MAX) / root
    raise ValueError(f"there is no noise rate called {kind!r}; use one of {', '.join(SDE_KINDS)}")


def _flow_rate(sigma: PerSample, sigma_next: PerSample, eta: Strength) -> PerSample:
    """Flow-GRPO: ``eta sqrt(sigma / (1 - sigma))``."""
    # sigma = 1 is a pole; the first step borrows the next level for the denominator, as the authors do.
    below_one = torch.where(sigma >= 1, sigma_next, sigma)
    if bool((below_one >= 1).any()):
        raise ValueError("the flow rate is infinite at sigma = sigma_next = 1; the first step must go below 1")
    return eta * torch.sqrt(sigma / (1 - below_one))


def ode_step(x: Latent, velocity: Latent, sigma: PerSample, sigma_next: PerSample) -> Transition:
    """Deterministic Euler step; its std is 0 and it has no log-probability."""
    _refuse_mixed_precision(x, velocity, sigma, sigma_next)
    return Transition(_euler(x, velocity, sigma, sigma_next), x.new_zeros(x.shape[0]))


def sde_step(x: Latent, velocity: Latent, sigma: PerSample, sigma_next: PerSample, rate: PerSample) -> Transition:
    """Euler-Maruyama step of the SDE with the marginals of the flow, for any rate (arXiv 2505.05470, eq. 9).

    The mean is ``x - delta (velocity - rate^2 / 2 score)`` with ``score = -noise / sigma``; the std is ``rate
    sqrt(delta)``. Rate 0 gives the Euler step to the last bit. Arguments are those of `step`, with a rate from `rate`.
    """
    _refuse_mixed_precision(x, velocity, sigma, sigma_next)
    delta = sigma - sigma_next
    pull = expand_to(rate**2 * delta / (2 * sigma), x)
    mean = _euler(x, velocity, sigma, sigma_next) - pull * flow.noise_from(x, velocity, sigma)
    return Transition(mean, _per_sample(rate * delta.sqrt(), x))


def cps_step(x: Latent, velocity: Latent, sigma: PerSample, sigma_next: PerSample, eta: Strength) -> Transition:
    """Coefficient-preserving step (Flow-CPS, arXiv 2509.05952).

    The next latent is ``(1 - sigma_next) x0 + sigma_next (cos noise + sin fresh noise)`` with the angle ``eta pi / 2``:
    the predicted noise is partly replaced. There is no ``sqrt(delta)`` in the std. Arguments are those of `step`;
    ``eta`` is the share of the quarter turn, in [0, 1].
    """
    _refuse_mixed_precision(x, velocity, sigma, sigma_next)
    cos, sin = _turn(eta, sigma)
    # Written as a correction of the Euler step, so that eta = 0 is the Euler step to the last bit.
    lost = expand_to(sigma_next * (1 - cos), x)
    mean = _euler(x, velocity, sigma, sigma_next) - lost * flow.noise_from(x, velocity, sigma)
    return Transition(mean, _per_sample(sigma_next * sin, x))


def step(
    kind: str, x: Latent, velocity: Latent, sigma: PerSample, sigma_next: PerSample, eta: Strength = 0.0
) -> Transition:
    """The transition of any kind; sampling and replay both come here, so their ratio starts at exactly 1.

    Args:
        kind: one of `KINDS`.
        x: latent at sigma, ``[b *latent]``, float32.
        velocity: of the policy at (x, sigma).
        sigma: level before the step, ``[b]`` or scalar, same dtype as ``x``.
        sigma_next: level after it.
        eta: strength, one for all samples or one each; samples with 0 take the deterministic step. ``ode`` ignores it.

    Returns:
        Mean ``[b *latent]`` and std ``[b]``.

    Raises:
        ValueError: for an unknown kind, or noise in a step that ends at ``sigma_next = 0``.
        TypeError: if dtypes differ or are too coarse for log-probabilities.
    """
    if kind == "ode":
        return ode_step(x, velocity, sigma, sigma_next)
    if kind not in KINDS:
        raise ValueError(f"there is no transition called {kind!r}; use one of {', '.join(KINDS)}")
    schedule.refuse_terminal(sigma_next, torch.as_tensor(eta, dtype=sigma.dtype, device=sigma.device))
    if kind == "cps":
        return cps_step(x, velocity, sigma, sigma_next, eta)
    return sde_step(x, velocity, sigma, sigma_next, rate(kind, sigma, sigma_next, eta))


def draw(transition: Transition, noise: Latent) -> Latent:
    """The next latent for given standard Gaussian noise."""
    return transition.mean + expand_to(transition.std, noise) * noise


def gain(kind: str, sigma: PerSample, sigma_next: PerSample, eta: Strength = 0.0) -> PerSample:
    """How far the mean moves per unit of velocity, d mean / d velocity; negative, one value per sample."""
    euler = sigma_next - sigma
    if kind == "ode":
        return euler
    if kind == "cps":
        cos, _ = _turn(eta, sigma)
        return euler - sigma_next * (1 - cos) * (1 - sigma)
    g = rate(kind, sigma, sigma_next, eta)
    return euler * (1 + g**2 * (1 - sigma) / (2 * sigma))


def log_prob(transition: Transition, x_next: Latent) -> Each:
    """Gaussian log-density of the latent that was drawn, as a mean over its elements.

    The exact density including ``-ln std - ln(2 pi) / 2``; divided by the number of elements, so that clip ranges
    do not depend on the resolution. ``x_next`` is a recorded constant: no gradient goes through it.

    Args:
        transition: of the policy at the recorded latent.
        x_next: the recorded draw, float32, exactly as it is stored.

    Raises:
        ValueError: if a std is 0; a deterministic step has no density.
    """
    deviation = (x_next.detach() - transition.mean) / expand_to(_positive_std(transition), x_next)
    normaliser = transition.std.log() + 0.5 * math.log(2 * math.pi)
    return -0.5 * flow.per_sample_mean(deviation**2) - normaliser


def log_prob_dense(transition: Transition, x_next: Float[Tensor, "b c *place"]) -> Float[Tensor, "b *place"]:
    """Log-density per place: a sum over channels, no reduction over frames, height or width (ViPO, arXiv 2511.18719).

    Args:
        transition: of the policy at the recorded latent.
        x_next: the recorded draw, ``[b c f h w]``.

    Returns:
        ``[b f h w]``. Its spread is far larger than that of `log_prob`; it needs its own clip range.

    Raises:
        ValueError: if a std is 0, or there is no channel axis.
    """
    if x_next.ndim < 2:
        raise ValueError(f"a dense log-probability needs a channel axis, got a latent of shape {tuple(x_next.shape)}")
    std = expand_to(_positive_std(transition), x_next)
    element = -0.5 * ((x_next.detach() - transition.mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
    return element.sum(dim=1)


def step_kl(a: Transition, b: Transition) -> Each:
    """Exact divergence between two transitions with equal std, as a mean over elements; keeps its gradient.

    ``mean((a.mean - b.mean)^2) / (2 std^2)`` with the std of the step itself, ``sqrt(delta)`` included. Code that
    leaves out ``delta`` needs another coefficient for the same pull.

    Args:
        a: of the policy.
        b: of the reference, at the same latent and level.

    Raises:
        ValueError: if a std is 0 or the two differ.
    """
    if not torch.equal(a.std, b.std):
        raise ValueError("the two transitions have different std; compare steps of one kind, level and eta")
    return flow.per_sample_mean((a.mean - b.mean) ** 2) / (2 * _positive_std(a) ** 2)


def _euler(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    return x - expand_to(sigma - sigma_next, x) * velocity


def _turn(eta: Strength, sigma: Tensor) -> tuple[Tensor, Tensor]:
    angle = torch.as_tensor(eta, dtype=sigma.dtype, device=sigma.device) * (math.pi / 2)
    return angle.cos(), angle.sin()


def _per_sample(value: Tensor, x: Tensor) -> Tensor:
    return value.expand(x.shape[0])


def _positive_std(transition: Transition) -> Tensor:
    if bool((transition.std <= 0).any()):
        raise ValueError("a step with std 0 is deterministic and has no density; use stochastic steps only")
    return transition.std


def _refuse_mixed_precision(*tensors: Tensor) -> None:
    found = {tensor.dtype for tensor in tensors}
    if len(found) > 1 or not found <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype) for dtype in found))
        raise TypeError(f"a transition needs latent, velocity and levels all in float32, got {names}")
