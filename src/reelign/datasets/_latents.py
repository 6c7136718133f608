"""Clips as latents of a model, each encoded once, and what the content of a clip's file is."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Videos
from reelign.files import digest
from reelign.protocols import VideoModel
from reelign.store import Memory, Store


class Latents:
    """Latents by content, kept in the store of the model that they belong to.

    A model that does not say what its latents hang on (`codec_identity`) has them kept in main memory, until another
    one comes. A model's encoder does not train, so what was encoded stays right while the policy learns.
    """

    def __init__(self) -> None:
        self._model: VideoModel | None = None
        self._own: Store = Memory()

    def get(self, content: str, model: VideoModel, videos: Callable[[], Videos]) -> Float[Tensor, "b *latent"]:
        """The latents of `content`, in main memory; `videos` makes its clips where they are not known.

        `content` says all that these clips hang on beside the model's geometry. They are encoded together and with
        nothing else, so a latent does not depend on what is drawn with it.
        """
        if model is not self._model:
            self._model, self._own = model, Memory()
        identity = getattr(model, "codec_identity", "")
        store: Store = getattr(model, "store", self._own) if identity else self._own
        key = f"latents|{identity}|{model.geometry}|{content}"
        with torch.no_grad():
            return store.get(key, lambda: model.encode_video(videos()))


def content(path: Path) -> str:
    """The sha256 of a file, which is read once a process while its size and its time stay the same.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    about = path.stat()
    return _content(path, about.st_ino, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _content(path: Path, *version: int) -> str:
    """`version` changes when the file does."""
    return digest(path)
