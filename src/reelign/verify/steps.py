"""Schedules and single transitions: worked examples, limits, and what must be refused."""

import math
from collections.abc import Callable

from torch import Tensor

from reelign.core import gaussian, schedule, transition
from reelign.verify import probe
from reelign.verify.probe import DOUBLE, doubles, row, slope
from reelign.verify.result import Check, Real, refused

SHIFT = "shift s / (1 + (shift - 1) s)"
SDE = "Flow-GRPO (arXiv 2505.05470, eq. 9)"


def tables() -> list[Check]:
    """Noise levels."""
    sixteen = [
        1, 0.98684211, 0.97222222, 0.95588235, 0.9375, 0.91666667, 0.89285714, 0.86538462, 0.83333333, 0.79545455,
        0.75, 0.69444444, 0.625, 0.53571429, 0.41666667, 0.25, 0,
    ]  # fmt: skip
    eight = [1, 0.95454545, 0.9, 0.83333333, 0.75, 0.64285714, 0.5, 0.3, 0]
    thousand = [1, 0.97826087, 0.90005599, 0.89966368, 0.83333333, 0.35714286, 0.00498008]

    def of(n: int, shift: float) -> list[float]:
        return schedule.sigmas(n, shift, DOUBLE).tolist()

    return [
        Check("16 steps, shift 5", SHIFT, sixteen, lambda: of(16, 5.0), 1e-8),
        Check("8 steps, shift 3", SHIFT, eight, lambda: of(8, 3.0), 1e-8),
        Check("4 steps, shift 5", SHIFT, [1, 0.9375, 0.83333333, 0.625, 0], lambda: of(4, 5.0), 1e-8),
        Check("1000 steps, shift 5, selected levels", SHIFT, thousand,
              lambda: [of(1000, 5.0)[i] for i in (0, 100, 357, 358, 500, 900, 999)], 1e-8),
        Check("trained steps at 60 percent of 16, 10, 3, 2", "max(1, floor(0.6 (n - 1)))", [9, 5, 1, 1],
              lambda: [schedule.trained_count(n, 0.6) for n in (16, 10, 3, 2)], 0.0),
        refused("the last step is refused as stochastic", "its std would be 0", lambda: schedule.window(8, 6, 2)),
    ]  # fmt: skip


# Log-densities are exact; implementations that add 1e-8 to the std inside the logarithm differ from the 7th digit.
BY_HAND = [
    ("dance", (1, 0.5, 0.3, 0.7, 0.45, 0.9), [0.8565178571, 0.15, 0.9361659684]),
    ("flow", (1, 0.5, 0.3, 0.7, 0.45, 0.9), [0.831875, 0.2291287847, 0.5103323726]),
    ("dance", (1, -0.4, 0.25, 1, 0.95, 1.1), [1.0184375, 0.0559016994, 0.9008313397]),
    ("flow", (1, -0.4, 0.25, 1, 0.95, 1.1), [0.98875, 0.25, 0.3683433279]),
    ("dance", (-0.3, 0.8, 0.3, 0.5, 0.4, -0.2), [-0.3809, 0.0948683298, -0.3817181824]),
    ("flow", (-0.3, 0.8, 0.3, 0.5, 0.4, -0.2), [-0.3809, 0.0948683298, -0.3817181824]),
]


