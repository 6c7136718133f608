"""Does the clip obey its world's mechanics? Judged by re-rendering, not by the detector that rewards use."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Videos
from reelign.parts import PartConfig
from reelign.playground.judge import verdict
from reelign.playground.judge.explain import explain
from reelign.playground.world.wanted import READS


class Config(PartConfig):
    """Nothing to set."""

    name: str = "playground_physics"


class Physics:
    """Teleports, speed jumps, changes of identity and flicker, whatever the prompt says."""

    reads = READS
    version = "1"
    higher_is_better: Mapping[str, bool] = {
        "physics_ok": True,
        "physics_residual": False,
        "identity_stable": True,
        "flicker_free": True,
    }
    description: Mapping[str, str] = {
        "physics_ok": "share of clips without teleport, speed jump, change of identity or flicker",
        "physics_residual": "distance of the worst sprite's path from the best lawful one, pixels (rms)",
        "identity_stable": "share of clips whose sprites keep colour, shape and size from beginning to end",
        "flicker_free": "share of clips without a frame that is much darker or brighter than the others",
    }

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each playground video; a clip without sprites has no residual (NaN) and is not ok."""
        found = explain(videos)
        return {
            "physics_ok": verdict.physics_ok(found),
            "physics_residual": verdict.residuals(found)[0],
            "identity_stable": verdict.identity_stable(found),
            "flicker_free": verdict.flicker_free(found),
        }


def build(config: Config) -> Physics:
    """The metric."""
    return Physics()
