"""What JSON files and headers tell of a Wan folder, before a weight is read: what it makes, and what is wrong."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import UMT5EncoderModel

from reelign.errors import BadCheckpoint, BadConfig, BadData, UserError
from reelign.models import gaussian as formula
from reelign.models import wan as family
from reelign.playground import PIPELINE
from reelign.protocols import Card, Geometry

SIZE = {"frames": 5, "height": 32, "width": 32, "fps": 8.0}


@pytest.fixture
def folder(tiny_wan21: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_wan21, tmp_path / "own"))


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may load a network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was loaded")

    for kind in (WanTransformer3DModel, AutoencoderKLWan, UMT5EncoderModel):
        monkeypatch.setattr(kind, "from_pretrained", refuse)


def _config(folder: Path | str, **settings: Any) -> family.Config:
    return family.Config.model_validate({"weights": str(folder), "size": SIZE, "text_length": 16, **settings})


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_describes_itself(tiny_wan21: Path) -> None:
    family.check(_config(tiny_wan21))
    assert family.describe(_config(tiny_wan21)) == Card(Geometry(5, 32, 32, 8.0, (16, 2, 4, 4)), 16)
    card = json.loads((PIPELINE / "card.json").read_text())
    found = family.describe(family.Config())
    assert (found.text_length, found.geometry.fps) == (card["text_length"], card["fps"])
    assert found.geometry.latent == (64, 1 + (card["frames"] - 1) // 4, card["height"] // 8, card["width"] // 8)
    assert formula.describe(formula.Config(side=4)) == Card(Geometry(1, 4, 4, 1.0, (3, 1, 4, 4)), 0)


class NoTensor(TorchDispatchMode):
    """Whatever makes or reads a tensor fails, on the meta device too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called")


def test_it_does_so_from_json_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = family.describe(_config(folder))
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a module was built")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    with NoTensor():
        assert family.describe(_config(folder)) == expected
        assert formula.describe(formula.Config()).experts == ("",)


def test_two_experts_and_their_boundary_are_read_from_the_index(folder: Path) -> None:
    assert (family.describe(_config(folder)).experts, family.describe(_config(folder)).boundary) == (("",), None)
    second = ["diffusers", "WanTransformer3DModel"]
    _edit(folder / "model_index.json", transformer_2=second, boundary_ratio=0.875)
    found = family.describe(_config(folder))
    assert (found.experts, found.boundary, found.takes) == (("high", "low"), 0.875, frozenset())
    for wrong in (None, 1.0, "0.9", 0):
        _edit(folder / "model_index.json", boundary_ratio=wrong)
        with pytest.raises(BadCheckpoint, match=r"gives boundary_ratio as .*, but between two networks it is a noise"):
            family.describe(_config(folder))


def test_what_a_folder_does_not_say_is_wan21s(folder: Path) -> None:
    found = family.describe(_config(folder, size=None, text_length=None))
    assert found == Card(Geometry(81, 480, 832, 16.0, (16, 21, 60, 104)), 512)
    (folder / "card.json").write_text(json.dumps({"frames": 9, "height": 64, "text_length": 7, "notes": ["any"]}))
    found = family.describe(_config(folder, size=None, text_length=None))
    assert found == Card(Geometry(9, 64, 832, 16.0, (16, 3, 8, 104)), 7)


