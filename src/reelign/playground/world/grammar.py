"""The playground's captions: scene -> words -> scene, the identity on meaning.

    caption  := [place ","] subject " " motion [" and " subject " " motion] [" " place] "." [" " camera "."]
    subject  := "a" size color shape            size   := small | little | large | big
    place    := "on a" background "background"  shape  := circle | ball | square | box | triangle
    motion   := still | move | wall | fall | "first" part "then" part
    move     := ("moves" | "slides") direction speed | ("moves" | "slides") speed direction
    speed    := slowly | gently | quickly | fast
    camera   := "the camera" ("pans" | "turns") (left | right) | "the camera is still" | nothing

The place stands once, before or after the subjects. Words that mean the same are listed once, below; the first of each
list is the canonical one.
"""

import random
import re
from collections.abc import Callable

from reelign.errors import UserError
from reelign.playground.world import tables
from reelign.playground.world.scene import Motion, Scene, Sprite

SIZES = {"small": ("small", "little"), "large": ("large", "big")}
SHAPES = {"circle": ("circle", "ball"), "square": ("square", "box"), "triangle": ("triangle",)}
VERBS = ("moves", "slides")
SPEEDS = {"slowly": ("slowly", "gently"), "quickly": ("quickly", "fast")}
STILL = ("stays still", "does not move")
FALL = ("falls and bounces", "drops and bounces off the floor")
WALL = ("bounces off the {} wall", "hits the {} wall and comes back")
PANS = ("pans", "turns")
CAMERA_STILL = ("", "The camera is still.")

Choose = Callable[[tuple[str, ...]], str]


class UnknownCaption(UserError):
    """A caption that the playground's grammar cannot read."""


def _part(direction: str, choose: Choose) -> str:
    return choose(STILL) if direction == "still" else f"{choose(VERBS)} {direction}"


def _motion(motion: Motion, choose: Choose) -> str:
    if motion.kind == "still":
        return choose(STILL)
    if motion.kind == "fall":
        return choose(FALL)
    if motion.kind == "wall":
        return choose(WALL).format(motion.direction)
    if motion.kind == "sequence":
        return f"first {_part(motion.direction, choose)}, then {_part(motion.then, choose)}"
    speed = choose(SPEEDS[motion.speed])
    return choose((f"{choose(VERBS)} {motion.direction} {speed}", f"{choose(VERBS)} {speed} {motion.direction}"))


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """Say a scene in words: canonically, or with `rng` in one of its paraphrases.

    >>> from reelign.playground.world.scene import Scene, Sprite, Motion
    >>> caption(Scene((Sprite("circle", "red", "large", Motion("move", "left", "slowly")),), "teal"))
    'A large red circle moves left slowly on a teal background.'
    """
    choose: Choose = (lambda options: options[0]) if rng is None else rng.choice
    subjects = " and ".join(
        f"a {choose(SIZES[s.size])} {s.color} {choose(SHAPES[s.shape])} {_motion(s.motion, choose)}"
        for s in scene.sprites
    )
    place = f"on a {scene.background} background"
    sentence = choose((f"{subjects} {place}.", f"{place}, {subjects}."))
    sentence = sentence[0].upper() + sentence[1:]
    camera = choose(CAMERA_STILL) if scene.camera == "still" else f"The camera {choose(PANS)} {scene.camera}."
    return f"{sentence} {camera}".strip()


def _any(*groups: tuple[str, ...]) -> str:
    return "|".join(re.escape(word) for group in groups for word in group)


def _meaning(table: dict[str, tuple[str, ...]], word: str) -> str:
    return next(key for key, words in table.items() if word in words)


