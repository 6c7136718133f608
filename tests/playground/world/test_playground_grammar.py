"""Words and scenes are one meaning."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelign.playground.world import grammar, scene, tables
from reelign.playground.world.slices import slices
from reelign.playground.world.wanted import MOTIONS, wanted


@pytest.mark.parametrize("held_out", [False, True])
def test_a_caption_reads_back_as_its_scene_in_every_paraphrase(held_out: bool) -> None:
    rng = random.Random(0)
    scenes = [scene.sample(rng, held_out) for _ in range(2000)]
    assert [grammar.parse(grammar.caption(s, rng)) for s in scenes] == scenes
    assert [grammar.parse(grammar.caption(s)) for s in scenes] == scenes


@given(st.integers(0, 2**32), st.booleans())
def test_case_commas_and_spaces_do_not_matter(seed: int, held_out: bool) -> None:
    rng = random.Random(seed)
    meant = scene.sample(rng, held_out)
    said = grammar.caption(meant, rng)
    assert grammar.parse(f"  {said.upper().replace(',', ' ').replace(' ', '  ')} ") == meant


def test_the_vocabulary_holds_every_word_of_every_caption() -> None:
    rng = random.Random(1)
    words = {w for _ in range(2000) for w in grammar.caption(scene.sample(rng), rng).lower().replace(",", "").split()}
    assert {w.rstrip(".") for w in words} <= set(grammar.vocabulary())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A large red circle moves left slowly.",
        "A huge red circle moves left slowly on a teal background.",
        "A large red circle dances on a teal background.",
        "A large red circle first moves left, then moves left on a teal background.",
    ],
)
def test_what_the_grammar_cannot_read_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(grammar.UnknownCaption) as refused:
        grammar.parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (
            "A small blue star stays still on a dark background.",
            "'a small|large red|green|blue|yellow|purple|white circle|",
        ),
        (
            "A small blue circle hops on a dark background.",
            "write 'moves left|right|up|down slowly|quickly', or such as",
        ),
    ],
)
def test_a_refusal_names_the_words_that_could_stand_there(text: str, allowed: str) -> None:
    with pytest.raises(grammar.UnknownCaption) as refused:
        grammar.parse(text)
    assert allowed in str(refused.value)


def test_training_scenes_hold_nothing_held_out_held_out_scenes_always_do_and_pretraining_has_both() -> None:
    rng = random.Random(2)
    assert not any(scene.is_held_out(scene.sample(rng)) for _ in range(2000))
    assert all(scene.is_held_out(scene.sample(rng, held_out=True)) for _ in range(2000))
    either = {scene.is_held_out(scene.sample(rng, held_out=None)) for _ in range(2000)}
    assert either == {False, True}


def test_a_mislabelled_scene_differs_in_one_sprite() -> None:
    rng = random.Random(3)
    for _ in range(1000):
        right = scene.sample(rng)
        wrong = scene.mislabel(right, rng)
        assert sum(a != b for a, b in zip(right.sprites, wrong.sprites, strict=True)) == 1


def test_a_prompt_becomes_the_indices_of_what_it_asks_for() -> None:
    asked = wanted(["A small green square moves left slowly on a gray background. The camera pans right."])
    assert asked.asked.tolist() == [[True, False]]
    assert list(tables.COLORS)[asked.color[0, 0]] == "green"
    assert tables.SHAPES[asked.shape[0, 0]] == "square"
    assert list(tables.RADII)[asked.size[0, 0]] == "small"
    assert MOTIONS[asked.motion[0, 0]] == scene.Motion("move", "left", "slowly")
    assert list(tables.BACKGROUNDS)[asked.background[0]] == "gray"
    assert list(tables.CAMERAS)[asked.camera[0]] == "right"


def test_slices_name_what_sprites_share_and_mixed_otherwise() -> None:
    two = "A small red circle stays still and a large blue circle moves left fast on a dark background."
    assert slices(two) == {
        "shape": "circle",
        "color": "mixed",
        "motion": "mixed",
        "count": "2",
        "camera": "still",
        "held_out": "seen",
    }
    one = slices("A big green triangle drops and bounces off the floor on a teal background. The camera turns left.")
    assert one == {
        "shape": "triangle",
        "color": "green",
        "motion": "fall",
        "count": "1",
        "camera": "left",
        "held_out": "held-out",
    }
