"""Opening a file of the user's: what is refused before FFmpeg sees it, and which of its streams is the clip."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from reelign.errors import BadData, cut, reason
from reelign.video import _structure

MENDING = "copy or render it again"
READ = "mp4, mov, mkv, webm, avi and gif"
SMALL_FRAME = 2**16
"""Pixels below which starting decoder threads costs more than they save (32 x 32: 3 ms against 1 ms a clip)."""

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def status(path: Path) -> os.stat_result:
    """What the system says about the file.

    Raises:
        BadData: there is no file that could be a video.
    """
    shown = cut(str(path), 200)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise BadData(f"{shown} is a symbolic link to {os.readlink(path)}, which is not there.") from error
        raise BadData(f"there is no video at {shown}; check the path.") from error
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, no permission, a NUL
        raise BadData(f"{shown} cannot be read ({reason(error)}); check the path.") from error
    if not stat.S_ISREG(found.st_mode):
        raise BadData(f"{shown} is not a file; give the path of one video.")
    if found.st_size == 0:
        raise BadData(f"{shown} is empty (0 bytes); a video with at least one frame is needed: {MENDING}.")
    return found


def _kind(path: Path) -> str:
    """FFmpeg's name of what the file is; refuses what FFmpeg would read wrongly without a word."""
    try:
        with path.open("rb") as file:
            kind = _structure.demuxer(file)
            if kind is None:
                file.seek(0)
                pointer = file.read(20).startswith(b"version https://git")
                problem = "is a git-lfs pointer, not the video" if pointer else "is no video of a kind that is read"
                remedy = "run git lfs pull" if pointer else f"convert it to one of {READ}"
                raise BadData(f"{path} {problem}; {remedy}.")
            if _structure.cut_off(file, kind):
                raise BadData(f"{path} is cut off, its end is missing; {MENDING}.")
            if _structure.cropped(file, kind):
                raise BadData(f"{path} asks players to show a part of its picture only; render it cropped.")
            if _structure.paced(file, kind):
                raise BadData(
                    f"{path} asks players to show parts of it slower, faster or as a still; render it as it plays."
                )
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}); {MENDING}.") from error
    return kind


@contextmanager
def opened(path: Path, *, threads: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream that is the clip; FFmpeg's errors inside the block become sentences."""
    status(path)
    kind = _kind(path)
    try:
        # The absolute path keeps FFmpeg from reading "concat:" or "http:" at the start of a name as a protocol, and the
        # fixed format keeps a play list that is named .mp4 from opening other files.
        with av.open(
            str(path.absolute()),
            format=kind,
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
        ) as container:
            stream = _clip(path, container)
            if threads and stream.height * stream.width >= SMALL_FRAME:
                stream.thread_type = "AUTO"
            else:
                stream.thread_type, stream.thread_count = "NONE", 1
            yield container, stream
    except FFmpegError as error:
        raise BadData(f"{path} cannot be read as a video ({error.strerror}); {MENDING}.") from error


def clips_of(container: InputContainer) -> list[VideoStream]:
    """The video streams that are no cover or preview pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def _clip(path: Path, container: InputContainer) -> VideoStream:
    """FFmpeg's best video stream, but never a cover picture."""
    clips = clips_of(container)
    if not clips:
        held = "a cover picture only" if container.streams.video else "no video stream"
        raise BadData(f"{path} has {held}, or is cut off before it; give a clip with pictures.")
    known = [stream for stream in clips if stream.codec_context is not None]
    if not known:
        raise BadData(f"{path} cannot be decoded (unknown codec); {MENDING}, or convert it to H.264.")
    known = [stream for stream in known if stream.frames != 1] or known  # a preview that is not marked as one
    best = container.streams.best("video")
    stream = next((s for s in known if s is best), None) or max(known, key=lambda s: s.height * s.width)
    if {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1":
        raise BadData(transparent(path))
    return stream


def transparent(path: Path) -> str:
    """The sentence for clips with a see-through background, for which players have different colours."""
    return f"{path} is transparent, and players show different backgrounds; render it onto one."
