"""How cleanly is the clip drawn? Its likeness to the nearest picture that the playground's renderer can draw."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Videos
from reelign.parts import PartConfig
from reelign.playground.judge import verdict
from reelign.playground.judge.explain import explain, rerender
from reelign.playground.world.wanted import READS, pixels


class Config(PartConfig):
    """Nothing to set."""

    name: str = "playground_fidelity"


class Fidelity:
    """Smudges, ghosts and noise lower it; what the prompt says does not matter."""

    reads = READS
    version = "1"
    higher_is_better: Mapping[str, bool] = {"fidelity_db": True}
    description: Mapping[str, str] = {
        "fidelity_db": "peak signal-to-noise ratio of the clip against its best re-rendering, dB"
    }

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each playground video; prompts are not read."""
        return {"fidelity_db": verdict.psnr(rerender(explain(videos)), pixels(videos))}


def build(config: Config) -> Fidelity:
    """The metric."""
    return Fidelity()
