"""Where the sprites of a scene are, frame by frame."""

import random

import numpy as np
from numpy.typing import NDArray

from reelign.playground.world import tables
from reelign.playground.world.scene import Motion, Scene, Sprite

FLOOR = float(tables.HEIGHT)
HIGHEST_DROP = 4.0
"""Pixels below the top of the frame within which a fall begins."""


def fall(start: float, radius: float, frames: int = tables.FRAMES) -> NDArray[np.float64]:
    """Heights [frames] of a sprite dropped at `start`, exact between its bounces off the floor."""
    floor = FLOOR - radius
    y, v, t = start, 0.0, 0.0
    heights = []
    for frame in range(frames):
        while True:
            span = frame - t
            # time until the floor, from y + v s + g s^2 / 2 = floor
            hit = (-v + np.sqrt(v * v + 2 * tables.GRAVITY * max(floor - y, 0.0))) / tables.GRAVITY
            if hit > span or hit < 1e-9:
                break
            t, y, v = t + hit, floor, -tables.RESTITUTION * (v + tables.GRAVITY * hit)
        heights.append(y + v * span + tables.GRAVITY * span * span / 2)
    return np.minimum(np.asarray(heights), floor)


def displacement(motion: Motion) -> NDArray[np.float64]:
    """Displacement [FRAMES, 2] from the first frame of a motion that no wall or floor changes."""
    time = np.arange(tables.FRAMES, dtype=np.float64)[:, None]
    directions = {**tables.DIRECTIONS, "still": (0.0, 0.0)}
    if motion.kind == "move":
        return time * tables.SPEEDS[motion.speed] * np.asarray(directions[motion.direction])
    if motion.kind == "sequence":
        middle = (tables.FRAMES - 1) / 2
        first = np.minimum(time, middle) * np.asarray(directions[motion.direction])
        return tables.SEQUENCE_SPEED * (first + np.maximum(time - middle, 0.0) * np.asarray(directions[motion.then]))
    return np.zeros((tables.FRAMES, 2))


def _lane(scene: Scene, index: int) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) a sprite may use: all of the frame, or its half when there are two."""
    width, height = float(tables.WIDTH), float(tables.HEIGHT)
    if len(scene.sprites) == 1:
        return 0.0, 0.0, width, height
    columns = any(s.motion.direction in ("up", "down") for s in scene.sprites)
    if columns:
        return (0.0, 0.0, width / 2, height) if index == 0 else (width / 2, 0.0, width, height)
    return (0.0, 0.0, width, height / 2) if index == 0 else (0.0, height / 2, width, height)


def _start(rng: random.Random, low: float, high: float) -> float:
    """A place between two bounds where a sprite may start."""
    grid = tables.START_GRID
    return float(grid * rng.randint(-int(-low // grid), int(high // grid)))


def path(sprite: Sprite, box: tuple[float, float, float, float], rng: random.Random) -> NDArray[np.float64]:
    """A path [frames, 2] of the sprite's centre inside `box`, started at random."""
    radius = tables.RADII[sprite.size]
    left, top, right, bottom = box[0] + radius, box[1] + radius, box[2] - radius, box[3] - radius
    motion = sprite.motion
    if motion.kind == "fall":
        heights = fall(_start(rng, top, top + HIGHEST_DROP), radius)
        return np.stack([np.full_like(heights, _start(rng, left, right)), heights], axis=1)
    if motion.kind == "wall":
        hit = rng.randint(2, tables.FRAMES - 4)
        time = np.arange(tables.FRAMES, dtype=np.float64)
        away = np.abs(time - hit) * tables.WALL_SPEED
        x = left + away if motion.direction == "left" else right - away
        return np.stack([np.clip(x, left, right), np.full_like(x, _start(rng, top, bottom))], axis=1)
    moved = displacement(motion)
    low = np.array([left, top]) - moved.min(axis=0)
    high = np.array([right, bottom]) - moved.max(axis=0)
    start = np.array([_start(rng, a, b) for a, b in zip(low, high, strict=True)])
    return start + moved


def paths(scene: Scene, rng: random.Random) -> NDArray[np.float64]:
    """Paths [sprites, frames, 2] of a whole scene; in scenes of two, each sprite keeps to its half of the frame."""
    return np.stack([path(s, _lane(scene, i), rng) for i, s in enumerate(scene.sprites)])
