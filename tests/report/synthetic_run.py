"""A synthetic run folder in the format the driver writes, with real (tiny) H.264 clips."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
STAGES = ("sft", "grpo", "dpo")
MEASURES: dict[str, dict[str, Any]] = {
    "attributes_right": {
        "higher_is_better": True,
        "description": "all prompted attributes right",
        "share": {"base": 0.41, "sft": 0.60, "grpo": 0.75, "dpo": 0.82},
    },
    "motion_right": {
        "higher_is_better": True,
        "description": "every sprite moves as prompted",
        "share": {"base": 0.38, "sft": 0.52, "grpo": 0.74, "dpo": 0.76},
    },
    "order_right": {
        "higher_is_better": True,
        "description": "both halves of a sequence, in order",
        "share": {"base": 0.30, "sft": 0.34, "grpo": 0.52, "dpo": 0.50},
    },
    "physics_violation": {
        "higher_is_better": False,
        "description": "teleports, speed jumps, morphs or flickers",
        "share": {"base": 0.33, "sft": 0.12, "grpo": 0.09, "dpo": 0.08},
    },
    "prohibited_symbol": {
        "higher_is_better": False,
        "description": "shows the magenta cross",
        "share": {"base": 0.05, "sft": 0.03, "grpo": 0.0, "dpo": 0.0},
    },
    "diversity": {"higher_is_better": True, "description": "mean distance between clips of one prompt", "score": True},
    "sharpness": {
        "higher_is_better": True,
        "description": "energy of the Laplacian",
        "score": True,
        "trained_on": True,
    },
}


def write_video(path: Path, frames: Frames, fps: int = 8) -> None:
    """Encode [f H W 3] as H.264 yuv420p."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def square_video(prompt_id: int, member: int, label: str) -> Frames:
    """A square that moves to the right: 5 frames of 32 x 32."""
    del member, label
    frames = np.full((5, 32, 32, 3), 20, dtype=np.uint8)
    for k, frame in enumerate(frames):
        frame[8:16, 2 + 3 * k : 10 + 3 * k] = (200, 40 + prompt_id % 200, 40)
    return frames


