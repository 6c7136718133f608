"""How to balance rewards that pull apart: the convex combination of their advantages that is shortest (MGDA, min-norm).

Along the shortest combination no reward loses: its product with every advantage is at least its own squared length. It
stands outside `core`, which knows torch only, because SciPy solves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Balance:
    """A min-norm combination and what to watch about it."""

    weights: Float[Tensor, " k"]
    combined: Float[Tensor, " n"]
    conflict: Float[Tensor, ""]
    """Share of pairs of rewards whose advantages point apart (a negative product)."""

    @property
    def value(self) -> Float[Tensor, ""]:
        """Squared length of the combination; 0 where the rewards cannot all rise."""
        return self.combined.square().sum()


def balance(rows: Float[Tensor, "k n"], preference: Sequence[float] = ()) -> Balance:
    """``argmin |sum_k c_k A_k|^2`` over ``c >= 0, sum c = 1``.

    Args:
        rows: ``[k n]``, one advantage vector a reward, over a group or a batch. If all have been brought to the same
            length, two of them always get (1/2, 1/2).
        preference: one positive number a reward; a larger one asks for more of it (rows are divided by it first).

    Returns:
        Weights ``[k]`` that sum to 1, for the rows as given, their combination ``[n]``, and the share of conflicts.

    Raises:
        ValueError: without rows, or for preferences that are not positive or not one a row.
    """
    if len(rows) == 0:
        raise ValueError("there is no advantage to combine")
    if preference and (len(preference) != len(rows) or min(preference) <= 0):
        raise ValueError(
            f"preferences are {list(preference)}; give one positive number for each of {len(rows)} rewards"
        )
    scale = rows.new_tensor(list(preference)) if preference else rows.new_ones(len(rows))
    scaled = rows / scale[:, None]
    weights = _two(scaled) if len(rows) == 2 else _many(scaled)
    # The shortest combination of the scaled rows, written for the rows themselves and brought to sum 1 again.
    weights = weights / scale
    weights = weights / weights.sum()
    gram = rows @ rows.T
    pairs = torch.triu_indices(len(rows), len(rows), offset=1)
    apart = (gram[pairs[0], pairs[1]] < 0).to(rows.dtype)
    return Balance(weights, weights @ rows, apart.mean() if len(apart) else rows.new_zeros(()))


def _two(rows: Tensor) -> Tensor:
    apart = rows[0] - rows[1]
    length = apart.square().sum()
    first = ((rows[1] * -apart).sum() / torch.where(length > 0, length, 1)).clamp(0, 1)
    first = torch.where(length > 0, first, 0.5)
    return torch.stack([first, 1 - first])


def _many(rows: Tensor) -> Tensor:
    """Non-negative least squares: ``min |A^T c|^2 + (1^T c - 1)^2`` has the constrained problem's direction.

    With c = s d, sum d = 1, the best s is 1 / (1 + q) for q = |A^T d|^2, and the value q / (1 + q) rises with q.
    """
    host = rows.detach().double().cpu()
    length = host.norm()
    if not bool(length > 0):
        return rows.new_full((len(rows),), 1 / len(rows))
    system = torch.cat([host.T / length, host.new_ones(1, len(rows))])
    target = host.new_zeros(len(system))
    target[-1] = 1
    shares = torch.from_numpy(nnls(system.numpy(), target.numpy())[0])
    return (shares / shares.sum()).to(rows)