@pytest.mark.parametrize(
    "change",
    [
        {"text_length": 10**12},
        {"text_length": 0},
        {"text_length": "long"},
        {"text_length": 1.5},
        {"frames": -5},
        {"frames": [5]},
        {"fps": 0},
        {"fps": None},
        {"height": 10**9},
        {"width": {}},
        {"shift": -1},
        {"shift": "x" * 1000},
    ],
    ids=lambda change: str(change)[:30],
)
def test_a_card_with_a_wrong_value_is_refused_by_its_key(folder: Path, change: dict[str, Any]) -> None:
    (folder / "card.json").write_text(json.dumps({**SIZE, **change}))
    with pytest.raises(BadCheckpoint, match=rf"card.json': {next(iter(change))}: .*; given: ") as caught:
        family.check(_config(folder, size=None, text_length=None))
    assert len(str(caught.value)) < 300 + len(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"in_channels": 36, "image_dim": 48},
            "takes 36 channels and makes 16, .*the 16 of its autoencoder; .*image-to-video",
        ),
        ({"in_channels": 36}, "takes 36 channels .* looks like an image-to-video model"),
        ({"in_channels": 48}, "takes 48 channels .* looks like a control or editing model"),
        ({"out_channels": 32}, "takes 16 channels and makes 32"),
        ({"text_dim": 64}, r"condition_embedder.text_embedder.linear_1.weight' as \[48, 32\], but .* \[48, 64\]"),
        ({"eps": 0.0}, "gives eps a number that cannot be"),
        ({"eps": "small"}, 'gives eps as "small", but it is float in a WanTransformer3DModel'),
        ({"rope_max_seq_len": 10**9}, "rope_max_seq_len at most 65536"),
        ({"patch_size": [0, 2, 2]}, "patch_size must be three numbers of at least 1"),
        ({"patch_size": "122"}, 'gives patch_size as "122", but it is tuple'),
    ],
)
def test_a_transformer_for_something_else(folder: Path, changes: dict[str, Any], said: str) -> None:
    _edit(folder / "transformer" / "config.json", **changes)
    with pytest.raises(BadCheckpoint, match=said):
        family.check(_config(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"scale_factor_spatial": 10**9},
            "a latent element is 4 frames of 1000000000 pixels, but its layers make it 4 and 8",
        ),
        ({"scale_factor_temporal": 8}, "layers make it 4 and 8"),
        ({"scale_factor_temporal": "4"}, 'gives scale_factor_temporal as "4", but it is int'),
        ({"latents_mean": [0.0] * 3}, "latents_mean and latents_std must be 16 numbers"),
        ({"latents_std": [0.0] * 16}, "latents_std must be 16 numbers, the latter above 0"),
        ({"latents_std": None}, "gives latents_std as null, but it is list"),
        ({"temperal_downsample": 3}, "gives temperal_downsample as 3, but it is list"),
        ({"patch_size": 0}, "z_dim, patch_size or temperal_downsample is wrong"),
        ({"dim_mult": [1, 2, 4, 8]}, "vae' holds"),
        ({"num_res_blocks": 10**6}, "vae' holds .* weights, but its config.json asks for more"),
    ],
)
def test_an_autoencoder_that_does_not_fit_its_config(folder: Path, changes: dict[str, Any], said: str) -> None:
    _edit(folder / "vae" / "config.json", **changes)
    with pytest.raises(BadCheckpoint, match=said):
        family.check(_config(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transformer_2": 5}, "transformer_2 must be the library and the class of a part"),
        ({"transformer_2": {"a": 1}}, "transformer_2 must be the library and the class of a part"),
        ({"vae": ["diffusers"]}, "vae must be the library and the class of a part"),
        ({"vae": [1, 2]}, "vae must be the library"),
        ({"vae": [None, None]}, "names no vae; a Wan pipeline has transformer, vae"),
        ({"vae": ["evil", "VAE"]}, "takes vae from 'evil'; Reelign loads classes of diffusers and transformers only"),
        (
            {"image_encoder": ["transformers", "CLIPVisionModel"]},
            "has a part 'image_encoder' .*text-to-video models do not",
        ),
        ({"../x": ["diffusers", "X"]}, "has a part '../x'"),
    ],
)
def test_an_index_with_wrong_parts(folder: Path, changes: dict[str, Any], said: str) -> None:
    _edit(folder / "model_index.json", **changes)
    with pytest.raises(BadCheckpoint, match=said):
        family.check(_config(folder))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae", "tokenizer", "scheduler"])
def test_a_part_that_the_index_names_and_the_folder_lacks(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(BadCheckpoint, match=rf"has no {part}/, which its model_index.json names; its download may be"):
        family.check(_config(folder))


def test_distances_that_the_text_encoder_cannot_tell_apart(folder: Path) -> None:
    _edit(folder / "text_encoder" / "config.json", relative_attention_max_distance=8)
    with pytest.raises(BadCheckpoint, match="gives relative_attention_max_distance a number that cannot be"):
        family.check(_config(folder))


def test_a_scheduler_of_another_kind_of_model(folder: Path) -> None:
    _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(BadCheckpoint, match="predicts 'epsilon'; the family 'wan' is of flow models"):
        family.check(_config(folder))


def test_an_index_of_shards_that_names_a_pickle(folder: Path) -> None:
    for part, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (weights,) = (folder / part).glob("*.safetensors")
        weights.rename(weights.with_name("x.safetensors"))
        (folder / part / "evil.bin").write_bytes(b"\x80\x02.")
        mapped = json.dumps({"weight_map": {"a": "x.safetensors", "b": "evil.bin"}})
        (folder / part / f"{stem}.safetensors.index.json").write_text(mapped)
        with pytest.raises(BadCheckpoint, match=rf"{part}/.* names 'evil.bin'; weights are read from \*.safetensors"):
            family.check(_config(folder))
        (folder / part / f"{stem}.safetensors.index.json").unlink()
        (folder / part / "x.safetensors").rename(weights)


@pytest.mark.parametrize("text", ["{}", "[" * 5000, '{"version": "1.0", "model": 5}', "not json"], ids=lambda t: t[:20])
def test_a_tokenizer_that_is_none(folder: Path, text: str) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text(text)
    with pytest.raises(BadCheckpoint, match="tokenizer' cannot be read as a tokenizer: ") as caught:
        family.check(_config(folder))
    assert len(str(caught.value)) < 300 + len(str(folder))


@pytest.mark.parametrize("key", ["auto_map", "tokenizer_file", "vocab_file", "fast_tokenizer_files"])
def test_a_tokenizers_config_names_no_code_and_no_other_files(folder: Path, key: str) -> None:
    _edit(folder / "tokenizer" / "tokenizer_config.json", **{key: "/etc/passwd"})
    with pytest.raises(BadCheckpoint, match=rf"has the keys {key}, which a tokenizer does not have"):
        family.check(_config(folder))


def test_a_tokenizer_whose_longest_length_is_a_text(folder: Path) -> None:
    _edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length="512 tokens")
    with pytest.raises(BadCheckpoint, match=r"tokenizer' cannot be read as a tokenizer: "):
        family.check(_config(folder))


