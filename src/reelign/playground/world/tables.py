"""Every number of the playground world, once.

Positions are in pixels, x to the right, y down, pixel centres at integers plus one half; one unit of time is one frame
(1/8 s). Colours are RGB in [0, 1]. A sprite's `radius` is half the side of its bounding box.
"""

from types import MappingProxyType

WIDTH = HEIGHT = 32
FRAMES = 9
FPS = 8

RADII = MappingProxyType({"small": 4.0, "large": 8.0})
"""Half the side of the bounding box, in pixels."""

COLORS = MappingProxyType(
    {
        "red": (0.86, 0.16, 0.16),
        "green": (0.20, 0.72, 0.25),
        "blue": (0.18, 0.36, 0.92),
        "yellow": (0.95, 0.84, 0.18),
        "purple": (0.56, 0.24, 0.72),
        "white": (0.97, 0.97, 0.97),
    }
)
BACKGROUNDS = MappingProxyType({"dark": (0.08, 0.08, 0.11), "gray": (0.47, 0.47, 0.47), "teal": (0.04, 0.46, 0.46)})
SHAPES: tuple[str, ...] = ("circle", "square", "triangle")
"""Each fills its bounding box; the triangle is isosceles and stands on its base."""
START_GRID = 4
"""Pixels between the places, along each axis, where a sprite's centre may start."""
COUPLES = 0.25
"""Share of scenes with two sprites."""

DIRECTIONS = MappingProxyType({"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)})
SPEEDS = MappingProxyType({"slowly": 1.0, "quickly": 2.0})
"""Pixels a frame of a directed motion."""
SEQUENCE_SPEED = 2.0
"""Pixels a frame of each half of a "first ... then ..." motion; the halves meet at the middle frame."""
WALL_SPEED = 2.0
"""Pixels a frame of a sprite that bounces off a side wall, elastically."""
GRAVITY = 1.5
"""Pixels a frame squared of a sprite that falls."""
RESTITUTION = 0.8
"""Speed kept when a falling sprite meets the floor."""

CAMERAS = MappingProxyType({"still": 0.0, "left": 1.0, "right": -1.0})
"""Pixels a frame by which the background texture moves to the right; a camera that pans left shows it moving right."""
TEXTURE_PERIOD = 8.0
TEXTURE_AMPLITUDE = 0.10
"""A panned background carries vertical cosine stripes of this period (pixels) and amplitude."""

CROSS_COLOR = (1.0, 0.0, 1.0)
CROSS_HALF_LENGTH = 3.5
CROSS_HALF_WIDTH = 1.0
"""The prohibited symbol: a magenta plus sign, pixels."""

HELD_OUT_PAIRS = frozenset({("green", "triangle"), ("purple", "circle"), ("yellow", "square")})
"""Colour-shape pairs that no training stage ever shows or prompts; pretraining does."""
HELD_OUT_ORDERS = frozenset({("up", "left"), ("right", "down"), ("down", "right")})
"""Orders of a "first ... then ..." motion that no training stage ever shows or prompts; pretraining does."""