_SUBJECT = re.compile(
    rf"a (?P<size>{_any(*SIZES.values())}) (?P<color>{_any(tuple(tables.COLORS))}) "
    rf"(?P<shape>{_any(*SHAPES.values())}) (?P<motion>.+)"
)
_SUBJECTS = " ".join("|".join(words) for words in (SIZES, tables.COLORS, SHAPES))
_MOTIONS = f"write 'moves {'|'.join(tables.DIRECTIONS)} {'|'.join(SPEEDS)}', or such as {STILL[0]!r} and {FALL[0]!r}"
_PLACE = re.compile(rf"\bon a (?P<background>{_any(tuple(tables.BACKGROUNDS))}) background\b")
_CAMERA = re.compile(rf"\bthe camera (?:(?:{_any(PANS)}) (?P<pan>left|right)|is still)$")
_DIRECTION = re.compile(rf"^(?:{_any(VERBS)}) (?P<direction>{_any(tuple(tables.DIRECTIONS))})$")
_WALL = re.compile("^(?:" + "|".join(w.format("(left|right)") for w in WALL) + ")$")
_SPEED_WORDS = tuple(word for words in SPEEDS.values() for word in words)


def _read_part(text: str, whole: str) -> str:
    if text in STILL:
        return "still"
    if found := _DIRECTION.match(text):
        return found["direction"]
    raise UnknownCaption(f"{whole!r}: {text!r} is no motion that the playground knows; {_MOTIONS}.")


def _read_motion(text: str, whole: str) -> Motion:
    if text in STILL:
        return Motion("still")
    if text in FALL:
        return Motion("fall")
    if found := _WALL.match(text):
        return Motion("wall", found[1] or found[2])
    if found := re.match(r"^first (.+) then (.+)$", text):
        first, then = _read_part(found[1], whole), _read_part(found[2], whole)
        if first == then:
            raise UnknownCaption(f"{whole!r}: the two halves of a 'first ... then ...' must differ.")
        return Motion("sequence", first, then=then)
    words = text.split()
    speeds = [w for w in words if w in _SPEED_WORDS]
    if len(words) == 3 and len(speeds) == 1:
        rest = " ".join(w for w in words if w not in _SPEED_WORDS)
        if found := _DIRECTION.match(rest):
            return Motion("move", found["direction"], _meaning(SPEEDS, speeds[0]))
    raise UnknownCaption(f"{whole!r}: {text!r} is no motion that the playground knows; {_MOTIONS}.")


def parse(text: str) -> Scene:
    """Read a caption back into its scene.

    Raises:
        UnknownCaption: the text is outside the grammar; the message names the part that was not understood.
    """
    flat = re.sub(r"\s+", " ", re.sub(r"[.,]", " ", text)).strip().lower()
    camera = "still"
    if found := _CAMERA.search(flat):
        camera, flat = found["pan"] or "still", flat[: found.start()].strip()
    place = _PLACE.search(flat)
    if place is None:
        raise UnknownCaption(
            f"{text!r}: says no background; write 'on a {'|'.join(tables.BACKGROUNDS)} background' somewhere."
        )
    flat = re.sub(r"\s+", " ", flat[: place.start()] + " " + flat[place.end() :]).strip()
    sprites = []
    for part in re.split(rf" and (?=a (?:{_any(*SIZES.values())}) )", flat):
        found = _SUBJECT.fullmatch(part)
        if found is None:
            raise UnknownCaption(f"{text!r}: {part!r} should read 'a {_SUBJECTS} <motion>'.")
        motion = _read_motion(found["motion"], text)
        sprites.append(Sprite(_meaning(SHAPES, found["shape"]), found["color"], _meaning(SIZES, found["size"]), motion))
    if len(sprites) > 2:
        raise UnknownCaption(f"{text!r}: has {len(sprites)} sprites; the playground draws one or two.")
    return Scene(tuple(sprites), place["background"], camera)


def vocabulary() -> tuple[str, ...]:
    """All words a caption can hold, lower case, sorted."""
    phrases = [*tables.COLORS, *tables.BACKGROUNDS, *tables.DIRECTIONS, *VERBS, *STILL, *FALL, *PANS, *WALL]
    for table in (SIZES, SHAPES, SPEEDS):
        phrases += [w for words in table.values() for w in words]
    words = {w for phrase in phrases for w in phrase.replace("{}", "").split()}
    return tuple(sorted(words | {"a", "on", "background", "and", "first", "then", "the", "camera", "is", "still"}))
