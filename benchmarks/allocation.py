"""How much credit an allocation map gives to places where nothing is wrong, on clips whose faults are known.

Two sets of clips, on the latent grid of the packaged generator:

- made: rendered clips with one defect each. What is wrong is known by construction: the difference from the same clip
  without the defect (of a teleport, from the nearer of the two clips that never jump). So the oracle is tested too.
- sampled: what the packaged generator makes of prompts, if the held-out measures find the clip wrong. Where it is wrong
  is what the oracle says, so that its own mass is misplaced only where its faults are too small to count.

A latent element is wrong if the mean fault of the pixels and frames that it stands for exceeds `WRONG`. Printed is the
share of each map's mass on other elements (`core.allocation.misplaced`), lower is better, with 95 % bootstrap
intervals over clips, and the same less that of the uniform map, clip by clip. The maps:

- gradients: ViPO's, of the features that need no download; "grouped" averages it over the frames and pixels that each
  latent element stands for, in place of `core.allocation.to_latent`;
- foreground (made clips only): all that is not background, as features would have it that knew sprites perfectly;
- oracle: the fault itself, grouped; "resized" passes it through `core.allocation.to_latent`.

    python benchmarks/allocation.py [--clips 256] [--seed 0] [--guidance 3.0]
"""

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from reelign import config as configs
from reelign import parts, sampling
from reelign.backbones import gradients
from reelign.batches import Videos, requests
from reelign.cli._console import table
from reelign.core import allocation, rng, stats
from reelign.metrics import playground
from reelign.playground.oracle.fault import fault, pooled
from reelign.playground.world import corpora, grammar, render, tables
from reelign.playground.world.defects import DEFECTS, Defect, add_cross, break_clip
from reelign.playground.world.scene import Scene, sample

WRONG = 0.02
"""Mean fault from which a latent element is wrong; one pixel in fifty is as wrong as can be, in all frames."""
VISIBLE = 0.05
"""Colour difference, summed over channels, from which a pixel is not background."""
KINDS = (*DEFECTS, "cross", "color")
FREE = ("still", "move", "sequence")
"""Motions that may start anywhere; those that meet a wall or the floor are tied to it."""

Grid = tuple[int, int, int]


def candidates(videos: Videos, prompts: list[str], grid: Grid) -> dict[str, Tensor]:
    """The maps [b f h w] under test."""
    features = gradients.build(gradients.Config(), torch.device("cpu"))(videos)
    importance, faults = allocation.structure(features), fault(videos, prompts)
    return {
        "uniform": torch.ones(len(videos), *grid),
        "gradients": allocation.to_latent(importance, grid),
        "gradients, grouped": allocation.stretched(pooled(importance, grid)),
        "oracle": allocation.stretched(pooled(faults, grid)),
        "oracle, resized": allocation.to_latent(faults, grid, smooth=0),
    }


def _recolor(drawing: render.Drawing, index: int, source: random.Random) -> None:
    others = [c for c in render.COLOR_TABLE if not any(torch.equal(c, own) for own in drawing.color[index, :, 0])]
    drawing.color[index, 0] = source.choice(others)


def _changed(drawing: render.Drawing, index: int, kind: str, source: random.Random) -> None:
    if kind == "cross":
        add_cross(drawing, index, source)
    elif kind == "color":
        _recolor(drawing, index, source)
    else:
        break_clip(drawing, index, cast(Defect, kind), source)


def _moved_throughout(scene: Scene, before: Tensor, after: Tensor) -> Tensor:
    """Paths [2 f 2] of the clip that was always where a teleport ends, if that is a lawful clip, else those before."""
    lawful = all(s.motion.kind in FREE for s in scene.sprites)
    shifted = before + (after - before)[:, -1:]
    radius = torch.tensor([tables.RADII[s.size] for s in scene.sprites])[:, None]
    own = shifted[: len(scene.sprites)]
    sides = (own[..., 0] - radius, tables.WIDTH - radius - own[..., 0])
    ends = (own[..., 1] - radius, tables.HEIGHT - radius - own[..., 1])
    return shifted if lawful and all(bool((gap >= 0).all()) for gap in (*sides, *ends)) else before


@dataclass(frozen=True, slots=True)
class Made:
    """Clips with one defect each; faults and foreground [b F H W] are known by construction."""

    videos: Videos
    prompts: list[str]
    faults: Tensor
    foreground: Tensor
    kinds: list[str]


