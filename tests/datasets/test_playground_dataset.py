"""The playground as a data set."""

import pytest
from torch.testing import assert_close

from reelign.datasets import playground
from reelign.errors import BadConfig, BadData
from reelign.playground.world import corpora, grammar, scene, tables


def opened(**config: object) -> playground.Playground:
    return playground.build(playground.Config(**{"size": 70, "prompts": 12, **config}))


@pytest.fixture
def small(new_model):
    """A model of the playground's geometry."""
    return new_model(frames=tables.FRAMES, height=32, width=32)


@pytest.mark.parametrize("held_out", [False, True])
def test_prompts_are_different_and_have_slices(held_out):
    everything = opened(held_out=held_out).all_prompts()
    assert len(set(everything.texts)) == 12
    assert len(everything) == 12
    assert all(request.slices for request in everything.requests)
    assert {scene.is_held_out(grammar.parse(text)) for text in everything.texts} == {held_out}
    drawn = opened(held_out=held_out).prompts(5, 3, 1)
    assert drawn.requests == tuple(everything.requests[i] for i in drawn.ids)


@pytest.mark.parametrize("what", ["instruction", "pretraining"])
def test_clips_are_those_of_the_corpus_and_encoded_once(small, new_model, what):
    dataset = opened(what=what)
    drawn = [dataset.clips(10, k, small) for k in range(7)]
    texts = [text for clips in drawn for text in clips.texts]
    assert len(texts) == 70
    assert small.encoded == 128  # two chunks of 64
    again = opened(what=what).clips(10, 3, new_model(frames=tables.FRAMES, height=32, width=32))
    assert again.texts == drawn[3].texts
    assert_close(again.x0, drawn[3].x0, rtol=0, atol=0)
    assert [opened(what=what, seed=1).clips(10, 0, small).texts] != [drawn[0].texts]


def test_a_larger_corpus_begins_with_the_smaller_one(small):
    few, many = opened(size=3).clips(3, 0, small), opened(size=70).clips(70, 0, small)
    assert set(few.texts) <= set(many.texts)


def test_the_corpora_decide_what_is_drawn(small, monkeypatch):
    asked = []
    real = corpora.pretraining
    monkeypatch.setattr(corpora, "pretraining", lambda n, seed: asked.append(n) or real(n, seed))
    opened(what="pretraining").clips(2, 0, small)
    assert asked


def test_held_out_scenes_have_no_clips(small):
    with pytest.raises(BadConfig, match="playground with held_out gives prompts only; for clips"):
        opened(held_out=True).clips(1, 0, small)


def test_pairs_are_refused_by_name(small):
    with pytest.raises(BadConfig, match="playground gives clips and prompts only; for pairs use the dataset pair_list"):
        opened().pairs(1, 0, small)


def test_another_geometry_is_refused(model):
    with pytest.raises(BadData, match=f"{tables.FRAMES} frames of 32x32 pixels, but the model makes 4 of 12x8"):
        opened().clips(1, 0, model)
