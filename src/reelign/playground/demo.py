"""What the demo runs and reads: its recipe, and its data in the formats that users bring.

Nothing here imports torch before data is written, for a finished demo is told from its files.
"""

from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign.settings import within

CLIPS, CLIPS_SEED = 600, 101
"""The clean clips that SFT learns from, and the seed they are drawn with."""
PROMPTS, PROMPTS_SEED = 512, 202
"""The prompts that GRPO and the pairs of DPO learn from."""
JUDGED, HELD_OUT_SEED, FRESH_SEED = 160, 505, 606
"""The prompts that judge. Settings and gate targets were chosen on others (`docs/log.md`)."""


def recipe(data: Path) -> dict[str, Any]:
    """The demo's recipe, reading its data below `data`."""
    return within(configs.read(Path(__file__).with_name("demo.yaml")), data, "{data}")


def write_data(folder: Path, clips: int = CLIPS, prompts: int = PROMPTS, judged: int = JUDGED) -> None:
    """Write what the recipe reads, in the formats that users bring; nothing to do if it is all there.

    A folder of clips with captions, a file of training prompts, and a file of prompts to judge by: half of them with
    colour-shape pairs or motion orders that no training stage prompts.
    """
    from reelign.playground import writing
    from reelign.playground.world import corpora, tables
    from reelign.playground.world.slices import slices

    done = folder / "complete"
    if done.exists():
        return
    if not (folder / "clips").exists():  # it appears whole or not at all
        shown = corpora.instruction(clips, CLIPS_SEED)
        writing.write_clip_folder(folder / "clips", shown.clips, shown.captions, tables.FPS)
    for name, texts in (("prompts", corpora.prompts(prompts, PROMPTS_SEED)), ("held_out", judged_prompts(judged))):
        writing.write_prompts(folder / f"{name}.jsonl", texts, [slices(t) for t in texts])
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
