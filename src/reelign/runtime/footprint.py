"""What a training stage holds on its device, in bytes by name, before any weight is read."""

import math
from dataclasses import dataclass

from reelign.outline import Outline, passes, size
from reelign.runtime.learner import LearnerConfig


@dataclass(frozen=True, slots=True)
class Burden:
    """What a stage asks of the device beside its learner's state."""

    texts: int
    """Different texts whose features lie there at once, the one that guidance leads away from included."""
    latents: int
    """Tensors of a latent's size: the clips themselves, their noises, recorded steps."""
    rows: int
    """Samples of one forward pass, guidance's second branch included."""
    roles: int = 0
    """Frozen copies of what trains."""
    graphs: int = 1
    """Forward passes whose graphs are alive at once."""


def model(outline: Outline) -> dict[str, int]:
    """Of the model itself; what trains is an adapter where the rest of the network does not."""
    trains, still = _trains(outline), size(p for p in outline.network.parameters() if not p.requires_grad)
    return {**({"network": still, "adapter": trains} if still else {"network": trains}), **outline.beside}


def kept(outline: Outline, learner: LearnerConfig, burden: Burden) -> dict[str, int]:
    """Of a stage that trains, all along: AdamW's two moments and averages are as large as what trains."""
    trains = _trains(outline)
    sizes = {
        "moments": 2 * trains,
        "averages": trains if learner.ema else 0,
        "frozen copies": burden.roles * trains,
        "latents": burden.latents * 4 * math.prod(outline.inputs(1)[0]),
        "texts": burden.texts * outline.text,
    }
    return {name: held for name, held in sizes.items() if held}


def working(outline: Outline, burden: Burden) -> dict[str, int]:
    """Of an update under way: the most that a forward and backward pass needs, gradients included.

    `graphs` is what waits for its backward pass meanwhile. Workspace of kernels, and the work of text encoder and
    autoencoder, are not counted.
    """
    waiting, most = passes(outline, burden.rows)
    return {"pass": most, **({"graphs": (burden.graphs - 1) * waiting} if burden.graphs > 1 else {})}


def _trains(outline: Outline) -> int:
    return size(p for p in outline.network.parameters() if p.requires_grad)
