"""The demo over several seeds: final against base on held-out prompts, with 95 % intervals, bar by bar.

Each seed also draws its own evaluation noise, so that the base is judged on as many different clips as the final model.

    python benchmarks/seeds.py [--seeds 3] [--out runs/seeds] [--set key=value ...]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from reelign.core import stats

BARS = (
    # measure, failure is 1 - measure, allowed ratio final / base
    ("attributes_right", True, 1 / 3),
    ("physics_ok", True, 1 / 2),
    ("symbol_free", True, 1 / 4),
)
DIVERSITY = 0.9


def evaluations(run: Path) -> dict[str, dict]:
    """Evaluations of a run by label, in stage order."""
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    labels = ["base", *[row["stage"] for row in ledger if (run / "evaluations" / f"{row['stage']}.json").exists()]]
    return {label: json.loads((run / "evaluations" / f"{label}.json").read_text()) for label in labels}


def column(runs: list[dict], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of a measure over all runs, and an id for each prompt of each run."""
    values, groups = [], []
    for index, evaluation in enumerate(runs):
        for clip in evaluation["clips"]:
            value = clip["measures"][name]
            values.append(float("nan") if value is None else float(value))
            groups.append(index * 100_000 + clip["prompt_id"])
    return torch.tensor(values), torch.tensor(groups)


def ratio(
    base: torch.Tensor, final: torch.Tensor, groups: torch.Tensor, seed: int = 0, draws: int = 4000
) -> stats.Interval:
    """Ratio of means with a bootstrap interval that resamples whole prompts."""
    names, index = groups.unique(return_inverse=True)
    sums = [torch.zeros(len(names)).index_add_(0, index, v) for v in (base, final)]
    chosen = torch.randint(len(names), (draws, len(names)), generator=torch.Generator().manual_seed(0))
    ratios = sums[1][chosen].sum(dim=1) / sums[0][chosen].sum(dim=1).clamp_min(1e-9)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975])).tolist()
    return stats.Interval(float(final.mean() / base.mean().clamp_min(1e-9)), low, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    runs = []
    for seed in range(1, options.seeds + 1):
        run = options.out / f"demo-{seed}"
        if not (run / "report.html").exists():
            overrides = [f"evaluate.seed={seed}", *options.set]
            command = [sys.executable, "-m", "reelign.cli", "demo", "--seed", str(seed), "--out", str(options.out)]
            resume = ["--resume"] if (run / "config.json").exists() else []
            subprocess.run([*command, *resume, *[f"--set={o}" for o in overrides]], check=True)
        runs.append(evaluations(run))
    kept = [final_label(options.out / f"demo-{seed}") for seed in range(1, options.seeds + 1)]
    base = [r["base"] for r in runs]
    final = [r[label] for r, label in zip(runs, kept, strict=True)]
    result = {"seeds": options.seeds, "final": kept, "bars": [], "stages": []}
    for name, _, allowed in BARS:
        (b, groups), (f, _) = column(base, name), column(final, name)
        found = ratio(1 - b, 1 - f, groups)
        row = {"measure": name, "base_failures": float((1 - b).mean()), "final_failures": float((1 - f).mean())}
        row |= {
            "ratio": found.estimate,
            "low": found.low,
            "high": found.high,
            "allowed": allowed,
            "held": found.estimate <= allowed,
        }
        result["bars"].append(row)
    (b, groups), (f, _) = column(base, "diversity"), column(final, "diversity")
    found = ratio(b, f, groups)
    result["bars"].append(
        {"measure": "diversity", "base": float(b.mean()), "final": float(f.mean()), "ratio": found.estimate}
        | {"low": found.low, "high": found.high, "allowed": DIVERSITY, "held": found.estimate >= DIVERSITY}
    )
    for seed in range(1, options.seeds + 1):
        for line in (options.out / f"demo-{seed}" / "ledger.jsonl").read_text().splitlines():
            row = json.loads(line)
            gate = row["gate"]
            passed = {"gate": gate["verdict"], "sentence": gate["sentence"]}
            result["stages"].append({"seed": seed, "stage": row["stage"], "wall_s": round(row["wall_s"], 1), **passed})
    (options.out / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def final_label(run: Path) -> str:
    """The evaluation that describes a run's final weights: the last stage whose gate did not fail."""
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    kept = [r["stage"] for r in rows if r["gate"]["verdict"] != "failed"]
    kept = [label for label in kept if (run / "evaluations" / f"{label}.json").exists()]
    return kept[-1] if kept else "base"


if __name__ == "__main__":
    main()
