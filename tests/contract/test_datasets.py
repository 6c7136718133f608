"""Every data set gives what it can as a function of (n, seed), and refuses the rest in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from tests.parts.identity_model import IdentityModel
from tests.parts.written_pairs import write_pairs
from torch import Tensor
from torch.testing import assert_close

from reelign import declared, parts
from reelign.batches import Clips, Pairs, Prompts
from reelign.errors import BadConfig, BadData
from reelign.playground.world import tables
from reelign.playground.writing import write_clip_folder, write_prompts

NAMES = parts.available("dataset")
VERBS = ("prompts", "clips", "pairs")


def _clips() -> Float[Tensor, "b f 3 H W"]:
    return torch.rand(4, tables.FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(0))


EXAMPLES: dict[str, Callable[[Path], dict[str, object]]] = {
    "clip_folder": lambda place: {"path": write_clip_folder(place / "clips", _clips(), list("abcd"), 8)},
    "prompt_file": lambda place: {"path": write_prompts(place / "p.jsonl", list("abcd"))},
    "pair_list": lambda place: {"path": write_pairs(place / "p.jsonl", list("abcd"), _clips(), 1 - _clips(), 8)},
    "playground": lambda place: {"size": 4, "prompts": 4},
}


@pytest.fixture(params=NAMES)
def build(request, tmp_path) -> Callable[[], object]:
    """Builds the data set of that name as a recipe would, the same each time."""
    assert request.param in EXAMPLES, f"add an example of {request.param!r} to EXAMPLES"
    config = parts.configure("dataset", {"name": request.param, **EXAMPLES[request.param](tmp_path)})
    build = lambda: parts.build("dataset", config)  # noqa: E731
    build.__name__, build.config = request.param, config
    return build


def draw(dataset, verb: str, n: int, seed: int) -> Prompts | Clips | Pairs | str:
    """The draw, or the sentence that refuses it."""
    try:
        return (
            dataset.prompts(n, 2, seed)
            if verb == "prompts"
            else getattr(dataset, verb)(n, seed, IdentityModel(tables.FRAMES, 32, 32))
        )
    except BadConfig as error:
        return str(error)


@pytest.mark.parametrize("verb", VERBS)
def test_it_gives_a_draw_or_refuses_in_one_sentence_that_names_another(build, verb):
    drawn = draw(build(), verb, 2, 0)
    if isinstance(drawn, str):
        assert drawn.startswith(f"{build.__name__} ")
        assert any(other in drawn for other in NAMES if other != build.__name__)
        assert f"for {verb} use the dataset" in drawn
        assert drawn.endswith(".")
        assert drawn.count(". ") == drawn.count("\n") == 0
        return
    assert type(drawn) is {"prompts": Prompts, "clips": Clips, "pairs": Pairs}[verb]
    assert len(drawn.texts) == 2
    if isinstance(drawn, Clips):
        assert drawn.x0.shape == (2, 3, tables.FRAMES, 32, 32)
        assert drawn.weight.mean() == 1
    if isinstance(drawn, Pairs):
        assert drawn.chosen.shape == drawn.rejected.shape == (2, 3, tables.FRAMES, 32, 32)


@pytest.mark.parametrize("verb", VERBS)
def test_it_gives_what_it_says_and_nothing_else(build, verb):
    refused = isinstance(draw(build(), verb, 2, 0), str)
    assert refused == (verb not in declared.gives(build.config))


@pytest.mark.parametrize("verb", VERBS)
def test_a_draw_does_not_depend_on_earlier_draws(build, verb):
    used, fresh = build(), build()
    for seed in (5, 1, 2**62):
        draw(used, verb, 3, seed)
    first, second = draw(used, verb, 2, 3), draw(fresh, verb, 2, 3)
    assert type(first) is type(second)
    if isinstance(first, str | Prompts):
        assert first == second
        return
    assert first.texts == second.texts
    for field in ("x0", "chosen", "rejected"):
        if hasattr(first, field):
            assert_close(getattr(first, field), getattr(second, field), rtol=0, atol=0)


@pytest.mark.parametrize("verb", VERBS)
def test_consecutive_draws_show_everything_once(build, verb):
    dataset = build()
    draws = [draw(dataset, verb, 2, seed) for seed in range(2)]
    if not isinstance(draws[0], str):
        assert len({text for batch in draws for text in batch.texts}) == 4


def test_every_prompt_is_there_in_order_with_its_own_id(build):
    everything = build().all_prompts()
    assert len(set(everything.ids)) == len(everything.ids) == len(everything.texts) == 4
    assert everything.group == 1
    assert everything == build().all_prompts()


def test_it_says_what_it_reads_in_sentences(build):
    notes = build().notes
    assert notes
    assert all(note.endswith(".") and "4 " in note for note in notes)


def test_it_is_the_same_data_when_it_is_opened_again(build):
    first, second = build().identity(), build().identity()
    assert first == second
    assert len(first["sha256"]) == 64
    assert 4 in first.values()


def test_it_fits_its_own_geometry_and_refuses_another_where_it_has_clips(build):
    dataset = build()
    own = IdentityModel(tables.FRAMES, 32, 32).geometry
    dataset.fit(own)
    if declared.gives(build.config) == {"prompts"}:
        dataset.fit(IdentityModel(5, 8, 8).geometry)
        return
    with pytest.raises(BadData, match=r"5 frames of 8x8|5 of 8x8"):
        dataset.fit(IdentityModel(5, 8, 8).geometry)
    dataset.fit(own)


def test_a_misspelt_key_is_an_error(build):
    config = {"name": build.__name__, "sede": 3}
    with pytest.raises(parts.NestedErrors) as caught:
        parts.configure("dataset", config)
    assert ("sede",) in [fault["loc"] for fault in caught.value.error.errors()]
