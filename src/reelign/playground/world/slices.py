"""Which slices of a report a caption belongs to."""

from reelign.playground.world import grammar
from reelign.playground.world.scene import is_held_out


def _shared(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else "mixed"


def slices(caption: str) -> dict[str, str]:
    """The slices of a caption: shape, color, motion, count, camera, held_out.

    With two sprites, shape, colour and motion are the common one, or "mixed" where they differ (colours always do), so
    that a slice never mixes in a sprite it does not name. Motion is the kind: still, move, wall, fall or sequence.

    Raises:
        UnknownCaption: the caption is outside the playground's grammar.

    >>> slices("A small green triangle falls and bounces on a dark background. The camera pans left.")["held_out"]
    'held-out'
    """
    scene = grammar.parse(caption)
    return {
        "shape": _shared([s.shape for s in scene.sprites]),
        "color": _shared([s.color for s in scene.sprites]),
        "motion": _shared([s.motion.kind for s in scene.sprites]),
        "count": str(len(scene.sprites)),
        "camera": scene.camera,
        "held_out": "held-out" if is_held_out(scene) else "seen",
    }
