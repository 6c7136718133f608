"""What to trust, when to emphasise, how to balance, where to learn: worked examples of TeleBoost's four modules."""

import torch

from reelign.core import advantage, allocation, pacing, trust
from reelign.engines import min_norm
from reelign.verify.probe import DOUBLE, doubles, row
from reelign.verify.result import Check, Real, refused

BPGO = "BPGO, arXiv 2511.18919"
RELEASED = "the authors' released form, worked by hand"
TAROS = "TaRoS, arXiv 2511.19356 v4"
VIPO = "ViPO, arXiv 2511.18719"
KKT = "optimality conditions, solved by hand"


def trusting() -> list[Check]:
    """BPGO's two scales, in the paper's form and the released one."""

    def contrast(rewards: list[Real], prior: float) -> list[float]:
        return trust.contrast(row(*rewards), doubles(prior))[0].tolist()

    def released(rewards: list[Real], prior: float) -> list[float]:
        return trust.contrast_released(row(*rewards), doubles(prior))[0].tolist()

    def scale(apart: Real, slope: Real) -> float:
        return trust.reliability(row(apart), doubles(0), slope=float(slope)).item()

    def posterior(rewards: list[Real], prior: Real) -> float:
        return trust.reliability_released(row(*rewards), doubles(prior)).item()

    return [
        Check("contrast around 0.5", BPGO, [4.07742274, -0.44206837, 0], lambda: contrast([1, 0.1, 0.5], 0.5), 1e-8),
        Check("contrast turns back one below the prior", BPGO, [-0.55181916, -0.17425474],
              lambda: contrast([-1, -3], 0.5), 1e-8),
        Check("contrast around 0.42", BPGO, [-0.48793462, -0.53338912, -0.02983649, 5.04699892],
              lambda: contrast([-1.2, -0.3, 0.4, 1.1], 0.42), 1e-8),
        Check("released contrast", RELEASED, [14.29568393, -1.00999967, 0], lambda: released([1, 0.1, 0.5], 0.5), 1e-8),
        refused("released contrast refuses negative rewards", RELEASED, lambda: released([-1], 0.5)),
        Check("reliability above, below, far below, at the prior", BPGO, [1.23105858, 0.92555748, 0.68242552, 1],
              lambda: [scale(1, 1), scale(-0.3, 1), scale(-0.3, 5), scale(0, 3)], 1e-8),
        Check("released reliability", RELEASED, [1.08353841, 0.83654610, 1.5, 1.13816320],
              lambda: [posterior([0.1, 0.5, 0.9], 0.45), posterior([0.1, 0.5, 0.9], 0.6), posterior([4, 5, 6], 0),
                       posterior([0.5], 0)], 1e-8),
    ]  # fmt: skip


def pace() -> list[Check]:
    """Sparsity, the printed weights, and weights that hand over."""
    rows = torch.stack([row(0.7, 0.75, 0.8, 0.85), row(0.1, 0.4, 0.7, 0.9), row(0.5, 0.5, 0.5, 0.9)])
    thresholds = doubles(0.75, 0.75, 0.75)

    def printed(beta: float) -> list[float]:
        return pacing.literal(rows, thresholds, sparsity=beta)[:, 0].tolist()

    def handed_over() -> list[float]:
        means = doubles(0.8, 0.6, 0.1)
        level = means[:, None, None].expand(3, 1, 4)
        return pacing.gated(level, doubles(0.8, 0.6, 0.1), keep=0.0)[:, 0].tolist()

    def blended() -> list[float]:
        mixed = pacing.mixed(rows, pacing.literal(rows, thresholds, sparsity=0.3))
        return advantage.group(mixed, 0.0)[0].tolist()

    return [
        Check("sparsity of even, single and spread rewards", TAROS, [0, 1, 0.00518270, 0.26794919, 0.07846215],
              lambda: pacing.hoyer(torch.cat([row(1, 1, 1, 1), row(1, 0, 0, 0), *rows])).tolist(), 1e-8),
        Check("printed weights, beta 0.3", TAROS, [0.31881454, 0.34310003, 0.33808543], lambda: printed(0.3), 1e-8),
        Check("printed weights, beta 0.5", TAROS, [0.30180514, 0.35554250, 0.34265236], lambda: printed(0.5), 1e-8),
        Check("advantage of the blend", TAROS, [-1.04283762, -0.43379462, 0.17524839, 1.30138385], blended, 1e-7),
        Check("at every threshold, half is handed on", "products of one half", [0.5, 0.25, 0.25], handed_over, 1e-12),
    ]  # fmt: skip


def balance() -> list[Check]:
    """Min-norm combinations."""

    def combined(*rows: list[Real]) -> list[float]:
        return min_norm.balance(torch.tensor(rows, dtype=DOUBLE)).combined.tolist()

    def three() -> list[float]:
        ranks = torch.tensor([[1, 2, 3, 4], [2, 1, 4, 3], [4, 3, 1, 2]], dtype=DOUBLE)
        found = min_norm.balance(advantage.group(ranks, 0.0))
        return [*found.weights.tolist(), found.value.item()]

    return [
        Check("two rows that partly agree", KKT, [0.19230769, 0.07692308, -0.26923077, 0],
              lambda: combined([1, -1, 0, 0], [0.1, 0.2, -0.3, 0]), 1e-8),
        Check("the shorter of two parallel rows", KKT, [1, -1], lambda: combined([2, -2], [1, -1]), 1e-12),
        Check("opposed rows cancel", KKT, [0, 0], lambda: combined([1, -1], [-1, 1]), 1e-12),
        Check("three rows with a known Gram matrix", KKT, [9 / 34, 9 / 34, 16 / 34, 0.1411764706], three, 1e-8),
    ]  # fmt: skip


def allocate() -> list[Check]:
    """Maps that share a sample's advantage out."""

    def patches() -> list[float]:
        features = torch.tensor([[2, 0], [-2, 0], [0, 1], [0, -1]], dtype=DOUBLE)
        return sorted(allocation.structure(features.reshape(1, 1, 2, 2, 2)).flatten().tolist())

    def shared() -> list[float]:
        return allocation.dense(doubles(1.5), row(0, 0.25, 0.5, 1)[None, None]).flatten().tolist()

    def stretched(*values: Real) -> list[float]:
        return allocation.stretched(row(*values)[None, None]).flatten().tolist()

    return [
        Check("four patches, explained 0.8 and 0.2", VIPO, [0.1, 0.4, 0.6, 0.9], patches, 1e-9),
        Check("a map goes from 0 to 1", VIPO, [0, 0.5, 1], lambda: stretched(2, 4, 6), 1e-12),
        Check("a constant map is all ones", VIPO, [1, 1], lambda: stretched(3, 3), 0.0),
        Check("an advantage shared out", VIPO, [0, 0.375, 0.75, 1.5], shared, 1e-12),
    ]  # fmt: skip
