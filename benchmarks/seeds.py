"""The demo over several seeds: final against base under each sampler, with 95 % intervals, bar by bar.

Each seed trains anew and draws its own evaluation noise, so that the base is judged on as many different clips as the
final model. Clips are paired, and whole prompts are resampled over all seeds at once.

    python benchmarks/seeds.py [--seeds 3] [--out runs/seeds] [--set key=value ...]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reelign.core import stats
from reelign.diagnostics import gates
from reelign.records import Evaluation, judged_as
from reelign.stage import GateConfig
from reelign.stages.evaluate import Sampler

Json = dict[str, Any]

FAILURES = ("attributes_right", "physics_ok", "symbol_free", "motion_right", "clip_right")
"""Measures whose failures (1 - mean) are compared."""
ALLOWED = {
    "": {"attributes_right": 1 / 3, "physics_ok": 1 / 2, "symbol_free": 1 / 4},
    "guided": {"clip_right": 0.6},
}
"""The largest allowed ratio of final to base of a measure's failures, by sampler; the main one has no name here."""
DIVERSITY = 0.9
GUARDS = ("attributes_right", "motion_right", "physics_ok")


def pooled(evaluations: list[Json]) -> Json:
    """Evaluations of several seeds as one; a prompt keeps its id, so that its clips stay together."""
    return {**evaluations[0], "clips": [clip for evaluation in evaluations for clip in evaluation["clips"]]}


def column(evaluation: Json, name: str) -> torch.Tensor:
    """A measure's value for each clip."""
    return torch.tensor([float(clip["measures"][name]) for clip in evaluation["clips"]])


def ratio(base: torch.Tensor, final: torch.Tensor, groups: torch.Tensor, draws: int = 4000) -> stats.Interval:
    """Ratio of means with a percentile bootstrap that resamples whole prompts."""
    names, index = groups.unique(return_inverse=True)
    sums = [torch.zeros(len(names)).index_add_(0, index, v) for v in (base, final)]
    chosen = torch.randint(len(names), (draws, len(names)), generator=torch.Generator().manual_seed(0))
    ratios = sums[1][chosen].sum(dim=1) / sums[0][chosen].sum(dim=1).clamp_min(1e-9)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975])).tolist()
    return stats.Interval(float(final.mean() / base.mean().clamp_min(1e-9)), low, high)


def bars(base: Json, final: Json, limits: Mapping[str, float]) -> list[Json]:
    """Each bar: base, final, their ratio with its interval, what is allowed, and whether the ratio holds it."""
    groups = torch.tensor([clip["prompt_id"] for clip in base["clips"]])
    rows = []
    for name in FAILURES:
        before, after = 1 - column(base, name), 1 - column(final, name)
        found, allowed = ratio(before, after, groups), limits.get(name)
        held = None if allowed is None else found.estimate <= allowed
        rows.append((f"failures of {name}", before, after, found, allowed, held))
    before, after = column(base, "diversity"), column(final, "diversity")
    found = ratio(before, after, groups)
    rows.append(("diversity", before, after, found, DIVERSITY, found.estimate >= DIVERSITY))
    return [
        {"measure": name, "base": float(b.mean()), "final": float(f.mean()), "allowed": allowed, "held": held}
        | found._asdict()
        for name, b, f, found, allowed, held in rows
    ]


def run_seed(seed: int, out: Path, overrides: list[str]) -> Path:
    """The demo's folder for a seed; runs it, or goes on with it, where it is not complete."""
    run = out / (f"demo-{seed}" if seed else "demo")  # as `reelign demo` names them
    if not (run / "report.html").exists():
        command = [sys.executable, "-m", "reelign.cli", "demo", "--seed", str(seed), "--out", str(out)]
        resume = ["--resume"] if (run / "config.json").exists() else []
        settings = [f"--set={o}" for o in (f"evaluate.seed={seed}", *overrides)]
        subprocess.run([*command, *resume, *settings], check=True)
    return run


def ledger(run: Path) -> list[Json]:
    """The rows of a run's ledger."""
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def evaluation(run: Path, label: str, sampler: str = "") -> Json:
    """One of a run's evaluations, under a further sampler if one is named."""
    return json.loads((run / "evaluations" / f"{judged_as(label, sampler)}.json").read_text())


def samplers(run: Path) -> list[str]:
    """Names of all samplers that a run is judged under: nothing for the main one, which comes first."""
    asked = json.loads((run / "config.json").read_text())["config"]["evaluate"]["samplers"]
    return ["", *(Sampler.model_validate(each).called for each in asked[1:])]


def final_label(run: Path) -> str:
    """The evaluation that describes a run's final weights: the last stage whose gate did not fail."""
    kept = [row["stage"] for row in ledger(run) if row["gate"]["verdict"] != "failed"]
    kept = [label for label in kept if (run / "evaluations" / f"{label}.json").exists()]
    return kept[-1] if kept else "base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    runs = [run_seed(seed, options.out, options.set) for seed in range(options.seeds)]
    under = samplers(runs[0])
    bases = [pooled([evaluation(run, "base", sampler) for run in runs]) for sampler in under]
    finals = [pooled([evaluation(run, final_label(run), sampler) for run in runs]) for sampler in under]
    judged = ([Evaluation.model_validate(each) for each in ends] for ends in (bases, finals))
    verdict = gates.judge(*judged, GateConfig(targets=("attributes_right",), guards=GUARDS))
    stages = [
        {"seed": seed, "stage": row["stage"], "wall_s": round(row["wall_s"], 1)}
        | {"gate": row["gate"]["verdict"], "sentence": row["gate"]["sentence"]}
        for seed, run in enumerate(runs)
        for row in ledger(run)
    ]
    result = {"seeds": options.seeds, "final": [final_label(run) for run in runs]}
    result["bars"] = {
        base["sampler"]["name"]: bars(base, final, ALLOWED.get(sampler, {}))
        for sampler, base, final in zip(under, bases, finals, strict=True)
    }
    result |= {"fallen_slices": [fell.model_dump() for fell in verdict.fallen_slices], "stages": stages}
    (options.out / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
