"""Backbones give patch features of frames, whatever stands beside them; folders that will not do are refused."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    VideoMAEConfig,
    VideoMAEModel,
)

from reelign.backbones import dinov2, gradients, videomae
from reelign.batches import Videos
from reelign.core import allocation
from reelign.errors import BadCheckpoint, BadData
from reelign.playground.world import render, tables
from reelign.playground.world.scene import sample

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
Backbone = Callable[[Videos], Tensor]


def _save(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights of each architecture, with weights far from their start so that features differ."""
    root = tmp_path_factory.mktemp("backbones")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wide: dict[str, Any] = {"initializer_range": 0.3, **SMALL}
        made = {
            "dinov2": Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **wide)),
            "registers": Dinov2WithRegistersModel(
                Dinov2WithRegistersConfig(image_size=56, patch_size=14, num_register_tokens=3, **wide)
            ),
            "videomae": VideoMAEModel(
                VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, intermediate_size=32, **wide)
            ),
        }
    return {name: _save(model, root / name) for name, model in made.items()}


@pytest.fixture(params=["gradients", "dinov2", "registers", "videomae"])
def backbone(request: pytest.FixtureRequest, folders: dict[str, str]) -> Backbone:
    if request.param == "gradients":
        return gradients.build(gradients.Config(patch=4), CPU)
    if request.param == "videomae":
        return videomae.build(videomae.Config(weights=folders["videomae"], micro_batch=2), CPU)
    return dinov2.build(dinov2.Config(weights=folders[request.param], side=56, micro_batch=7), CPU)


def _videos(n: int = 3, frames: int = 5, height: int = 32, width: int = 32) -> Videos:
    noise = torch.Generator().manual_seed(1)
    return Videos(torch.rand(n, frames, 3, height, width, generator=noise), 8.0)


def _drawn(n: int, seed: int) -> tuple[Videos, Tensor]:
    """Rendered clips of the playground and the share of each pixel that is sprite."""
    rng = random.Random(seed)
    drawing = render.layout([sample(rng, None) for _ in range(n)], rng)
    clips = render.draw(drawing)
    drawing.color = torch.ones_like(drawing.color)
    drawing.background = torch.zeros_like(drawing.background)
    drawing.panned = torch.zeros_like(drawing.panned)
    return Videos(clips, float(tables.FPS)), render.draw(drawing)[:, :, 0]


def test_every_frame_has_features_on_a_grid(backbone: Backbone) -> None:
    found = backbone(_videos())
    assert found.shape[:2] == (3, 5)
    assert found.shape[2] == found.shape[3] >= 4
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert bool(found.isfinite().all())


def test_features_are_the_same_each_time(backbone: Backbone) -> None:
    assert_close(backbone(_videos()), backbone(_videos()), atol=0, rtol=0)


def test_a_clip_does_not_depend_on_its_neighbours(backbone: Backbone) -> None:
    videos = _videos(5)
    alone = torch.cat([backbone(Videos(clip, videos.fps)) for clip in videos.frames.split(1)])
    assert_close(backbone(videos), alone, atol=1e-5, rtol=1e-5)  # matrix products round by their size


