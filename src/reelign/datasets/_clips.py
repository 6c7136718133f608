"""Clip files as latents: read, fitted to the model and encoded once, with a limit on how many may be unreadable."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from reelign import video
from reelign.batches import Videos
from reelign.datasets._files import first_three
from reelign.errors import BadData
from reelign.protocols import Geometry, VideoModel

log = logging.getLogger(__name__)

Fit = Literal["exact", "resize"]
SAME_FPS = 0.01
"""Relative difference of frame rates that counts as none (24 and 24000/1001 are the same)."""


class Latents:
    """Latents of one model by name, in main memory. Holds the model they belong to; another model starts afresh.

    A model's encoder does not train, so what was encoded stays right while the policy learns.
    """

    def __init__(self) -> None:
        """Empty."""
        self._model: VideoModel | None = None
        self._known: dict[object, Tensor] = {}

    def get(self, key: object, model: VideoModel, videos: Callable[[], Videos]) -> Float[Tensor, "b *latent"]:
        """The latents that belong to `key`; `videos` makes their clips where they are not known yet.

        What belongs to a key is encoded together and with nothing else, so a latent does not depend on what is drawn
        with it.
        """
        if model is not self._model:
            self._model, self._known = model, {}
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = model.encode_video(videos()).cpu()
        return self._known[key]


def batch(latents: list[Tensor], model: VideoModel) -> Float[Tensor, "b *latent"]:
    """Latents as a batch on the model's device."""
    return torch.stack(latents).to(model.device)


def fitted_times(header: video.Header, geometry: Geometry) -> list[int]:
    """Which frames show a clip from its beginning at the model's frame rate: the nearest to each of its moments.

    Returns:
        `geometry.frames` indices. The last may lie beyond the clip, which is then too short; some may be equal, and the
        clip then has fewer frames a second than the model.
    """
    return [int(k * header.fps / geometry.fps + 0.5) for k in range(geometry.frames)]


def fitted_pixels(frames: Float[Tensor, "f 3 H W"], height: int, width: int) -> Float[Tensor, "f 3 h w"]:
    """The largest centred part of that aspect ratio, resized bilinearly (anti-aliased)."""
    _, _, full_height, full_width = frames.shape
    scale = min(full_height / height, full_width / width)
    crop_height = min(full_height, max(1, round(height * scale)))
    crop_width = min(full_width, max(1, round(width * scale)))
    top, left = (full_height - crop_height) // 2, (full_width - crop_width) // 2
    part = frames[:, :, top : top + crop_height, left : left + crop_width]
    resized = functional.interpolate(part, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0, 1)  # the weights' rounding may leave [0, 1] by an ulp


def _misfit(header: video.Header, geometry: Geometry, fit: Fit) -> bool:
    if fit == "resize":
        times = fitted_times(header, geometry)
        return times[-1] >= header.frames or len(set(times)) < len(times)
    same_size = (header.frames, header.height, header.width) == (geometry.frames, geometry.height, geometry.width)
    return not same_size or abs(header.fps / geometry.fps - 1) > SAME_FPS


class ClipFiles:
    """Clip files of a data set. Remembers which of them turned out unreadable, and the latents of one model."""

    def __init__(self, paths: Iterable[Path], root: Path, fit: Fit, quarantine: float) -> None:
        """Look at every file's header and packets; nothing is decoded beyond the first frame.

        Args:
            paths: the clips, repeats allowed.
            root: what sentences call the data set.
            fit: "exact" or "resize".
            quarantine: share of the files that may be unreadable.

        Raises:
            BadData: more of them are unreadable than that.
        """
        self._root, self._quarantine = root, quarantine
        self._fit: Fit = fit
        self._headers: dict[Path, video.Header | None] = dict.fromkeys(paths)
        self.unreadable: dict[Path, str] = {}
        """Files left out, and why."""
        self._latents = Latents()
        self._fits: Geometry | None = None
        for path in self._headers:
            try:
                self._headers[path] = video.probe(path)
            except BadData as error:
                self.unreadable[path] = str(error)
        self._limit()
        for reason in self.unreadable.values():
            log.warning("left out: %s", reason)

    def _limit(self) -> None:
        bad, total = len(self.unreadable), len(self._headers)
        if bad > self._quarantine * total or bad == total:
            raise BadData(
                f"{bad} of {total} clips of {self._root} cannot be read, and dataset.quarantine allows a share of "
                f"{self._quarantine:g}: {first_three([reason.rstrip('.') for reason in self.unreadable.values()])}."
            )

    def fit(self, geometry: Geometry) -> None:
        """Refuse clips that the model cannot take.

        Raises:
            BadData: some do not have its frames, size and frame rate ("exact"), or are too short or slow ("resize").
        """
        if geometry == self._fits:
            return
        known = [(path, header) for path, header in self._headers.items() if header and path not in self.unreadable]
        wrong = [f"{path.name} has {header}" for path, header in known if _misfit(header, geometry, self._fit)]
        if wrong:
            wanted = video.Header(geometry.frames, geometry.height, geometry.width, geometry.fps)
            problem = (
                "do not have"
                if self._fit == "exact"
                else "are too short, or have too few frames a second, to be cut to"
            )
            remedy = (
                "set dataset.fit to 'resize' to crop and subsample longer clips, or convert them"
                if self._fit == "exact"
                else "use longer clips, or remove these"
            )
            raise BadData(
                f"{len(wrong)} of {len(known)} clips of {self._root} {problem} the model's {wanted}: "
                f"{first_three(wrong)}; {remedy}."
            )
        self._fits = geometry

    def _read(self, path: Path, geometry: Geometry) -> Videos:
        if self._fit == "exact":
            clip = video.read(path, frames=geometry.frames, size=(geometry.height, geometry.width))
            return Videos(clip.frames[None], geometry.fps)
        header = self._headers[path]
        assert header is not None
        frames = video.read(path, keep=fitted_times(header, geometry)).frames
        return Videos(fitted_pixels(frames, geometry.height, geometry.width)[None], geometry.fps)

    def latent(self, path: Path, model: VideoModel) -> Float[Tensor, "*latent"] | None:
        """A clip's latent, or None if the clip cannot be read and may be left out; call `fit` first.

        Raises:
            BadData: with this one, more clips are unreadable than allowed.
        """
        if path in self.unreadable:
            return None
        try:
            return self._latents.get(path, model, lambda: self._read(path, model.geometry))[0]
        except BadData as error:
            self.unreadable[path] = str(error)
            self._limit()
            log.warning("left out: %s", error)
            return None
