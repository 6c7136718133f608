"""Data sets of clip files: looked at, fitted to the model and encoded once, with a limit on how many are left out."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from reelign import video
from reelign.batches import Prompts, Request, Videos, requests
from reelign.core import rng
from reelign.datasets import _fit, _latents
from reelign.datasets._draw import Source, digest, order
from reelign.datasets._files import UserPath, counted, several
from reelign.errors import BadData, cut, reason
from reelign.parts import PartConfig
from reelign.protocols import Geometry, VideoModel

log = logging.getLogger(__name__)

READ = f"1, av {version('av')}"
"""Changes whenever the same file may give other frames; raise the number if it is by what stands here."""
NO_CAPTION, UNREADABLE, MISFIT = "have no caption", "cannot be read", "do not fit"
REMEDIES = {
    NO_CAPTION: "write each one's caption to a .txt file of the same name",
    UNREADABLE: "mend or remove them",
    "exact": "set dataset.fit to 'resize' to crop and subsample longer clips, or convert them",
    "resize": "use longer clips, or remove these",
}
"""What can be done about clips that are left out; about a misfit, by what fitting was asked for."""
GIVEN = ("first_frame", "last_frame")
"""What a clip can give of itself."""


class ClipConfig(PartConfig):
    """Where clips are, and what to do with those that do not fit or cannot be read."""

    path: UserPath
    """Of the data set; `~` is the home folder."""
    fit: _fit.Fit = "exact"
    """exact: take clips of the model's frames, size and frame rate only. resize: crop around the centre, resize
    bilinearly, and take the frames that are on screen at the model's moments."""
    start: _fit.Start = "first"
    """Which part of a longer clip `resize` takes: its first seconds, the middle, or a part that the seed draws for each
    clip. It stays the same all through training, since a clip is encoded once."""
    quarantine: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips that may be left out since they are unreadable, do not fit or have no caption; they are
    reported. More of them is an error."""
    seed: int = 0
    """Of the shuffles, and of random starts."""

    @model_validator(mode="after")
    def _start_needs_resize(self) -> "ClipConfig":
        if self.start != "first" and self.fit != "resize":
            raise ValueError(f"start: {self.start} cuts longer clips, which fit: {self.fit} refuses; set fit to resize")
        return self


Entry = tuple[str, tuple[Path, ...]]
"""What clips show, and the clip or the pair of clips."""


class ClipSource(Source):
    """Captioned clips, or pairs of clips. Remembers which of them are left out and why."""

    def __init__(
        self, config: ClipConfig, root: Path, entries: Sequence[Entry], uncaptioned: Sequence[Path] = ()
    ) -> None:
        """Look at every file's header and packets; nothing is decoded beyond the first frame.

        Args:
            config: what may be left out, and how clips are cut.
            root: the folder that names are relative to.
            entries: the clips, repeats allowed.
            uncaptioned: clips that are left out since nothing says what they show.

        Raises:
            BadData: more of them are unreadable or without a caption than allowed.
        """
        super().__init__(config, str(config.path))
        self._root, self._entries = root, entries
        self._headers: dict[Path, video.Header | None] = dict.fromkeys(p for _, paths in entries for p in paths)
        self._faults: dict[str, dict[Path, str]] = {NO_CAPTION: {}, UNREADABLE: {}, MISFIT: {}}
        self._latents = _latents.Latents()
        self._contents: dict[Path, str] = {}
        """Of the clips that were drawn; a run goes on with what it has seen of a clip that is changed or gone."""
        self._fits: Geometry | None = None
        for path in uncaptioned:
            self._faults[NO_CAPTION][path] = f"{self._name(path)} has no caption"
        for path in self._headers:
            try:
                self._headers[path] = video.probe(path)
            except BadData as error:
                self._faults[UNREADABLE][path] = str(error).rstrip(".")
        self._limit()

    @property
    def _all(self) -> int:
        """How many clips there are, those that are left out included."""
        return len(self._headers) + len(self._faults[NO_CAPTION])

    @property
    def _faulty(self) -> dict[str, str]:
        return {self._name(path): why for faults in self._faults.values() for path, why in faults.items()}

    @property
    def left_out(self) -> dict[str, str]:
        """Clips left out up to now by name, and why, with the name in it."""
        return self._faulty

    @property
    def _note(self) -> str:
        """How many clips are read, and what was done to some of their pictures."""
        read = [header for path, header in self._headers.items() if header and not self._is_left_out(path)]
        notes = Counter(note for header in read for note in header.notes)
        notes["of uneven frame rate"] = sum(not header.even for header in read)
        done = ", ".join(f"{count} {note}" for note, count in notes.items() if count)
        return f"{counted(len(read), 'clip')} read" + (f" ({done})" if done else "")

    def all_prompts(self) -> Prompts:
        """Every caption, in the order of the entries."""
        return Prompts(requests(text for text, _ in self._entries))

    def _name(self, path: Path) -> str:
        """A clip's name within the data set."""
        return os.path.relpath(path, self._root)

    def _size(self, path: Path) -> int:
        """A clip's size in bytes; -1 if it is not there."""
        try:
            return path.stat().st_size
        except (OSError, ValueError):
            return -1

    def _is_left_out(self, path: Path) -> bool:
        return any(path in faults for faults in self._faults.values())

    def _limit(self, remedy: str = "set") -> None:
        """Refuse the data set if more clips are left out than allowed, or all; `remedy` is what to do with a share."""
        bad, total = sum(map(len, self._faults.values())), self._all
        allowed = self._config.quarantine
        if not bad or (bad / total <= allowed and bad < total):
            return
        problems = {fault: self._problem(fault) for fault, files in self._faults.items() if files}
        limit = (
            ", and none is left" if bad == total else f", and quarantine: {allowed:g} allows fewer" if allowed else ""
        )
        remedies = [self._remedy(next(iter(problems)))]
        if 2 * bad <= total:  # more than half is no matter of a few bad ones
            enough = -(-100 * bad // total) / 100
            remedies.append(f"{remedy} `quarantine: {enough:g}` in this dataset's settings to leave them out")
        raise BadData(
            f"{bad} of {total} clips of {self._config.path} {' or '.join(problems.values())}{limit}: "
            f"{several(list(self._faulty.values()))}; {', or '.join(remedies)}."
        )

    def _problem(self, fault: str) -> str:
        if fault != MISFIT:
            return fault
        made = self._fits
        assert made is not None
        problem = (
            "do not have" if self._config.fit == "exact" else "are too short, or have too few frames a second, for"
        )
        return f"{problem} the model's {video.Header(made.frames, made.height, made.width, made.fps)}"

    def _remedy(self, fault: str) -> str:
        return REMEDIES[self._config.fit if fault == MISFIT else fault]

    def fit(self, geometry: Geometry) -> None:
        """Leave out the clips that the model cannot take.

        Raises:
            BadData: more than allowed are left out, since they do not have its frames, size and even frame rate
                ("exact"), or are too short or slow ("resize").
        """
        if geometry != self._fits:
            self._fits = geometry
            self._faults[MISFIT] = {
                path: f"{self._name(path)} has {header}"
                for path, header in self._headers.items()
                if header and path not in self._faults[UNREADABLE] and _fit.misfit(header, geometry, self._config.fit)
            }
        self._limit()

    def _seed(self, path: Path) -> int:
        """Of a clip's random start."""
        return rng.seed_for(self._config.seed, "start", digest([[self._name(path)]]))

    def _frames(self, path: Path, geometry: Geometry) -> Float[Tensor, "f 3 H W"]:
        if self._config.fit == "exact":
            return video.read(path, frames=geometry.frames, size=(geometry.height, geometry.width)).frames
        header = self._headers[path]
        assert header is not None
        shown = _fit.frames(header, geometry, self._config.start, self._seed(path))
        return _fit.pixels(video.read(path, keep=shown).frames, geometry.height, geometry.width)

    def _read(self, path: Path, geometry: Geometry) -> Videos:
        videos = Videos(self._frames(path, geometry)[None], geometry.fps)
        if self._content(path) != self._contents[path]:
            raise BadData(f"{cut(str(path), 200)} was changed while it was in use; put it back, or start a new run.")
        return videos

    def _content(self, path: Path) -> str:
        try:
            return _latents.content(path)
        except OSError as error:
            raise BadData(f"{cut(str(path), 200)} cannot be read: {reason(error)}.") from error

    def _key(self, path: Path) -> str:
        """All that the frames of a clip hang on beside the model's geometry."""
        if path not in self._contents:
            self._contents[path] = self._content(path)
        config = self._config
        fitted = f"{config.fit} {config.start}" + (f" {self._seed(path)}" if config.start == "random" else "")
        return f"clip {self._contents[path]}|{fitted}|{READ}"

    def _latent(self, path: Path, model: VideoModel) -> Float[Tensor, "*latent"] | None:
        """A clip's latent, or None if the clip is left out; call `fit` first.

        Raises:
            BadData: with this one, more clips are left out than allowed.
        """
        if self._is_left_out(path):
            return None
        try:
            return self._latents.get(self._key(path), model, lambda: self._read(path, model.geometry))[0]
        except BadData as error:
            self._faults[UNREADABLE][path] = str(error).rstrip(".")
            self._limit("start anew with")  # a run goes on with the settings that it began with
            log.warning("left out: %s", error)
            return None

    def draw(self, n: int, draw: int, model: VideoModel) -> tuple[list[Tensor], tuple[Request, ...]]:
        """Draw number `draw` of `n` entries: latents of each clip of an entry, a batch, and what the entries show.

        One with a clip that is left out gives its place to the next one in the shuffle. Only if `n` exceeds the others
        does one come twice. A request gives the clip's own frames, where the model begins from such.

        Raises:
            BadData: too many clips do not fit the model or are unreadable, or each entry has one that is left out.
        """
        self.fit(model.geometry)
        kinds = [kind for kind in GIVEN if kind in getattr(model, "takes", ())]
        found: list[tuple[Tensor, ...]] = []
        shown: list[Request] = []
        for index in order(len(self._entries), n, draw, self._config.seed):
            text, paths = self._entries[index]
            known = [self._latent(path, model) for path in paths]
            latents = tuple(latent for latent in known if latent is not None)
            if len(latents) == len(paths):
                found.append(latents)
                shown.append(Request(text, len(shown), given=dict.fromkeys(kinds, paths[0])))
            if len(found) == n:
                break
        if not found:
            raise BadData(
                f"each pair of {self._config.path} has a clip that is left out: "
                f"{several(list(self._faulty.values()))}; mend the clips."
            )
        taken = [k % len(found) for k in range(n)]
        sides = zip(*(found[k] for k in taken), strict=True)
        return [torch.stack(side).to(model.device) for side in sides], tuple(shown[k] for k in taken)
