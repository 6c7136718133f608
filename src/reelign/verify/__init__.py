"""Closed-form verification: the library's formulas against problems whose answers are known exactly.

Every check calls `reelign.core` and compares with a number that does not come from it. The whole suite runs on a CPU
within seconds; ``reelign verify`` prints it.
"""

from collections.abc import Callable, Collection

from reelign.verify import chains, emphasis, forward, losses, preferences, steps, tilts
from reelign.verify.result import Check, Result, distance, judge

__all__ = ["GROUPS", "Check", "Result", "run", "table"]

GROUPS: dict[str, Callable[[], list[Check]]] = {
    "schedule": steps.tables,
    "transition": steps.transitions,
    "marginals": steps.marginals,
    "flow": tilts.paths,
    "tilt": tilts.tilts,
    "chain": chains.optima,
    "deployment": chains.deployment,
    "gradient": chains.gradients,
    "preference": preferences.examples,
    "preference fixed points": preferences.fixed_points,
    "forward loss": forward.examples,
    "forward fixed points": forward.fixed_points,
    "advantage": losses.advantages,
    "policy loss": losses.surrogate,
    "trust": emphasis.trusting,
    "pacing": emphasis.pace,
    "balance": emphasis.balance,
    "allocation": emphasis.allocate,
    "weighting": losses.weights,
    "reward loss": losses.comparisons,
    "stats": losses.summaries,
}
"""Group name to the function that lists its checks, in the order of the report."""


def run(only: Collection[str] = GROUPS) -> list[Result]:
    """Run the closed-form suite.

    Args:
        only: names of groups to run; all of them by default.

    Returns:
        One result per check, failed ones included; nothing is raised for a failure.

    Raises:
        ValueError: for an unknown group.
    """
    unknown = sorted(set(only) - GROUPS.keys())
    if unknown:
        raise ValueError(f"there is no group called {unknown[0]!r}; use some of {', '.join(GROUPS)}")
    return [judge(group, check) for group, checks in GROUPS.items() if group in only for check in checks()]


def table(results: list[Result]) -> str:
    """Results as plain text: one line per check with its worst number, and a verdict at the end."""
    lines, group = [], None
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        if result.group != group:
            group = result.group
            lines += ([""] if lines else []) + [group]
        lines.append(f"  {'ok  ' if result.passed else 'FAIL'}  {result.name:<{width}}  {_worst(result)}")
    failed = sum(not result.passed for result in results)
    verdict = f"{failed} of {len(results)} checks failed" if failed else f"all {len(results)} checks passed"
    return "\n".join([*lines, "", verdict])


def _worst(result: Result) -> str:
    if result.error is not None:
        return result.error
    if len(result.expected) != len(result.measured):
        return f"expected {len(result.expected)} numbers, got {len(result.measured)}"
    pairs = zip(result.expected, result.measured, strict=True)
    expected, measured = max(pairs, key=lambda pair: distance(*pair))
    return f"expected {expected:.8g}, got {measured:.8g} (tolerance {result.tolerance:.1g}; {result.source})"