def test_different_clips_differ(backbone: Backbone) -> None:
    found = backbone(_videos())
    assert float((found[0] - found[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_clips_of_any_length_have_features_of_each_frame(backbone: Backbone, frames: int) -> None:
    assert backbone(_videos(1, frames)).shape[:2] == (1, frames)


def test_importance_and_maps_follow_from_any_features(backbone: Backbone) -> None:
    maps = allocation.to_latent(allocation.structure(backbone(_videos())), (2, 4, 4))
    assert maps.shape == (3, 2, 4, 4)
    assert float(maps.min()) == 0
    assert float(maps.max()) == 1


def test_sprites_stand_out_in_gradients() -> None:
    """Without the lean to the middle 95 % do: a sprite at the border turns the sign rule of `structure` over."""
    videos, sprite = _drawn(300, 5)
    importance = allocation.structure(gradients.build(gradients.Config(), CPU)(videos))
    share = F.avg_pool2d(sprite, 2)
    empty = (share == 0).float()
    on, off = ((importance * w).sum(dim=(1, 2, 3)) / w.sum(dim=(1, 2, 3)) for w in (share, empty))
    assert float((on > off).float().mean()) >= 0.95
    assert float(on.mean()) > 2 * float(off.mean())


def _gradients(frames: Tensor, **settings: float) -> Tensor:
    plain = {"patch": 4, "edges": 1.0, "motion": 1.0, "centre": 0.0, **settings}
    return gradients.build(gradients.Config.model_validate({"name": "gradients", **plain}), CPU)(Videos(frames, 8.0))


def test_a_flat_clip_has_no_features() -> None:
    flat = torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand(1, 3, 3, 16, 16)
    assert_close(_gradients(flat), torch.zeros(1, 3, 4, 4, 12), atol=0, rtol=0)


def test_contrast_is_a_half_at_its_named_distance() -> None:
    frames = torch.zeros(1, 1, 3, 16, 16)
    frames[..., 4:8, 8:12] = gradients.HALF / 3**0.5
    contrast = _gradients(frames)[0, 0, :, :, 0]
    expected = torch.zeros(4, 4)
    expected[1, 2] = 0.5
    assert_close(contrast, expected)


@pytest.mark.parametrize(("degrees", "strongest"), [(0, 0), (45, 1), (90, 2), (135, 3)])
def test_an_edge_is_strongest_in_its_own_direction(degrees: int, strongest: int) -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    ramp = (x * angle.cos() + y * angle.sin()) / 64 + 0.3
    found = _gradients(ramp.expand(1, 1, 3, 16, 16))[0, 0, 1, 1]
    assert int(found[1:5].argmax()) == strongest
    assert int(found[5:9].argmax()) == strongest
    assert_close(found[1 + strongest], torch.tensor(3**0.5 / 64))  # the slope of three colours at once


def test_change_is_seen_before_and_after_it() -> None:
    frames = torch.zeros(1, 4, 3, 8, 8)
    frames[:, 2:, 0, :4, :4] = 0.5
    found = _gradients(frames)[0, :, 0, 0, 9:]
    assert_close(found[:, 0], torch.tensor([0.0, 0.0, 0.5, 0.0]))  # since the frame before
    assert_close(found[:, 1], torch.tensor([0.0, 0.5, 0.0, 0.0]))  # until the next
    assert_close(found[:, 2], torch.tensor([0.25, 0.25, 0.25, 0.25]))


def test_frames_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(BadData, match=r"30 x 32 pixels do not fall into patches of 4 x 4"):
        gradients.build(gradients.Config(patch=4), CPU)(_videos(1, 2, 30))
    with pytest.raises(ValidationError, match="multiple of 2"):
        gradients.Config(patch=3)


def test_dinov2_sees_normalised_frames_and_leaves_the_other_tokens_out(folders: dict[str, str]) -> None:
    videos = _videos(1, 2, 28, 56)
    for name, kind, others in (("dinov2", Dinov2Model, 1), ("registers", Dinov2WithRegistersModel, 4)):
        found = dinov2.build(dinov2.Config(weights=folders[name], side=28), CPU)(videos)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        with torch.no_grad():
            tokens = kind.from_pretrained(folders[name])((videos.frames[0] - mean) / std).last_hidden_state
        assert found.shape == (1, 2, 2, 4, 24)
        assert_close(found, tokens[:, others:].reshape(1, 2, 2, 4, 24), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, (4, 4)), (48, 64, (4, 5)), (64, 20, (13, 4))])
def test_the_patch_grid_of_dinov2_spans_a_frame_of_any_aspect(
    folders: dict[str, str], height: int, width: int, grid: tuple[int, int]
) -> None:
    found = dinov2.build(dinov2.Config(weights=folders["dinov2"], side=56), CPU)(_videos(1, 1, height, width))
    assert found.shape[2:4] == grid


def test_a_change_in_one_corner_changes_most_the_features_there(folders: dict[str, str]) -> None:
    """Attention spreads a change, but the patch grid is neither turned nor flipped."""
    backbone = dinov2.build(dinov2.Config(weights=folders["dinov2"], side=56), CPU)
    videos = _videos(1, 1)
    other = videos.frames.clone()
    other[..., :8, 24:] = 1 - other[..., :8, 24:]
    apart = (backbone(videos) - backbone(Videos(other, 8.0)))[0, 0].norm(dim=-1)
    assert int(apart.argmax()) == 3  # row 0, column 3 of four


def test_frames_of_videomae_lie_between_the_middles_of_its_tubelets(folders: dict[str, str]) -> None:
    backbone = videomae.build(videomae.Config(weights=folders["videomae"]), CPU)
    videos = _videos(1, 4)
    found = backbone(videos)[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        tokens = VideoMAEModel.from_pretrained(folders["videomae"])((videos.frames - mean) / std).last_hidden_state
    first, second = tokens.reshape(2, 4, 4, 24)
    assert_close(found[0], first, atol=1e-5, rtol=1e-5)
    assert_close(found[1], 0.75 * first + 0.25 * second, atol=1e-5, rtol=1e-5)  # half a frame past the first middle
    assert_close(found[3], second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", [dinov2, videomae])
def test_a_missing_folder_is_refused(part: Any, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"nowhere' is no folder; give a local folder"):
        part.build(part.Config(weights=str(tmp_path / "nowhere")), CPU)


@pytest.mark.parametrize("part", [dinov2, videomae])
def test_weights_must_be_named(part: Any) -> None:
    with pytest.raises(ValidationError, match="weights"):
        part.Config()


def _copied(source: str, target: Path) -> Path:
    target.mkdir()
    for path in Path(source).iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("name", ["dinov2", "videomae"])
def test_another_architecture_is_refused(name: str, folders: dict[str, str]) -> None:
    part, other = (dinov2, "videomae") if name == "dinov2" else (videomae, "dinov2")
    with pytest.raises(BadCheckpoint, match=rf"holds a model of type '{other}'; needed is {name}"):
        part.build(part.Config(weights=folders[other]), CPU)


def test_pickled_weights_alone_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["dinov2"], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match=r"only pickled weights \(pytorch_model.bin\), which can run code"):
        dinov2.build(dinov2.Config(weights=str(folder)), CPU)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("config.json", "has no .*config.json; its download may be incomplete"),
        ("preprocessor_config.json", "has no .*preprocessor_config.json; its download may be incomplete"),
        ("model.safetensors", "has no weights; Reelign loads"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(lost: str, said: str, folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["videomae"], tmp_path / "torn")
    (folder / lost).unlink()
    with pytest.raises(BadCheckpoint, match=said):
        videomae.build(videomae.Config(weights=str(folder)), CPU)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "[1]", "holds a JSON list, but a config is an object"),
        ("model.safetensors", "junk", "cannot be read as safetensors"),
    ],
)
def test_a_damaged_file_is_refused(name: str, content: str, said: str, folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["videomae"], tmp_path / "damaged")
    (folder / name).write_text(content)
    with pytest.raises(BadCheckpoint, match=said):
        videomae.build(videomae.Config(weights=str(folder)), CPU)


