"""Nodes and weights that integrate smooth functions to machine precision (Golub and Welsch 1969)."""

import torch
from torch import Tensor


def unit_interval(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre on [0, 1]; weights add to 1."""
    k = torch.arange(1, n, dtype=torch.float64)
    nodes, weights = _from_recurrence(k / (4 * k**2 - 1).sqrt())
    return (nodes + 1) / 2, weights


def standard_normal(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite for expectations under N(0, 1); weights add to 1."""
    return _from_recurrence(torch.arange(1, n, dtype=torch.float64).sqrt())


def _from_recurrence(off_diagonal: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return values, vectors[0].square()
