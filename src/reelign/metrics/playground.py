"""Does the clip show what the prompt says, and obey its world? Judged by re-rendering, not by what rewards see by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Request, Videos, texts
from reelign.playground.judge import verdict
from reelign.playground.judge.explain import explain, rerender
from reelign.playground.world.wanted import Prompted, pixels, wanted


class Config(Prompted):
    """Nothing to set."""

    name: str = "playground"
    description: ClassVar = {
        "attributes_right": "share of clips whose count, colours, shapes, sizes, background and camera are all right",
        "attribute_score": "share of prompted attributes that are right",
        "motion_right": "share of clips in which every sprite moves in the prompted direction, speed and manner",
        "order_right": "share of 'first ... then ...' prompts whose two halves go where prompted, in that order",
        "physics_ok": "share of clips without teleport, speed jump, change of identity or flicker",
        "physics_residual": "distance of the worst sprite's path from the best lawful one, pixels (rms)",
        "identity_stable": "share of clips whose sprites keep colour, shape and size from beginning to end",
        "flicker_free": "share of clips without a frame that is much darker or brighter than the others",
        "symbol_free": "share of clips in which no frame shows the prohibited symbol",
        "clip_right": "share of clips with nothing wrong: attributes, motion, physics, no prohibited symbol",
        "fidelity_db": "peak signal-to-noise ratio of the clip against its best re-rendering, dB",
    }
    higher_is_better: ClassVar = {name: name != "physics_residual" for name in description}
    version: ClassVar = "1"


@dataclass(frozen=True, slots=True)
class Playground:
    """What the prompt asks for, mechanics whatever it asks for, no prohibited symbol, all of it; how clean it is."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each playground video.

        `order_right` is NaN for prompts without an order; a clip without sprites has no `physics_residual` (NaN) and is
        not `physics_ok`.
        """
        found, asked = explain(videos), wanted(texts(requests))
        attributes, score = verdict.attributes(found, asked)
        motion, physics, clean = verdict.motions(found, asked), verdict.physics_ok(found), verdict.symbol_free(found)
        return {
            "attributes_right": attributes,
            "attribute_score": score,
            "motion_right": motion,
            "order_right": verdict.orders(found, asked),
            "physics_ok": physics,
            "physics_residual": verdict.residuals(found)[0],
            "identity_stable": verdict.identity_stable(found),
            "flicker_free": verdict.flicker_free(found),
            "symbol_free": clean,
            "clip_right": attributes * motion * physics * clean,
            "fidelity_db": verdict.psnr(rerender(found), pixels(videos)),
        }


build = Playground
