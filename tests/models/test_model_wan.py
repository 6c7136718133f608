"""What a Wan model computes: velocities, text features, pixels, adapters and references."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from reelign import sampling
from reelign.batches import Videos, requests
from reelign.core import rng, schedule
from reelign.errors import BadData
from reelign.models import gaussian as formula
from reelign.models import wan as family
from reelign.playground import PIPELINE
from reelign.playground.world import corpora
from reelign.store import Memory
from reelign.weights import trainable

TEXTS = ("A red circle moves right.", "A blue square stays still.", "two stars")
LORA = {"name": "lora", "rank": 4, "alpha": 10.0}
PACKAGED = {"weights": "playground", "size": None, "text_length": None}

Make = Callable[..., Any]


def _features(model: Any, texts: Sequence[str]) -> Tensor:
    return model.text.padded(model.encode(requests(texts)).values["text"])


def _inputs(model: Any, n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = rng.normals(range(n), model.geometry.latent)
    return x, torch.linspace(0.9, 0.3, n), model.encode(requests(TEXTS[:n]))


def _stir(model: Any) -> None:
    """Move every trainable weight a little, as training would."""
    with torch.no_grad():
        for i, p in enumerate(trainable(model.network).values()):
            p += 0.05 * rng.normal(p.shape, seed=i)


@pytest.fixture(params=["tiny_wan21", "packaged"])
def model(request: pytest.FixtureRequest, wan: Make) -> Any:
    return wan() if request.param == "tiny_wan21" else wan(**PACKAGED)


def test_geometry_comes_from_the_config_or_from_the_folders_card(wan: Make) -> None:
    assert wan().geometry.latent == (16, 2, 4, 4)
    card = json.loads((PIPELINE / "card.json").read_text())
    packaged = wan(**PACKAGED)
    made = packaged.geometry
    assert (made.frames, made.height, made.width, made.fps) == (
        card["frames"],
        card["height"],
        card["width"],
        card["fps"],
    )
    assert made.latent == (
        len(packaged.codec.encode(torch.zeros(1, 1, 3, 8, 8))[0]),
        1 + made.frames // 4,
        made.height // 8,
        made.width // 8,
    )
    assert _features(packaged, ["a"]).shape[1] == card["text_length"]


def test_guidance_in_one_batched_pass_is_two_separate_passes(model: Any) -> None:
    x, sigma, condition = _inputs(model)
    with torch.no_grad():
        together = model.velocity(x, sigma, condition, 3.0)
        empty = model.velocity(x, sigma, model.encode(requests(["", ""])))
        text = model.velocity(x, sigma, condition)
    # Not bitwise: matrix products of another batch size round differently.
    assert_close(together, empty + 3 * (text - empty), atol=2e-5, rtol=1e-5)
    assert not torch.allclose(text, empty)


def test_a_velocity_is_float32_and_does_not_depend_on_its_neighbours(model: Any) -> None:
    x, sigma, condition = _inputs(model, 3)
    with torch.no_grad():
        together = model.velocity(x, sigma, condition)
        alone = torch.cat([model.velocity(x[i : i + 1], sigma[i : i + 1], condition[i : i + 1]) for i in range(3)])
    assert together.dtype == torch.float32
    assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_half_precision_changes_a_velocity_little_and_leaves_weights_text_and_pixels_alone(wan: Make) -> None:
    full, half = wan(**PACKAGED), wan(**PACKAGED, precision="bfloat16")
    x, sigma, condition = _inputs(full, 3)
    with torch.no_grad():
        exact, coarse = full.velocity(x, sigma, condition), half.velocity(x, sigma, condition)
    assert coarse.dtype == torch.float32
    error = (coarse - exact).square().mean().sqrt() / exact.std()
    assert 1e-4 < float(error) < 0.03
    assert {p.dtype for p in trainable(half.network).values()} == {torch.float32}
    assert torch.equal(_features(half, TEXTS), _features(full, TEXTS))
    assert torch.equal(half.decode(x, condition).frames, full.decode(x, condition).frames)


def test_fast_is_half_precision_only_where_the_processor_has_it(wan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = wan(precision="float32")
    x, sigma, condition = _inputs(exact)
    for has, alike in ((False, True), (True, False)):
        monkeypatch.setattr(family.bfloat16, "fast", lambda device, has=has: has)
        with torch.no_grad():
            found = wan(precision="fast").velocity(x, sigma, condition)
            assert torch.equal(found, exact.velocity(x, sigma, condition)) == alike


def test_a_text_has_the_same_features_whatever_its_neighbours(model: Any) -> None:
    alone = [_features(model, [text])[0] for text in TEXTS]
    again = family.build(model.config, model.device)
    assert torch.equal(_features(again, TEXTS[::-1]), torch.stack(alone[::-1]))


def test_features_that_are_forgotten_come_again_with_the_same_bits(wan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wan()
    whole = _features(model, TEXTS)
    model.store = Memory(0.0)
    assert torch.equal(_features(model, TEXTS), whole)
    calls: list[str] = []
    encode = model.text._encode
    monkeypatch.setattr(model.text, "_encode", lambda text: calls.append(text) or encode(text))
    assert torch.equal(_features(model, [TEXTS[1], TEXTS[0], TEXTS[1]]), whole[[1, 0, 1]])
    assert calls == [TEXTS[1], TEXTS[0], ""]
    model.store = Memory()
    for _ in range(2):
        assert torch.equal(_features(model, TEXTS), whole)
    assert calls == [TEXTS[1], TEXTS[0], "", *TEXTS, ""]


def test_of_a_text_only_its_own_tokens_are_kept(wan: Make) -> None:
    kept: dict[str, Tensor] = {}

    class Noting(Memory):
        def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
            kept[key] = super().get(key, make)
            return kept[key]

    model = wan()
    model.store = Noting()
    found = _features(model, ["a red circle", "  a red   circle ", ""])
    assert sorted(len(value) for value in kept.values()) == [1, 4]  # the end mark is a token; blanks are not
    assert found.shape == (3, 16, 32)
    assert not found[0, 4:].any()
    assert torch.equal(found[0], found[1])
    held = model.encode(requests(["a red circle", "", "a red circle"])).repeated(2)
    assert [len(value) for value in held.values["text"]] == [4, 4, 1, 1, 4, 4]
    assert len({id(value) for value in held.values["text"]}) == 2
    assert len({id(value) for value in held.values["negative"]}) == 1


@pytest.mark.parametrize("change", ["length", "dtype", "weights", "words", "threads"])
def test_features_are_not_shared_with_another_way_to_compute_them(
    wan: Make, tiny_wan21: Path, tmp_path: Path, change: str
) -> None:
    folder = Path(shutil.copytree(tiny_wan21, tmp_path / "own"))
    asked: list[str] = []

    class Noting(Memory):
        def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
            asked.append(key)
            return super().get(key, make)

    store, before = Noting(), torch.get_num_threads()
    for changed in (False, True):
        if changed and change == "weights":
            path = folder / "text_encoder" / "model.safetensors"
            tensors = load_file(path)
            next(iter(tensors.values())).add_(1)
            save_file(tensors, path, metadata={"format": "pt"})
        if changed and change == "words":
            path = folder / "tokenizer" / "tokenizer_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 77}))
        if changed and change == "threads":
            torch.set_num_threads(before + 1)
        try:
            model = wan(weights=str(folder), **({"text_length": 8} if changed and change == "length" else {}))
        finally:
            torch.set_num_threads(before)
        if changed and change == "dtype":
            reading = model._computed(("text_encoder", "tokenizer"), torch.bfloat16, 16)
            asked.append(model.text._key("a").replace(model.text._identity, reading))
            continue
        model.text(["a"], store)
    assert len({*asked}) == 2


def test_half_a_character_is_refused(wan: Make) -> None:
    with pytest.raises(BadData, match=r"the text 'a \\ud83d' holds half a character \(a lone surrogate\)"):
        _features(wan(), ["a \ud83d"])


def test_text_features_are_those_of_the_stock_pipeline(model: Any) -> None:
    from diffusers import WanPipeline

    length = _features(model, [""]).shape[1]
    pipeline = WanPipeline.from_pretrained(
        model.folder, **({"vae": None} if model.config.weights == "playground" else {})
    )
    for text in TEXTS:
        with torch.no_grad():
            stock, empty = pipeline.encode_prompt(text, negative_prompt="", max_sequence_length=length)
        assert torch.equal(_features(model, [text]), stock)
        assert torch.equal(_features(model, [""]), empty)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("TokenizersBackend", {"truncation_side": "left"}),
        ("TokenizersBackend", {"pad_token": "</s>"}),
        ("TokenizersBackend", {"model_input_names": ["input_ids"]}),
        ("TokenizersBackend", {"model_max_length": 3, "pad_to_multiple_of": 7}),
        ("PreTrainedTokenizerFast", {"tokenizer_class": "T5Tokenizer"}),
        ("T5TokenizerFast", {"extra_ids": 0}),
        ("T5Tokenizer", {"tokenizer_class": "TokenizersBackend", "extra_ids": 0}),
    ],
    ids=str,
)
def test_whatever_a_tokenizers_settings_a_text_is_encoded_as_the_stock_pipeline_does(
    wan: Make, tiny_wan21: Path, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    from diffusers import WanPipeline

    folder = Path(shutil.copytree(tiny_wan21, tmp_path / "own"))
    if kind.startswith("T5"):
        _pieces(folder / "tokenizer" / "tokenizer.json")
    for name, own in (("tokenizer/tokenizer_config", changes), ("model_index", {"tokenizer": ["transformers", kind]})):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    model = wan(weights=str(folder), text_length=6)
    pipeline = WanPipeline.from_pretrained(folder, vae=None, transformer=None)
    for text in ("", "Red", "a Red circle moves left &amp; a  blue square\nstays still"):
        with torch.no_grad():
            stock, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=6)
        assert torch.equal(_features(model, [text]), stock)


def _pieces(path: Path) -> None:
    """Make a tokenizer one of pieces of words, as those of T5 are, with the same number of them."""
    tree = json.loads(path.read_text())
    words = [word for word, _ in sorted(tree["model"]["vocab"].items(), key=lambda pair: pair[1])]
    pieces = [[word if word[0] == "<" else f"\u2581{word}", -float(i)] for i, word in enumerate(words)]
    tree["model"] = {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False}
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    path.write_text(json.dumps({**tree, "pre_tokenizer": spaces, "decoder": spaces}))


def test_an_identity_is_of_contents_and_not_of_place(wan: Make, tiny_wan21: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_wan21, tmp_path / "own"))
    before = wan().identity
    assert wan(weights=str(folder)).identity == before
    (folder / "README.md").write_text("a note")
    loaded = wan(weights=str(folder))
    assert loaded.identity == before
    (file,) = (folder / "vae").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert wan(weights=str(folder)).identity != before
    assert loaded.identity == before  # of what was loaded
    assert wan(text_length=7).identity != before
    assert len({formula.build(formula.Config(mean=m), torch.device("cpu")).identity for m in (0.0, 0.0, 0.5)}) == 2


def test_a_long_prompt_is_cut_to_the_text_length(wan: Make) -> None:
    assert _features(wan(text_length=5), ["red " * 40]).shape == (1, 5, 32)


def test_the_vae_matches_the_stock_one(wan: Make, tiny_wan21: Path) -> None:
    from diffusers import AutoencoderKLWan
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    model = wan()
    x0 = rng.normals(range(2), model.geometry.latent)
    frames = model.decode(x0, model.encode(requests("a" * len(x0)))).frames
    assert frames.shape == (2, 5, 3, 32, 32)
    assert float(frames.min()) >= 0
    assert float(frames.max()) <= 1
    pipeline = WanPipeline.from_pretrained(tiny_wan21)
    vae: AutoencoderKLWan = pipeline.vae
    statistics = [torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std)]
    with torch.no_grad():
        raw = vae.decode(x0 * statistics[1] + statistics[0]).sample
    stock = pipeline.video_processor.postprocess_video(raw, output_type="pt")
    assert_close(frames, stock, atol=1e-5, rtol=0)
    video = Videos(torch.rand(2, 5, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 8.0)
    latents = model.encode_video(video)
    assert latents.shape == (2, *model.geometry.latent)
    assert_close(latents[1:], model.encode_video(Videos(video.frames[1:], 8.0)), atol=0, rtol=0)


def test_the_playground_codec_gives_its_clips_back(wan: Make) -> None:
    model = wan(**PACKAGED)
    clips = corpora.instruction(4, seed=3).clips
    # As many frames as the packaged model makes.
    clips = torch.cat([clips, clips.flip(1)], dim=1)[:, : model.geometry.frames]
    again = model.decode(model.encode_video(Videos(clips, 8.0)), model.encode(requests("a" * len(clips)))).frames
    assert float((again - clips).square().mean().sqrt()) < 0.06  # the codec keeps its leading directions only


def test_a_clip_of_another_geometry_is_refused_with_both_sizes(wan: Make) -> None:
    from reelign.errors import BadData

    with pytest.raises(BadData, match=r"9 frames of 32 x 24, but the model makes 5 of 32 x 32"):
        wan().encode_video(Videos(torch.rand(1, 9, 3, 32, 24), 8.0))


def test_our_deterministic_sampler_is_the_stock_pipelines(wan: Make, tiny_wan21: Path) -> None:
    """Stock FlowMatchEuler shifts its levels twice when it makes them itself, so it is given ours."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    model, steps = wan(), 4
    sampler = sampling.SamplerConfig(steps=steps, shift=3.0, guidance=2.5)
    ours = sampling.sample(model, model.encode(requests(TEXTS[:2])), [5, 6], sampler)
    levels = schedule.sigmas(steps, 3.0)[:-1].tolist()

    class Given(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **_: Any) -> None:
            super().set_timesteps(sigmas=levels, device=device)

    pipeline = WanPipeline.from_pretrained(tiny_wan21, scheduler=Given(shift=1.0))
    pipeline.set_progress_bar_config(disable=True)
    stock = pipeline(
        prompt=list(TEXTS[:2]),
        negative_prompt=["", ""],
        latents=sampling.initial_noise(model, [5, 6], model.geometry),
        num_frames=5,
        height=32,
        width=32,
        num_inference_steps=steps,
        guidance_scale=2.5,
        max_sequence_length=16,
        output_type="latent",
    ).frames
    # Float32 with rope angles in float32 here and float64 there.
    assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_its_noise_levels_are_those_of_one_shift_for_all_sizes(wan: Make, gaussian: Make) -> None:
    sampler = sampling.SamplerConfig(steps=4, shift=5.0)
    for made in (wan(), gaussian()):
        found = made.levels(sampler, made.geometry)
        assert found.dtype == torch.float32
        assert torch.equal(found, torch.tensor([1.0, 15 / 16, 5 / 6, 5 / 8, 0.0]))


