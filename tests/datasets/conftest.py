"""Models that encode a clip as itself, and clips that fit them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from tests.parts.identity_model import IdentityModel
from torch import Tensor

from reelign import video


@pytest.fixture
def new_model() -> Callable[..., IdentityModel]:
    """Models of 4 frames of 8 x 12 pixels (height x width) at 8 fps, or as asked for."""

    def make(frames: int = 4, height: int = 8, width: int = 12, fps: float = 8.0) -> IdentityModel:
        return IdentityModel(frames, height, width, fps)

    return make


@pytest.fixture
def model(new_model: Callable[..., IdentityModel]) -> IdentityModel:
    return new_model()


@pytest.fixture
def clip() -> Callable[..., Float[Tensor, "f 3 H W"]]:
    """Noise clips that 8 bits hold exactly, different for each number."""

    def make(number: int, frames: int = 4, height: int = 8, width: int = 12) -> Float[Tensor, "f 3 H W"]:
        generator = torch.Generator().manual_seed(number)
        return torch.randint(0, 256, (frames, 3, height, width), generator=generator) / 255

    return make


@pytest.fixture
def save(clip: Callable[..., Tensor]) -> Callable[..., Path]:
    """Write clip number `number` losslessly, with its caption beside it if there is one."""

    def write(path: Path, number: int = 0, caption: str = "", fps: float = 8.0, **shape: int) -> Path:
        video.write(path, clip(number, **shape), fps, lossless=True)
        if caption:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """Six clips with captions `clip 0` to `clip 5`."""
    for number in range(6):
        save(tmp_path / "clips" / f"{number}.mp4", number, f"clip {number}")
    return tmp_path / "clips"
