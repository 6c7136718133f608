"""`reelign demo`: the main job on two CPU cores, from the packaged generator to a report."""

import os
from pathlib import Path
from typing import Any

import typer

from reelign.cli._console import ACCEPT_CHANGES, OVERRIDES

CLIPS, CLIPS_SEED = 600, 101
"""The clean clips that SFT learns from, and the seed they are drawn with."""
PROMPTS, PROMPTS_SEED = 512, 202
"""The prompts that GRPO and the pairs of DPO learn from."""
JUDGED, HELD_OUT_SEED, FRESH_SEED = 160, 505, 606
"""The prompts that judge. Settings and gate targets were chosen on others (`docs/log.md`)."""


def command(
    out: Path = typer.Option(Path("runs"), "--out", "-o", help="Where the run and its data go."),
    seed: int = typer.Option(0, help="Seed of the run."),
    overrides: list[str] = OVERRIDES,
    resume: bool = typer.Option(False, "--resume", help="Go on with a demo that was interrupted."),
    accept_changes: bool = ACCEPT_CHANGES,
) -> None:
    """Take the packaged tiny generator through SFT, GRPO and DPO, and write a report you can open in a browser."""
    from reelign import config as configs
    from reelign import glance
    from reelign.cli import align

    # One path however `out` is spelled, as a resumed run must read what it began with.
    data = Path(os.path.abspath(os.path.expanduser(out))) / "demo-data"
    run = {"name": f"demo-{seed}" if seed else "demo", "root": str(out), "seed": seed}
    tree = configs.override({**recipe(data), "run": run}, overrides)
    glance.recipe(tree)
    if align.already(tree, resume):
        return
    write_data(data)
    align.finish(tree, resume, accept_changes)


def recipe(data: Path) -> dict[str, Any]:
    """The demo's recipe, reading its data below `data`."""
    import json

    from reelign import config as configs

    text = json.dumps(configs.read(Path(__file__).with_name("demo.yaml")))
    return json.loads(text.replace("{data}", json.dumps(str(data))[1:-1]))


def write_data(folder: Path, clips: int = CLIPS, prompts: int = PROMPTS, judged: int = JUDGED) -> None:
    """Write what the recipe reads, in the formats that users bring; nothing to do if it is all there.

    A folder of clips with captions, a file of training prompts, and a file of prompts to judge by: half of them with
    colour-shape pairs or motion orders that no training stage prompts.
    """
    from reelign.datasets import _write
    from reelign.playground.world import corpora, tables
    from reelign.playground.world.slices import slices

    done = folder / "complete"
    if done.exists():
        return
    if not (folder / "clips").exists():  # it appears whole or not at all
        shown = corpora.instruction(clips, CLIPS_SEED)
        _write.write_clip_folder(folder / "clips", shown.clips, shown.captions, tables.FPS)
    for name, texts in (("prompts", corpora.prompts(prompts, PROMPTS_SEED)), ("held_out", judged_prompts(judged))):
        _write.write_prompts(folder / f"{name}.jsonl", texts, [slices(t) for t in texts])
    done.touch()


def judged_prompts(n: int) -> list[str]:
    """`n` prompts to judge by: half of them hold what training never prompts, half mean what no training caption means.

    They alternate, so that the first ones, whose videos a report shows, are of both kinds.
    """
    from reelign.playground.world import corpora, grammar

    trained = {*corpora.instruction(CLIPS, CLIPS_SEED).scenes}
    trained |= {grammar.parse(text) for text in corpora.prompts(PROMPTS, PROMPTS_SEED)}
    held_out = corpora.prompts(n // 2, HELD_OUT_SEED, held_out=True)
    fresh = [text for text in corpora.prompts(2 * n, FRESH_SEED) if grammar.parse(text) not in trained][: n // 2]
    return [text for pair in zip(held_out, fresh, strict=True) for text in pair]
