"""Advantages, surrogate, weights over noise levels, comparisons, summaries: worked examples."""

import math

import torch
from torch import Tensor

from reelign.core import advantage, policy_loss, reward_loss, schedule, stats, weighting
from reelign.verify.probe import DOUBLE, doubles, row, slope
from reelign.verify.result import Check, Real, refused

HAND = "worked by hand from the definition"
FLAT = "constant noise gradient is the definition of rectification (arXiv 2605.15980)"


def advantages() -> list[Check]:
    """Group comparison."""

    def of(rewards: list[Real], eps: float = 1e-4, **options: float | bool) -> list[float]:
        return advantage.group(row(*rewards), eps, **options)[0].tolist()  # pyright: ignore[reportArgumentType]

    five = [-1.26491106, -0.63245553, 0, 0.63245553, 1.26491106]
    narrow = [0.13, 0.1301, 0.1299, 0.13]
    zscores = [-1.04293131, -0.84615182, -0.15742359, 0.82647387, 1.22003285]
    return [
        Check("five rewards, sample std", HAND, five, lambda: of([1, 2, 3, 4, 5], 0.0), 1e-8),
        Check("four rewards, eps 1e-4", HAND, [-1.16180501, -0.38726834, 0.38726834, 1.16180501],
              lambda: of([1, 2, 3, 4]), 1e-8),
        Check(
            "rewards times ten", HAND, [-1.161886, -0.387295, 0.387295, 1.161886], lambda: of([10, 20, 30, 40]), 1e-6
        ),
        Check("narrow group without a floor", HAND, [0, 0.55051026, -0.55051026, 0], lambda: of(narrow), 1e-6),
        Check("narrow group under a floor is silent", HAND, [0] * 4, lambda: of(narrow, std_floor=0.01), 0.0),
        Check("three rewards, population std", HAND, [-1.22474486, 0, 1.22474486],
              lambda: of([1, 2, 3], 1e-8, population=True), 1e-7),
        Check("constant group is exactly silent", HAND, [0] * 3, lambda: of([0.1, 0.1, 0.1]), 0.0),
        Check("singleton is exactly silent", HAND, [0], lambda: of([3.0]), 0.0),
        Check("whole-batch z-score", HAND, zscores, lambda: of([1, 3, 10, 20, 24], 0.0), 1e-8),
    ]  # fmt: skip


def surrogate() -> list[Check]:
    """Clipped loss and its diagnostics."""

    def loss() -> list[float]:
        ratio = doubles(1.3, 0.7, 1.0, 1.5)
        return policy_loss.clipped(ratio.log(), doubles(1, -1, 2, -2), 0.2).tolist()

    def watch() -> list[float]:
        two = math.log(2)
        found = policy_loss.diagnostics(doubles(0, two, -two), doubles(1, 1, 1), 0.2)
        return [found[key].item() for key in ("ratio_mean", "chi2", "ess", "k3", "abs_log_ratio", "clip_frac")]

    def at_one(log_ratio: Tensor) -> Tensor:
        return policy_loss.clipped(log_ratio, doubles(1.5, -0.5, 0), 1e-4).sum()

    def per_place() -> list[float]:
        log_ratio, advantage = doubles(1.3, 0.9, 1.3).log(), doubles(0, 0.5, 1)
        return torch.cat([policy_loss.clipped(log_ratio, sign * advantage, 0.2) for sign in (1, -1)]).tolist()

    return [
        Check("loss per element", "PPO (arXiv 1707.06347, eq. 7)", [-1.2, 0.8, -2, 3], loss, 1e-12),
        Check("loss per place for a dense advantage, and for its opposite", "PPO per place (arXiv 2511.18719)",
              [0, -0.45, -1.2, 0, 0.45, 1.3], per_place, 1e-12),
        Check("gradient at ratio 1 is -advantage", "REINFORCE is PPO at ratio 1", [-1.5, 0.5, 0],
              lambda: slope(at_one, doubles(0, 0, 0)), 1e-12),
        Check("diagnostics of three ratios", HAND, [7 / 6, 0.41666667, 0.77777778, 0.16666667, 0.46209812, 2 / 3],
              watch, 1e-8),
        refused("a broadcast that widens ratios is refused", "shape rule",
                lambda: policy_loss.clipped(torch.zeros(2), torch.zeros(2, 1), 0.2)),
    ]  # fmt: skip


