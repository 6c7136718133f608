"""Clips in the hand: they show themselves in a notebook, and can be cut, saved and scored."""

import base64
import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from reelign import video
from reelign.batches import Request, Videos, requests, texts
from reelign.errors import BadData
from reelign.files import write_text


@dataclass(frozen=True, eq=False)
class Shots:
    """Clips of one size, each with its prompt.

    `shots[0]` and `shots[2:4]` are shots too.

    Raises:
        BadData: frames of another form, or not one prompt a clip.
    """

    frames: Tensor
    """RGB in [0, 1], [n f 3 H W]."""
    fps: float | int
    """Frames a second."""
    prompts: Sequence[str]
    """What each shows."""
    requests: Sequence[Request] = ()
    """What each was asked to be, where that is more than its prompt: a frame to begin from, slices."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "requests", tuple(self.requests) or requests(self.prompts))
        object.__setattr__(self, "fps", float(self.fps))
        shape = list(self.frames.shape)
        if len(shape) != 5 or shape[2] != 3 or not self.frames.is_floating_point():
            raise BadData(
                f"the frames are {str(self.frames.dtype).removeprefix('torch.')} of shape {shape}; give RGB in [0, 1] "
                "as floats of shape [clips, frames, 3, height, width]."
            )
        if len(self.prompts) != shape[0]:
            raise BadData(f"there are {shape[0]} clips and {len(self.prompts)} prompts; give one prompt a clip.")
        if texts(self.requests) != self.prompts:
            raise BadData("the requests say something else than the prompts; give one a clip, or none.")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, cut: int | slice) -> "Shots":
        """One of them, or some."""
        rows = range(len(self))[cut]
        if isinstance(rows, int):
            rows = range(rows, rows + 1)
        asked = tuple(self.requests[row] for row in rows)
        return Shots(self.frames[list(rows)], self.fps, texts(asked), asked)

    @property
    def videos(self) -> Videos:
        """As rewards and metrics take them."""
        return Videos(self.frames, self.fps)

    def save(self, folder: str | Path, *, lossless: bool = False, scale: int | None = None) -> list[Path]:
        """Write each clip as 000.mp4 with its prompt in 000.txt: a folder that the dataset `clip_folder` reads.

        Args:
            folder: is made; older files of these names are replaced.
            lossless: keep every 8-bit value, for clips to train on and to score; browsers do not play these.
            scale: each pixel becomes scale x scale; by default tiny clips become about 256 pixels wide,
                unless lossless.

        Returns:
            The paths of the clips.

        Raises:
            BadData: a clip that cannot be written, such as one with values outside [0, 1].
            RunStopped: the disk is full, or the place cannot be written.
        """
        folder = Path(folder).expanduser()
        digits = max(3, len(str(len(self) - 1)))
        paths = [folder / f"{number:0{digits}d}.mp4" for number in range(len(self))]
        for path, clip, prompt in zip(paths, self.frames, self.prompts, strict=True):
            video.write(path, clip, self.fps, scale, lossless=lossless)
            write_text(path.with_suffix(".txt"), f"{prompt}\n")
        return paths

    def __repr__(self) -> str:
        _, count, _, height, width = self.frames.shape
        clips = f"{len(self)} clip{'' if len(self) == 1 else 's'}"
        return f"<{clips} of {count} frames of {height} x {width} at {self.fps:g} fps>"

    def _repr_html_(self) -> str:
        """Clips beside each other, each above its prompt; what a notebook shows."""
        shown = "".join(map(self._figure, self.frames, self.prompts))
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{shown}</div>'

    def _figure(self, clip: Float[Tensor, "f 3 H W"], prompt: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            video.write(path, clip, self.fps)
            data = base64.b64encode(path.read_bytes()).decode("ascii")
        wide = video.WIDE
        return (
            f'<figure style="margin:0;width:{wide}px"><video src="data:video/mp4;base64,{data}" width="{wide}" '
            f"autoplay loop muted playsinline controls></video>"
            f"<figcaption>{html.escape(prompt)}</figcaption></figure>"
        )