def test_a_lost_weight_is_named(folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["dinov2"], tmp_path / "thin")
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.cls_token"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"lacks the weight 'embeddings\.cls_token'"):
        dinov2.build(dinov2.Config(weights=str(folder)), CPU)


def test_a_config_that_could_run_code_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["dinov2"], tmp_path / "code")
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "theirs.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=r"has the keys auto_map, which a Dinov2Model does not have"):
        dinov2.build(dinov2.Config(weights=str(folder)), CPU)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dinov2", {"num_hidden_layers": 10**6}),
        ("dinov2", {"image_size": 10**7}),
        ("videomae", {"num_frames": 10**8}),
        ("videomae", {"patch_size": 0}),
        ("dinov2", {"hidden_size": 10**8}),
    ],
    ids=str,
)
def test_a_config_that_its_weights_do_not_bear_out_is_refused_at_once(
    name: str, change: dict[str, int], folders: dict[str, str], tmp_path: Path
) -> None:
    folder, part = _copied(folders[name], tmp_path / "huge"), dinov2 if name == "dinov2" else videomae
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    began = time.process_time()
    with pytest.raises(BadCheckpoint, match=r"asks for .* layers and .* positions|cannot be read as a"):
        part.build(part.Config(weights=str(folder)), CPU)
    assert time.process_time() - began < 5


def test_a_preprocessor_without_statistics_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = _copied(folders["dinov2"], tmp_path / "plain")
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="has no image_mean and image_std"):
        dinov2.build(dinov2.Config(weights=str(folder)), CPU)


def test_sizes_that_are_not_square_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    _save(Dinov2Model(Dinov2Config(image_size=28, patch_size=[14, 7], **SMALL)), folder)
    with pytest.raises(BadCheckpoint, match="must see square images in square patches"):
        dinov2.build(dinov2.Config(weights=str(folder)), CPU)