def weights() -> list[Check]:
    """Weights over noise levels."""
    tempflow = [
        1.88481530, 1.97365564, 1.42536835, 1.18950261, 1.05364378, 0.96458498, 0.90183583, 0.85555659,
        0.82026057, 0.79244700, 0.76947262, 0.74879203, 0.72708329, 0.69855903, 0.65032306, 0.54409931,
    ]  # fmt: skip
    even = [1.50676129, 1.30489355, 0.75338064, 0.43496452]
    source = "noise weight is std over mean std (arXiv 2508.04324)"

    def noise(kind: str, levels: Tensor) -> list[float]:
        return weighting.noise_scale(kind, levels[:-1], levels[1:], 0.3).tolist()

    sigma, after = schedule.sigmas(10, 3.0, DOUBLE)[:-2], schedule.sigmas(10, 3.0, DOUBLE)[1:-1]

    def flatness(weights: Tensor, kind: str, eta: float) -> float:
        size = weights * weighting.gradient_scale(kind, sigma, after, eta)
        return float(size.max() / size.min())

    def rectified(kind: str, eta: float) -> float:
        return flatness(weighting.rectified(kind, sigma, after, eta), kind, eta)

    def per_length() -> float:
        return flatness(weighting.proportional("flow", sigma, after, 0.7) / (sigma - after), "flow", 0.7)

    def scale() -> list[float]:
        return weighting.gradient_scale("flow", doubles(0.7), doubles(0.45), 0.3).tolist()

    closed = math.sqrt(0.25 * 0.3 / 0.7) * (1 / 0.3 + 0.15)
    return [
        Check("noise weights, flow, 4 even steps", source, even,
              lambda: noise("flow", schedule.sigmas(4, 1.0, DOUBLE)), 1e-8),
        Check("noise weights, flow, 2 steps", source, [1.02633404, 0.97366596],
              lambda: noise("flow", doubles(1, 0.6, 0)), 1e-8),
        Check("noise weights, flow, 16 steps, shift 5", source, tempflow,
              lambda: noise("flow", schedule.sigmas(16, 5.0, DOUBLE)), 1e-8),
        Check("noise weights, dance, even steps", source, [1] * 4,
              lambda: noise("dance", schedule.sigmas(4, 1.0, DOUBLE)), 1e-12),
        Check("gradient scale of a flow step", "c = sqrt(delta (1-s)/s) (1/eta + eta/2)", closed, scale, 1e-12),
        *(
            Check(f"rectified gradients are level, {kind}", FLAT, 1,
                  lambda kind=kind, eta=eta: rectified(kind, eta), 1e-12)
            for kind, eta in (("flow", 0.7), ("flash", 1.0), ("dance", 0.3), ("longcat", 1.0), ("cps", 0.7))
        ),
        Check("proportional gradients follow step length", "PCPO (arXiv 2509.25774)", 1, per_length, 1e-12),
    ]  # fmt: skip


def comparisons() -> list[Check]:
    """Bradley-Terry with ties."""

    def total() -> float:
        parts = reward_loss.outcome_log_probs(doubles(0.7), doubles(-0.4), 5.0)
        return float(sum(part.exp() for part in parts))

    def even() -> list[float]:
        zero = doubles(0, 0, 0)
        return reward_loss.bradley_terry(zero, zero, torch.tensor([1, 0, -1]), 5.0).tolist()

    chances = [-math.log(1 / 6), -math.log(24 / 36), -math.log(1 / 6)]
    source = "Rao and Kupper 1967"
    return [
        Check("win, tie and loss add to 1", source, 1, total, 1e-12),
        Check("losses at equal scores, theta 5", source, chances, even, 1e-12),
    ]  # fmt: skip


def summaries() -> list[Check]:
    """Win rates."""
    return [
        Check(
            "50 good, 30 same, 20 bad", HAND, [0.71428571, 0.65, 0.30], lambda: list(stats.win_rates(50, 30, 20)), 1e-8
        ),
    ]  # fmt: skip
