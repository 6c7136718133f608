"""Whether a shortened demo of this tree takes longer than that of another one: seconds by stage, run by turns.

A machine that others use drifts by more than the difference that is looked for, so the two take turns, each first as
often as the other, and what is compared is pair by pair. A ratio whose interval holds 1 is no difference.

    git worktree add --detach ../before COMMIT
    python benchmarks/paired.py ../before [--pairs 4]
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHORT = (
    "stages.0.steps=40",
    "stages.1.steps=8",
    "stages.2.prompts=32",
    "stages.3.steps=15",
    "evaluate.members=1",
    "evaluate.videos=2",
)
T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36}
"""Student's t for a 95 % interval, by the number of pairs."""


def run(tree: Path) -> dict[str, float]:
    """Wall seconds of each stage and of the whole, and processor seconds of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [word for setting in SHORT for word in ("--set", setting)]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "reelign.cli", "demo", "--out", folder, *settings],
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            check=True,
            capture_output=True,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        rows = [json.loads(line) for line in (Path(folder) / "demo" / "ledger.jsonl").read_text().splitlines()]
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**{row["stage"]: row["wall_s"] for row in rows}, "whole": wall, "whole, processor": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a tree with src/")
    parser.add_argument("--pairs", type=int, default=4, choices=sorted(T))
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    pairs = []
    for number in range(options.pairs):
        trees = (here, options.other.resolve())
        found = {tree: run(tree) for tree in (trees if number % 2 == 0 else trees[::-1])}
        pairs.append(tuple(found[tree] for tree in trees))
        print(f"pair {number + 1}: {pairs[-1][0]['whole']:.1f} s here, {pairs[-1][1]['whole']:.1f} s there", flush=True)
    for name in pairs[0][0]:
        logs = [math.log(own[name] / other[name]) for own, other in pairs]
        half = T[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
        middle = statistics.fmean(logs)
        low, high = math.exp(middle - half), math.exp(middle + half)
        print(f"{name:18} {math.exp(middle):.3f} times ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