def test_a_tokenizer_that_pads_on_the_left(folder: Path) -> None:
    _edit(folder / "tokenizer" / "tokenizer_config.json", padding_side="left")
    with pytest.raises(BadCheckpoint, match=r"tokenizer' pads on the left, where .* set padding_side to right in its"):
        family.check(_config(folder))


@pytest.mark.parametrize("kind", ["AutoTokenizer", "BertTokenizer", "CLIPTextModel", "__version__", None])
def test_a_tokenizer_of_a_class_that_wan_pipelines_do_not_have(folder: Path, kind: str | None) -> None:
    _edit(folder / "model_index.json", tokenizer=["transformers", kind])
    with pytest.raises(BadCheckpoint, match=rf"tokenizer' is a {kind} by its model_index.json; .* T5TokenizerFast"):
        family.check(_config(folder))


def test_a_tokenizer_of_another_model_or_without_padding(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["vocab"]["zebra"] = 10**6
    path.write_text(json.dumps(tree))
    with pytest.raises(BadCheckpoint, match="has words up to number 1000000, but the text encoder has features for"):
        family.check(_config(folder))
    config = folder / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "pad_token"}))
    with pytest.raises(BadCheckpoint, match=r"tokenizer' cannot be read as a tokenizer: .*pad"):
        family.check(_config(folder))


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_what_cannot_be_copied_is_told_before_the_training(folder: Path, file: str) -> None:
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(BadCheckpoint, match=r"is no regular file"):
        family.check(_config(folder))


def test_a_single_file_a_hub_name_and_a_home_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wan.safetensors").write_bytes(b"")
    with pytest.raises(BadCheckpoint, match="is a single file; give a local diffusers Wan folder"):
        family.check(_config(tmp_path / "wan.safetensors"))
    with pytest.raises(BadCheckpoint, match=r"'Wan-AI/Wan2.1' is no pipeline folder"):
        family.check(_config("Wan-AI/Wan2.1"))
    monkeypatch.setenv("HOME", str(tmp_path))
    family.check(_config("~/own"))
    with pytest.raises(BadCheckpoint, match=r"'x+ \.\.\. x+' cannot be opened: .*; give a local folder"):
        family.check(_config("x" * 5000))


def test_a_size_beyond_the_models_positions(folder: Path) -> None:
    with pytest.raises(BadConfig, match="has more than 64 patches along an axis; the model knows no more positions"):
        family.check(_config(folder, size={**SIZE, "width": 2048}))


def test_targets_are_looked_for_without_weights(folder: Path) -> None:
    with pytest.raises(BadConfig, match=r"model.adapter.targets: \['nonsense'\] matches no linear layer"):
        family.check(_config(folder, adapter={"name": "lora", "targets": ["to_q", "nonsense"]}))
    with pytest.raises(BadConfig, match=r"model.adapter.rank: 49, but the layer .* is only 48 by 48; take a smaller"):
        family.check(_config(folder, adapter={"name": "lora", "rank": 49}))


def test_texts_that_the_model_would_cut_are_counted(folder: Path) -> None:
    """The tokenizer takes a word as one token and ends a text with one."""
    texts = [" ".join(["red"] * n) for n in (3, 15, 16, 600)]
    assert family.overlong(_config(folder), texts) == (2, 601)
    assert family.overlong(_config(folder), texts[:2]) == (0, 16)
    assert family.overlong(_config(folder), []) == (0, 0)
    assert formula.overlong(formula.Config(), texts) == (0, 0)
    with pytest.raises(BadData, match=r"the text '\\ud83d ball' holds half a character"):
        family.overlong(_config(folder), ["\ud83d ball"])


JUNK: tuple[object, ...] = (None, True, -1, 0, 10**30, 1.5, "", "x" * 200, [], [1, 2], {}, {"a": {"b": []}}, [[[]]])


@pytest.mark.parametrize("file", ["model_index", "transformer/config", "text_encoder/config", "vae/config",
                                  "tokenizer/tokenizer_config"])  # fmt: skip
def test_whatever_a_config_holds_it_is_taken_or_refused_in_a_sentence(folder: Path, file: str) -> None:
    path = folder / f"{file}.json"
    whole = json.loads(path.read_text())
    for index, key in enumerate(sorted(whole)):
        for value in (JUNK[index % len(JUNK)], JUNK[(7 * index + 3) % len(JUNK)]):
            path.write_text(json.dumps({**whole, key: value}))
            said = ""
            try:
                family.check(_config(folder))
            except UserError as error:
                said = str(error)
            assert len(said) < 900, (key, value)
            assert "\n" not in said, (key, value)
