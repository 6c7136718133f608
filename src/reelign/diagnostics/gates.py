"""Gates: a stage hands its weights on only if its targets rose and no slice fell, beyond what noise explains.

Both evaluations saw the same prompts and seeds, so differences are paired by clip, and prompts are resampled whole.
"""

import math
from typing import Any

import torch
from torch import Tensor

from reelign.core import stats
from reelign.core.stats import Interval
from reelign.stages._context import GateConfig

Json = dict[str, Any]


def judge(before: Json, after: Json, gate: GateConfig) -> Json:
    """Compare two evaluations (as written by `stages.evaluate`) under a gate.

    Returns:
        verdict ("passed" or "failed"), one sentence why, each target's paired difference, and the slices that fell.
    """
    targets = [_target(name, before, after) for name in gate.targets]
    fallen = _fallen(before, after, gate)
    flat = [t["metric"] for t in targets if not t["rose"]]
    if not flat and not fallen:
        sentence = (
            "rose: "
            + ", ".join(f"{t['metric']} {t['before']:.3f} to {t['after']:.3f}" for t in targets)
            + "; no slice fell."
        )
    else:
        parts = []
        if flat:
            parts.append(f"no gain beyond noise in {', '.join(flat)}")
        if fallen:
            parts.append(
                "worse beyond noise: "
                + ", ".join(f"{f['metric']} on {f['slice']} ({f['difference']:+.3f})" for f in fallen[:4])
            )
        sentence = "; ".join(parts) + ". The weights that entered the stage are kept."
    verdict = "failed" if flat or fallen else "passed"
    return {"verdict": verdict, "sentence": sentence, "targets": targets, "fallen_slices": fallen}


def skipped(reason: str) -> Json:
    """The verdict of a stage without a gate."""
    return {"verdict": "skipped", "sentence": reason, "targets": [], "fallen_slices": []}


def _column(evaluation: Json, name: str) -> Tensor:
    values = [clip["measures"].get(name) for clip in evaluation["clips"]]
    return torch.tensor([math.nan if v is None else float(v) for v in values])


def _difference(
    before: Json, after: Json, name: str, keep: Tensor | None = None, level: float = 0.95
) -> Interval | None:
    """Paired difference, positive is better; None where nothing can be compared."""
    old, new = _column(before, name), _column(after, name)
    known = ~(torch.isnan(old) | torch.isnan(new))
    if keep is not None:
        known &= keep
    if int(known.sum()) < 2:
        return None
    # Enough draws for ten of them to lie in each tail, however narrow many comparisons have made it.
    draws = max(2000, round(20 / (1 - level)))
    sign = 1.0 if after["measures"][name]["higher_is_better"] else -1.0
    groups = torch.tensor([clip["prompt_id"] for clip in after["clips"]])
    return stats.paired_difference(
        sign * new[known], sign * old[known], seed=0, groups=groups[known], level=level, draws=draws
    )


def _target(name: str, before: Json, after: Json) -> Json:
    found = _difference(before, after, name)
    low, high, middle = (found.low, found.high, found.estimate) if found else (0.0, 0.0, 0.0)
    return {
        "metric": name,
        "before": before["measures"][name]["mean"],
        "after": after["measures"][name]["mean"],
        "difference": middle,
        "low": low,
        "high": high,
        "rose": low > 0,
    }


def _fallen(before: Json, after: Json, gate: GateConfig) -> list[Json]:
    """Slices, and the whole set, on which a guard got worse beyond noise.

    Their number widens the interval (Bonferroni): with thirty slices one would fall by chance in most runs.
    """
    slices: dict[str, list[bool]] = {"all": [True] * len(after["clips"])}
    names = {(key, value) for clip in after["clips"] for key, value in clip["slices"].items()}
    for key, value in sorted(names):
        slices[f"{key}={value}"] = [clip["slices"].get(key) == value for clip in after["clips"]]
    judged = {name: torch.tensor(mask) for name, mask in slices.items() if sum(mask) >= gate.min_slice}
    comparisons = max(1, len(judged) * len(gate.guards))
    fallen = []
    for metric in gate.guards:
        for name, mask in judged.items():
            found = _difference(before, after, metric, mask, level=1 - 0.05 / comparisons)
            if found and found.high < 0:
                row = {
                    "slice": name,
                    "metric": metric,
                    "difference": found.estimate,
                    "low": found.low,
                    "high": found.high,
                }
                fallen.append(row)
    return sorted(fallen, key=lambda row: row["difference"])