def summary(values: list[float | None], about: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's entry for one measure; the interval is rough, as the page only shows it."""
    kept = [v for v in values if v is not None]
    mean = sum(kept) / len(kept) if kept else None
    half = 0.5 / max(len(kept), 1) ** 0.5
    return {
        "mean": mean,
        "low": None if mean is None else max(mean - half, 0.0),
        "high": None if mean is None else min(mean + half, 1.0),
        "n": len(kept),
        "higher_is_better": about.get("higher_is_better", True),
        "description": about.get("description", ""),
        "trained_on": about.get("trained_on", False),
    }


def evaluation(
    label: str, clips: list[dict[str, Any]], measures: dict[str, dict[str, Any]], **more: object
) -> dict[str, Any]:
    """An evaluation file's content from its clips."""
    return {
        "label": label,
        "checkpoint": f"checkpoints/{label}",
        "sampler": {"name": "s10g3", "steps": 10, "shift": 3.0, "guidance": 3.0},
        "members": 1 + max(clip["member"] for clip in clips),
        "measures": {m: summary([c["measures"].get(m) for c in clips], about) for m, about in measures.items()},
        "clips": clips,
        **more,
    }


def write_evaluation(folder: Path, content: dict[str, Any]) -> None:
    """Put an evaluation into a run folder."""
    target = folder / "evaluations" / f"{content['label']}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content), encoding="utf-8")


def ledger_row(index: int, stage: str) -> dict[str, Any]:
    """One stage as the driver records it."""
    online = stage == "grpo"
    return {
        "stage": stage,
        "index": index,
        "kind": "online" if online else "offline",
        "method": stage,
        "steps": {"sft": 150, "grpo": 120, "dpo": 80}.get(stage, 10),
        "entering": "base" if index == 0 else f"checkpoints/{STAGES[(index - 1) % 3]}/step_150",
        "leaving": f"checkpoints/{stage}/step_150",
        "dataset": {"name": "playground", "corpus": {"sft": "instruction", "dpo": "pairs"}.get(stage, "prompts")},
        "rewards": {"motion": {"weight": 1.0, "version": "1"}, "sharpness": {"weight": 0.5, "version": "2"}}
        if online
        else {},
        "prompts": 480,
        "rollouts": 3840 if online else 0,
        "pairs": 640 if stage == "dpo" else 0,
        "note": "preferences are simulated by a scripted annotator with 10 % noise" if stage == "dpo" else None,
        "started": "2026-11-20T09:15:00+00:00",
        "wall_s": {"sft": 81.2, "grpo": 412.0, "dpo": 96.5}.get(stage, 1.0),
        "gate": {
            "verdict": "passed",
            "sentence": "Attributes right rose, and no slice fell.",
            "targets": [
                {
                    "metric": "attributes_right",
                    "before": 0.41 + 0.15 * index,
                    "after": 0.60 + 0.11 * index,
                    "difference": 0.19 - 0.04 * index,
                    "low": 0.11 - 0.03 * index,
                    "high": 0.27 - 0.05 * index,
                    "rose": True,
                }
            ],
            "fallen_slices": [],
        },
    }


def change_ledger(folder: Path, stage: str, **more: object) -> None:
    """Say more, or something else, of a finished stage."""
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    rows = [row | more if row["stage"] == stage else row for row in rows]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(folder: Path, stages: tuple[str, ...] = STAGES) -> None:
    """The resolved recipe of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "run": {"name": folder.name, "seed": 0},
        "model": {"name": "wan", "weights": "packaged:tiny", "adapter": {"name": "lora", "rank": 16}},
        "stages": [
            {"name": "offline" if s != "grpo" else "online", "steps": 100, "method": {"name": s}} for s in stages
        ],
        "evaluate": {"every": 50, "metrics": [{"name": "playground"}]},
    }
    content = {"hash": "c0ffee" * 8, "config": config, "version": "0.1.0"}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def metric_rows(rng: random.Random) -> list[dict[str, Any]]:
    """What the optimizer steps of three stages report."""
    rows: list[dict[str, Any]] = [
        {
            "stage": "sft",
            "step": step,
            "wall_s": 0.5,
            "offline/loss": 0.55 * 0.985**step + 0.35 + rng.gauss(0, 0.025),
            "offline/grad_norm": 0.8 + abs(rng.gauss(0, 0.25)),
        }
        for step in range(150)
    ]
    for step in range(120):
        level = 0.35 + 0.4 * (1 - 0.975**step)
        rows.append(
            {
                "stage": "grpo",
                "step": step,
                "wall_s": 3.4,
                "online/reward": level + rng.gauss(0, 0.035),
                "online/reward/motion": level * 0.9 + rng.gauss(0, 0.05),
                "online/reward/sharpness": level * 0.4 + rng.gauss(0, 0.03),
                "online/spread/motion": 0.2 + abs(rng.gauss(0, 0.03)),
                "online/ratio_mean": 1 + rng.gauss(0, 1e-4),
                "online/clip_frac": min(max(0.12 + rng.gauss(0, 0.04), 0), 1),
                "online/ratio_max_dev": abs(rng.gauss(0, 2e-4)),
                "online/grad_norm": float("nan") if step == 60 else 0.02 + abs(rng.gauss(0, 0.01)),
                "online/step_kl": 1e-4 * step**0.8 + abs(rng.gauss(0, 2e-4)),
                "rollout/wall_s": 2.6 + abs(rng.gauss(0, 0.15)),
            }
        )
    rows += [
        {
            "stage": "dpo",
            "step": step,
            "wall_s": 1.1,
            "offline/loss": 0.693 - 0.22 * (1 - 0.97**step) + rng.gauss(0, 0.02),
            "offline/implicit_accuracy": min(0.5 + 0.3 * (1 - 0.95**step) + rng.gauss(0, 0.05), 1.0),
        }
        for step in range(80)
    ]
    return rows


def write_run(
    folder: Path,
    *,
    prompts: list[tuple[str, dict[str, str]]] | None = None,
    stages: tuple[str, ...] = STAGES,
    members: int = 2,
    videos: int = 4,
    video: Callable[[int, int, str], Frames] = square_video,
) -> Path:
    """Fill a run folder; the first `videos` prompts keep their clips."""
    rng = random.Random(0)
    if prompts is None:
        colors, motions = ("red", "green", "blue"), ("move", "fall", "still")
        prompts = [
            (
                f"A small {colors[i % 3]} circle, number {i}.",
                {
                    "color": colors[i % 3],
                    "motion": motions[i // 3 % 3],
                    "held_out": "held-out" if i % 4 == 0 else "seen",
                },
            )
            for i in range(24)
        ]
    write_config(folder)
    with (folder / "ledger.jsonl").open("w") as file:
        file.writelines(json.dumps(ledger_row(i, stage)) + "\n" for i, stage in enumerate(stages))
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in metric_rows(rng) if row["stage"] in stages)
    luck = {(p, m, name): rng.random() for p in range(len(prompts)) for m in range(members) for name in MEASURES}
    for label in ("base", *stages):
        clips = []
        for p, (text, slices) in enumerate(prompts):
            for m in range(members):
                measures: dict[str, float | None] = {}
                for name, about in MEASURES.items():
                    if "share" in about:
                        drawn = 0.7 * luck[p, m, name] + 0.3 * rng.random()
                        measures[name] = float(drawn < about["share"][label])
                    else:
                        measures[name] = round(0.4 + 0.2 * luck[p, 0, name] + rng.gauss(0, 0.02), 4)
                if slices.get("motion") != "sequence" and p % 3:
                    measures["order_right"] = None
                name = f"samples/{label}/{p:04d}-{m}.mp4" if p < videos else None
                if name:
                    write_video(folder / name, video(p, m, label))
                clips.append(
                    {
                        "prompt": text,
                        "prompt_id": p,
                        "member": m,
                        "seed": 1000 * p + m,
                        "slices": slices,
                        "measures": measures,
                        "video": name,
                    }
                )
        write_evaluation(folder, evaluation(label, clips, MEASURES))
    return folder


GUIDED = {"name": "guided", "steps": 16, "shift": 3.0, "guidance": 3.0}


def judge_guided(folder: Path, *, prompts: int = 12, share: float = 0.9) -> None:
    """Judge a run under a further sampler too, on its first prompts, a share of which is right at all stages."""
    (folder / "samples").mkdir(exist_ok=True)
    for path in sorted((folder / "evaluations").glob("*.json")):
        content = json.loads(path.read_text())
        clips = [clip for clip in content["clips"] if clip["prompt_id"] < prompts]
        for index, clip in enumerate(clips):
            shares = {m: float((index * 7 + 3) % 10 < 10 * share) for m, a in MEASURES.items() if "share" in a}
            clip["measures"] |= {m: value for m, value in shares.items() if clip["measures"].get(m) is not None}
            if clip["video"]:
                name = clip["video"].replace(f"samples/{path.stem}/", f"samples/{path.stem}@guided/")
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes((folder / clip["video"]).read_bytes())
                clip["video"] = name
        told = evaluation(content["label"], clips, MEASURES, sampler=GUIDED)
        path.with_name(f"{path.stem}@guided.json").write_text(json.dumps(told), encoding="utf-8")
