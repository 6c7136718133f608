"""Is nothing wrong with the clip? The other measures' judgement in one: what a user would keep."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Videos
from reelign.parts import PartConfig
from reelign.playground.judge import verdict
from reelign.playground.judge.explain import explain
from reelign.playground.world.wanted import READS, wanted


class Config(PartConfig):
    """Nothing to set."""

    name: str = "playground_clip"


class Clip:
    """Attributes, motion and physics right, and no prohibited symbol."""

    reads = READS
    version = "1"
    higher_is_better: Mapping[str, bool] = {"clip_right": True}
    description: Mapping[str, str] = {
        "clip_right": "share of clips with nothing wrong: attributes, motion, physics, no prohibited symbol"
    }

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse prompts outside the playground's grammar.

        Raises:
            UnknownCaption: the first of them.
        """
        wanted(prompts)

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each playground video: 1 or 0."""
        found, asked = explain(videos), wanted(prompts)
        right = verdict.attributes(found, asked)[0] * verdict.motions(found, asked)
        return {"clip_right": right * verdict.physics_ok(found) * verdict.symbol_free(found)}


def build(config: Config) -> Clip:
    """The metric."""
    return Clip()