def made(n: int, seed: int) -> Made:
    source = random.Random(seed)
    scenes = [sample(source) for _ in range(n)]
    kinds = [KINDS[i % len(KINDS)] for i in range(n)]
    drawing = render.layout(scenes, source)
    right, paths = render.draw(drawing), drawing.position.clone()
    for index, kind in enumerate(kinds):
        _changed(drawing, index, kind, source)
    clips = render.draw(drawing)
    late = render.layout(scenes, random.Random(seed))
    for index, scene in enumerate(scenes):
        late.position[index] = _moved_throughout(scene, paths[index], drawing.position[index])
    late.stripes = drawing.stripes
    twins = torch.stack([right, render.draw(late)])
    faults = (twins - clips).abs().sum(dim=3).clamp_max(1)
    other = (faults[1] > 0).sum(dim=(1, 2, 3)) < (faults[0] > 0).sum(dim=(1, 2, 3))
    jumped = other & torch.tensor([kind == "teleport" for kind in kinds])
    known = torch.where(jumped[:, None, None, None], faults[1], faults[0])
    empty = (render.background(drawing) * drawing.gain[:, :, None, None, None]).clamp(0, 1)
    foreground = ((clips - empty).abs().sum(dim=2) > VISIBLE).float()
    prompts = [grammar.caption(s, source) for s in scenes]
    return Made(Videos(clips, float(tables.FPS)), prompts, known, foreground, kinds)


def sampled(n: int, seed: int, guidance: float) -> tuple[Videos, list[str], Grid]:
    """What the packaged generator makes of `n` prompts, and its latent grid."""
    model = parts.build("model", configs.part("model", {"name": "wan"}), torch.device("cpu"))
    sampler = configs.validate(sampling.SamplerConfig, {"steps": 16, "shift": 3.0, "guidance": guidance})
    prompts = list(corpora.prompts(n, seed))
    seeds = [rng.seed_for(seed, "allocation", i) for i in range(n)]
    return sampling.videos(model, requests(prompts), seeds, sampler), prompts, model.geometry.latent[1:]


def judged(maps: Mapping[str, Tensor], faults: Tensor, grid: Grid) -> tuple[dict[str, Tensor], Tensor]:
    """The misplaced share [b] of each map, and which clips [b] have anything wrong."""
    truth = pooled(faults, grid)
    truth = truth * (truth > WRONG)
    shares = {name: allocation.misplaced(values, truth) for name, values in maps.items()}
    return shares, truth.sum(dim=(1, 2, 3)) > 0


def _interval(values: Tensor, seed: int) -> list[float]:
    return [round(v, 4) for v in stats.over_prompts(values.tolist(), range(len(values)), seed=seed)]


def summary(shares: Mapping[str, Tensor], chosen: Tensor, seed: int) -> dict[str, dict[str, list[float]]]:
    """Means with intervals: of each map, and of each map less the uniform one."""
    base = shares["uniform"][chosen]
    return {
        name: {
            "misplaced": _interval(values[chosen], seed),
            "against_uniform": _interval(values[chosen] - base, seed),
        }
        for name, values in shares.items()
    }


def text(values: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=3.0)
    options = parser.parse_args()
    videos, prompts, grid = sampled(options.clips, options.seed, options.guidance)
    own = made(options.clips, options.seed)
    maps = candidates(own.videos, own.prompts, grid)
    maps["foreground, grouped"] = allocation.stretched(pooled(own.foreground, grid))
    shares, wrong = judged(maps, own.faults, grid)
    sets = {"made": (shares, wrong)}
    sets |= {f"made: {kind}": (shares, wrong & torch.tensor([k == kind for k in own.kinds])) for kind in KINDS}
    shares, wrong = judged(candidates(videos, prompts, grid), fault(videos, prompts), grid)
    right = playground.build(playground.Config())(videos, requests(prompts))["clip_right"] > 0
    sets["sampled"] = (shares, wrong & ~right)
    result: dict = {"options": vars(options), "wrong_from": WRONG, "sampled_wrong": int((~right).sum())}
    result |= {
        "sampled_wrong_nowhere": int((~right & ~wrong).sum()),
        "sampled_right_wrong_somewhere": int((right & wrong).sum()),
    }
    lines = []
    for label, (values, chosen) in sets.items():
        if not bool(chosen.any()):
            continue
        found, count = summary(values, chosen, options.seed), int(chosen.sum())
        result[label] = {"clips": count, "maps": found}
        lines += [[label, count, name, text(v["misplaced"]), text(v["against_uniform"])] for name, v in found.items()]
    print(table(["set", "clips", "map", "misplaced", "less uniform"], lines))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
