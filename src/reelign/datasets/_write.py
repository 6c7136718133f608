"""Writing what the data sets read: whole or not at all, and never over an older data set."""

import json
from collections.abc import Collection, Mapping, Sequence
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
    _one_each(folder, clips, captions)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadData(f"{folder} exists and is not an empty folder; remove it or write elsewhere.")
    with replacing_folder(folder) as temporary:
        for index, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
            video.write(temporary / f"{index:06d}.mp4", clip, fps, lossless=True)
            write_text(temporary / f"{index:06d}.txt", f"{caption}\n")
    return folder


def write_prompts(path: str | Path, texts: Sequence[str], slices: Sequence[Mapping[str, str]] = ()) -> Path:
    """Write prompts for `prompt_file`: one a line (.txt), or with their slices (.jsonl). Replaces an older file.

    Returns:
        The path.

    Raises:
        BadData: no prompts, an empty one, slices that do not go with them or with the format, or a prompt that a .txt
            line cannot hold.
        RunStopped: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    if not texts or not all(text.strip() for text in texts):
        raise BadData(f"cannot write {path}: {len(texts)} prompts, none of which may be empty; give at least one.")
    if slices and len(slices) != len(texts):
        raise BadData(
            f"cannot write {path}: {len(texts)} prompts with {len(slices)} slices; give one mapping a prompt, or none."
        )
    if path.suffix == ".jsonl":
        rows = zip(texts, slices or [{}] * len(texts), strict=True)
        lines = [_json({"prompt": text, **({"slices": dict(of)} if of else {})}) for text, of in rows]
    elif path.suffix == ".txt" and not slices and not any(t.lstrip().startswith("#") or "\n" in t for t in texts):
        lines = list(texts)
    else:
        raise BadData(
            f"cannot write {path}: a .txt file holds prompts of one line that do not begin with '#', and no slices; "
            "write a .jsonl file."
        )
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def write_pairs(
    path: str | Path,
    texts: Sequence[str],
    chosen: Float[Tensor, "b f 3 H W"],
    rejected: Float[Tensor, "b f 3 H W"],
    fps: float | int,
    ties: Collection[int] = (),
) -> Path:
    """Write pairs for `pair_list`: clips to a folder named after the list, and last the list that makes them count.

    Args:
        path: of the .jsonl file, which must not exist; its clips go to `<stem>/000000-chosen.mp4`, ...
        texts: the prompts.
        chosen: better clips, RGB in [0, 1]; written without loss.
        rejected: worse clips.
        fps: frames a second.
        ties: positions of pairs in which neither clip is better.

    Returns:
        The path.

    Raises:
        BadData: the list exists or is no .jsonl, a prompt is empty, or there are not as many of each.
        RunStopped: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix != ".jsonl" or path.exists():
        raise BadData(
            f"cannot write {path}: the list must end in .jsonl and not exist yet; choose another name or remove it."
        )
    _one_each(path, chosen, texts)
    _one_each(path, rejected, texts)
    if wrong := [index for index in ties if not 0 <= index < len(texts)]:
        raise BadData(f"cannot write {path}: ties has {wrong[0]}; allowed are positions from 0 to {len(texts) - 1}.")
    lines = []
    for index, text in enumerate(texts):
        row = {"prompt": text}
        for side, clips in (("chosen", chosen), ("rejected", rejected)):
            row[side] = f"{path.stem}/{index:06d}-{side}.mp4"
            video.write(path.parent / row[side], clips[index], fps, lossless=True)
        lines.append(_json(row | ({"label": "tie"} if index in ties else {})))
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def _one_each(path: Path, clips: Tensor, texts: Sequence[str]) -> None:
    if len(clips) != len(texts) or not texts or not all(text.strip() for text in texts):
        raise BadData(
            f"cannot write {path}: {len(clips)} clips with {len(texts)} texts; each clip needs one, not empty."
        )


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False)
