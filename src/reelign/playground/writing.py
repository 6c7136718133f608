"""Writing data sets in the formats that users bring: whole or not at all, and never over older clips."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from reelign import video
from reelign.errors import BadData
from reelign.files import replacing_folder, write_text


def write_clip_folder(
    folder: str | Path, clips: Float[Tensor, "b f 3 H W"], captions: Sequence[str], fps: float | int
) -> Path:
    """Write clips as `000000.mp4` + `000000.txt`, ...; the folder appears under its name once all of it is written.

    Args:
        folder: must not exist, or be empty.
        clips: RGB in [0, 1]; written without loss, see `video.write`.
        captions: one a clip.
        fps: frames a second.

    Returns:
        The folder.

    Raises:
        BadData: the folder has something in it, a caption is empty, or there is not one caption a clip.
        RunStopped: the disk is full, or the place cannot be written.
    """
    folder = Path(folder)
    if len(clips) != len(captions) or not captions or not all(text.strip() for text in captions):
        raise BadData(
            f"cannot write {folder}: {len(clips)} clips with {len(captions)} captions; each clip needs one, not empty."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadData(f"{folder} exists and is not an empty folder; remove it or write elsewhere.")
    with replacing_folder(folder) as temporary:
        for index, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
            video.write(temporary / f"{index:06d}.mp4", clip, fps, lossless=True)
            write_text(temporary / f"{index:06d}.txt", f"{caption}\n")
    return folder


def write_prompts(path: Path, texts: Sequence[str], slices: Sequence[Mapping[str, str]] = ()) -> Path:
    """Write prompts for `prompt_file`, with their slices, as .jsonl. Replaces an older file.

    Returns:
        The path.

    Raises:
        BadData: no prompts, an empty one, or slices that do not go with them.
        RunStopped: the disk is full, or the place cannot be written.
    """
    if not texts or not all(text.strip() for text in texts):
        raise BadData(f"cannot write {path}: {len(texts)} prompts, none of which may be empty; give at least one.")
    if slices and len(slices) != len(texts):
        raise BadData(
            f"cannot write {path}: {len(texts)} prompts with {len(slices)} slices; give one mapping a prompt, or none."
        )
    told = [{"slices": dict(each)} if each else {} for each in slices] or [{}] * len(texts)
    rows = ({"prompt": text, **more} for text, more in zip(texts, told, strict=True))
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return path