def transitions() -> list[Check]:
    """Single steps against numbers worked out by hand."""
    return [
        *(
            Check(f"{kind} step at sigma {at[3]}: mean, std, log-density", SDE, expected,
                  lambda kind=kind, at=at: _measured(kind, *at), 1e-9)
            for kind, at, expected in BY_HAND
        ),
        Check("log-density at the mean, std 0.15", "-ln std - ln(2 pi)/2", 0.9781814517,
              lambda: transition.log_prob(_around(0.3), row(0.3)).item(), 1e-9),
        Check("a coefficient-preserving step", "Flow-CPS (arXiv 2509.05952)", _cps_by_hand(),
              lambda: _measured("cps", 1, 0.5, 0.5, 0.7, 0.45, 0.9), 1e-12),
        Check(
            "longcat std is capped at 0.45 and free below", "LongCat-Video (arXiv 2510.22200)",
            [0.45, math.sqrt(0.5 / 0.5 * 0.1)],
            lambda: [_step("longcat", 1, 0, 1.0, 1, 0.6).std.item(), _step("longcat", 1, 0, 1.0, 0.5, 0.4).std.item()],
            1e-12,
        ),
        Check("flash std is sigma sqrt(delta)", "Flash-GRPO (arXiv 2605.15980)", 0.7 * 0.5,
              lambda: _step("flash", 1, 0.5, 1.0, 0.7, 0.45).std.item(), 1e-12),
        *(
            Check(f"{kind} without noise is the Euler step", "eta = 0", [0, 0], lambda kind=kind: _quiet(kind), 0.0)
            for kind in transition.KINDS
        ),
        refused("a density without width is refused", "std = 0",
                lambda: transition.log_prob(_step("flow", 1, 0.5, 0.0, 0.7, 0.45), row(0.9))),
        refused("the pole of the flow rate is refused", "1 / (1 - sigma)",
                lambda: transition.rate("flow", doubles(1), doubles(1), 0.3)),
        refused("noise in a step that ends on data is refused", "std must not vanish",
                lambda: _step("flow", 1, 0.5, 0.3, 0.2, 0.0)),
        Check("divergence of means 0.02 apart, std 0.15", "Gaussian KL", 0.02**2 / (2 * 0.15**2),
              lambda: transition.step_kl(_around(0.32), _around(0.30)).item(), 1e-12),
        Check("divergence of velocities 0.1 apart, in mean and velocity space", "KL = c^2 / 2 |dv|^2",
              [0.0065001488] * 2, _kl_of_velocities, 1e-9),
        Check("gradient of the divergence", "d KL / d mean = gap / std^2", 0.02 / 0.15**2,
              lambda: slope(_kl_from, row(0.32)), 1e-12),
        Check("log-density is a mean over elements", "one density per sample, whatever its size", 0.9361659684,
              lambda: _tiled(transition.log_prob), 1e-9),
        Check("dense log-density is a sum over channels", "ViPO (arXiv 2511.18719)", [3 * 0.9361659684] * 4,
              lambda: _tiled(transition.log_prob_dense), 1e-9),
    ]  # fmt: skip


def marginals() -> list[Check]:
    """What a sampler does to the variance of Gaussian data, when all steps but the last are stochastic."""
    kinds = [("ode", 0.0), ("flow", 0.7), ("dance", 0.3), ("flash", 1.0), ("longcat", 1.0), ("cps", 0.5), ("cps", 0.8)]
    ratios = {
        1e-8: [1.000, 1.572, 1.161, 1.269, 2.177, 1.000, 1.000],
        0.05: [0.876, 1.201, 0.961, 1.029, 1.507, 0.813, 0.718],
        0.5: [0.813, 0.905, 0.825, 0.849, 0.955, 0.696, 0.540],
    }
    source = "Gaussian chain, closed form"
    return [
        *(
            Check(f"variance ratio at the last noisy level, {kind} {eta}, data variance {var}", source, expected,
                  lambda kind=kind, eta=eta, var=var: _variance_ratio(kind, eta, var), 6e-4)
            for var, row in ratios.items()
            for (kind, eta), expected in zip(kinds, row, strict=True)
        ),
        *(
            Check(f"mean is exact at every level, {kind}", "Euler is exact for the mean", [0.0] * 11,
                  lambda kind=kind, eta=eta: _mean_errors(kind, eta), 1e-12)
            for kind, eta in kinds[:-1]
        ),
        Check("excess variance of one flow step on a point mass", "delta^2 g^2 / s (1 + g^2 / 4s)", 0.0160015625,
              lambda: _excess("flow", 0.7), 1e-12),
        Check("no excess variance of a cps step on a point mass", source, 0, lambda: _excess("cps", 0.7), 1e-12),
        Check("data variance 0.5 after 1000 steps: flow keeps it, cps does not", source, [0.502, 0.361],
              lambda: [_final_var("flow", 0.7), _final_var("cps", 0.7)], 6e-4),
        *(
            Check(f"every step is the affine map derived by hand, {kind}", source, 0,
                  lambda kind=kind, eta=eta: _chain_gap(kind, eta), 1e-12)
            for kind, eta in kinds[:-1]
        ),
    ]  # fmt: skip