def test_a_fresh_adapter_changes_no_bit(model: Any, wan: Make) -> None:
    adapted = wan(adapter=LORA, **(PACKAGED if model.config.weights == "playground" else {}))
    x, sigma, condition = _inputs(model)
    with torch.no_grad():
        assert torch.equal(adapted.velocity(x, sigma, condition), model.velocity(x, sigma, condition))
    assert all("lora_" in name for name in trainable(adapted.network))
    assert trainable(model.network).keys() == dict(model.network.named_parameters()).keys()


def test_two_fresh_adapters_are_equal(wan: Make) -> None:
    first, second = trainable(wan(adapter=LORA).network), trainable(wan(adapter=LORA).network)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


@pytest.mark.parametrize("targets", [["to_q", "nonsense"], []])
def test_targets_that_match_nothing_are_an_error_that_names_real_layers(wan: Make, targets: list[str]) -> None:
    from reelign.errors import BadConfig

    with pytest.raises(BadConfig, match=r"matches no linear layer of WanTransformer3DModel.*attn1\.to_q.*ffn\.net\.2"):
        wan(adapter={"name": "lora", "rank": 2, "targets": targets})


def test_with_a_fresh_adapter_the_reference_is_the_base(wan: Make) -> None:
    model, base = wan(adapter=LORA), wan()
    x, sigma, condition = _inputs(base)
    model.reference.start()
    assert model.reference.adapter_off
    assert not model.reference.state()
    _stir(model)
    with torch.no_grad():
        with model.reference.on():
            assert torch.equal(model.velocity(x, sigma, condition), base.velocity(x, sigma, condition))
        assert not torch.allclose(model.velocity(x, sigma, condition), base.velocity(x, sigma, condition))


