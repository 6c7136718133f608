"""Does the clip do what the prompt says? Judged by re-rendering, not by the detector that rewards use."""

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

    name: str = "playground_adherence"


class Adherence:
    """Attributes, motion and order of events, each right or wrong."""

    reads = READS
    version = "1"
    higher_is_better: Mapping[str, bool] = {
        "attributes_right": True,
        "attribute_score": True,
        "motion_right": True,
        "order_right": True,
    }
    description: Mapping[str, str] = {
        "attributes_right": "share of clips whose count, colours, shapes, sizes, background and camera are all right",
        "attribute_score": "share of prompted attributes that are right",
        "motion_right": "share of clips in which every sprite moves in the prompted direction, speed and manner",
        "order_right": "share of 'first ... then ...' prompts whose two halves go where prompted, in that order",
    }

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse prompts outside the playground's grammar.

        Raises:
            UnknownCaption: the first of them.
        """
        wanted(prompts)

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each playground video; `order_right` is NaN for prompts without an order."""
        found, asked = explain(videos), wanted(prompts)
        right, score = verdict.attributes(found, asked)
        return {
            "attributes_right": right,
            "attribute_score": score,
            "motion_right": verdict.motions(found, asked),
            "order_right": verdict.orders(found, asked),
        }


def build(config: Config) -> Adherence:
    """The metric."""
    return Adherence()