def _step(kind: str, x: Real, v: Real, eta: float, sigma: Real, after: Real) -> transition.Transition:
    return transition.step(kind, row(x), row(v), doubles(sigma), doubles(after), eta)


def _measured(kind: str, x: Real, v: Real, eta: float, sigma: Real, after: Real, drawn: Real) -> list[float]:
    found = _step(kind, x, v, eta, sigma, after)
    return [found.mean.item(), found.std.item(), transition.log_prob(found, row(drawn)).item()]


def _cps_by_hand() -> list[float]:
    x0, noise, turn = 1 - 0.7 * 0.5, 1 + 0.3 * 0.5, math.pi / 4
    mean, std = 0.55 * x0 + 0.45 * math.cos(turn) * noise, 0.45 * math.sin(turn)
    return [mean, std, -((0.9 - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)]


def _quiet(kind: str) -> list[float]:
    found = _step(kind, 1.3, 0.37, 0.0, 0.7, 0.45)
    return [found.mean.item() - (1.3 - (0.7 - 0.45) * 0.37), found.std.item()]


def _around(mean: float) -> transition.Transition:
    return transition.Transition(row(mean), doubles(0.15))


def _kl_of_velocities() -> list[float]:
    a, b = (_step("flow", 1, v, 0.3, 0.7, 0.45) for v in (0.5, 0.6))
    gain = transition.gain("flow", doubles(0.7), doubles(0.45), 0.3)
    return [transition.step_kl(a, b).item(), ((gain * 0.1) ** 2 / (2 * a.std**2)).item()]


def _kl_from(mean: Tensor) -> Tensor:
    return transition.step_kl(transition.Transition(mean, doubles(0.15)), _around(0.30)).sum()


def _tiled(density: Callable[[transition.Transition, Tensor], Tensor]) -> list[float]:
    """The density of a latent of three channels and four places that are all alike."""
    x, velocity, drawn = (
        doubles(value).reshape(1, 1, 1, 1, 1).expand(1, 3, 1, 2, 2).contiguous() for value in (1, 0.5, 0.9)
    )
    return density(transition.step("dance", x, velocity, doubles(0.7), doubles(0.45), 0.3), drawn).flatten().tolist()


def _variance_ratio(kind: str, eta: float, var: float) -> float:
    _, variances = gaussian.moments(probe.sampler(kind, 20, 5.0, eta, 0.0, var))
    last = schedule.sigmas(20, 5.0, DOUBLE)[-2].item()
    return variances[-2].item() / ((1 - last) ** 2 * var + last**2)


def _mean_errors(kind: str, eta: float) -> list[float]:
    means, _ = gaussian.moments(probe.sampler(kind, 10, 3.0, eta, 0.7, 0.5))
    return (means - (1 - schedule.sigmas(10, 3.0, DOUBLE)) * 0.7).tolist()


def _final_var(kind: str, eta: float) -> float:
    return gaussian.moments(probe.sampler(kind, 1000, 1.0, eta, 0.0, 0.5))[1][-1].item()


def _excess(kind: str, eta: float) -> float:
    levels = doubles(0.6, 0.5)
    found = probe.probed_chain(kind, levels, doubles(eta), 0.3, 0.0)
    return (found.slope**2 * 0.6**2 + found.std**2).item() - 0.5**2


def _chain_gap(kind: str, eta: float) -> float:
    levels = schedule.sigmas(10, 3.0, DOUBLE)
    strengths = schedule.strengths(10, range(9), eta, DOUBLE)
    a, b = probe.probed_chain(kind, levels, strengths, 0.7, 0.5), gaussian.chain(kind, levels, strengths, 0.7, 0.5)
    pairs = ((a.slope, b.slope), (a.offset, b.offset), (a.std, b.std), (a.gain, b.gain))
    return max((x - y).abs().max().item() for x, y in pairs)