@pytest.mark.parametrize("adapter", [LORA, None])
def test_after_training_a_new_reference_is_a_frozen_copy(wan: Make, adapter: dict[str, Any] | None) -> None:
    model = wan(adapter=adapter)
    x, sigma, condition = _inputs(model)
    _stir(model)
    with torch.no_grad():
        start = model.velocity(x, sigma, condition)
        model.reference.start()
        _stir(model)
        moved = model.velocity(x, sigma, condition)
        with model.reference.on():
            assert torch.equal(model.velocity(x, sigma, condition), start)
        assert torch.equal(model.velocity(x, sigma, condition), moved)
    assert not model.reference.adapter_off
    assert set(model.reference.state()) == {f"reference/{name}" for name in trainable(model.network)}


@pytest.mark.parametrize("adapter", [LORA, None])
def test_a_role_that_follows_is_the_mean_of_what_it_was_and_what_is(wan: Make, adapter: dict[str, Any] | None) -> None:
    """From a fresh adapter too, which is kept as "switched off" until it has to move."""
    model = wan(adapter=adapter)
    model.reference.start("sampled")
    before = {name: p.detach().clone() for name, p in trainable(model.network).items()}
    _stir(model)
    model.reference.follow(0.75, "sampled")
    kept = model.reference.state()
    for name, now in trainable(model.network).items():
        # The downs of an adapter that was off never counted; its ups were 0.
        was = now if "lora_A" in name else before[name]
        assert_close(kept[f"sampled/{name}"], 0.75 * was + 0.25 * now)


def test_roles_are_kept_apart_and_nested(wan: Make) -> None:
    model = wan()
    x, sigma, condition = _inputs(model)
    with torch.no_grad():
        model.reference.start("sampled")
        first = model.velocity(x, sigma, condition)
        _stir(model)
        model.reference.start()
        second = model.velocity(x, sigma, condition)
        with model.reference.on("sampled"):
            assert torch.equal(model.velocity(x, sigma, condition), first)
            with model.reference.on():
                assert torch.equal(model.velocity(x, sigma, condition), second)
            assert torch.equal(model.velocity(x, sigma, condition), first)
    assert model.reference.roles == ("reference", "sampled")


def test_no_gradient_leaves_through_the_reference(wan: Make) -> None:
    model = wan()
    model.reference.start()
    with model.reference.on():
        assert not model.velocity(*_inputs(model)).requires_grad


def test_training_moves_adapters_only(wan: Make) -> None:
    model = wan(adapter=LORA)
    model.velocity(*_inputs(model), 2.0).square().mean().backward()
    assert all(p.grad is not None for p in trainable(model.network).values())
    assert all(p.grad is None for n, p in model.network.named_parameters() if "lora_" not in n)
