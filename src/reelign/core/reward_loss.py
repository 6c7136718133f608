"""Learning a score from comparisons that may end in a tie."""

import math

from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from reelign.core.flow import Each


def outcome_log_probs(score_a: Each, score_b: Each, theta: float = 5.0) -> tuple[Each, Each, Each]:
    """Log-probabilities that a wins, that nobody does, that b wins (Rao and Kupper 1967).

    Args:
        score_a: of the first item.
        score_b: of the second item.
        theta: readiness to call a tie, at least 1; 1 is Bradley-Terry without ties, 5 is VideoAlign's choice
            (arXiv 2501.13918). Scores closer than ``ln theta`` are more likely tied than not.

    Returns:
        Three ``[b]``; their exponentials add to 1. At theta = 1 the middle one is minus infinity.

    Raises:
        ValueError: if theta < 1.
    """
    if theta < 1:
        raise ValueError(f"theta is {theta}, but it must be at least 1 (no ties)")
    gap = score_a - score_b
    a_wins = functional.logsigmoid(gap - math.log(theta))
    b_wins = functional.logsigmoid(-gap - math.log(theta))
    tie = a_wins + b_wins + (math.log(theta**2 - 1) if theta > 1 else -math.inf)
    return a_wins, tie, b_wins


def bradley_terry(score_a: Each, score_b: Each, outcome: Int[Tensor, " b"], theta: float = 5.0) -> Each:
    """Negative log-likelihood of comparisons, ties included.

    Args:
        score_a: of the first item.
        score_b: of the second item.
        outcome: 1 where a won, 0 for a tie, -1 where b won.
        theta: as in `outcome_log_probs`.

    Raises:
        ValueError: for other outcomes, or ties with theta = 1, which rules them out.
    """
    if bool((outcome.abs() > 1).any()):
        raise ValueError("an outcome must be 1 (a won), 0 (tie) or -1 (b won)")
    if theta == 1 and bool((outcome == 0).any()):
        raise ValueError("theta = 1 leaves no room for ties, but there is one; use a larger theta")
    a_wins, tie, b_wins = outcome_log_probs(score_a, score_b, theta)
    decided = a_wins.where(outcome > 0, b_wins)
    return -tie.where(outcome == 0, decided) if theta > 1 else -decided
