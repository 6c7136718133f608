"""Pairs as `pair_list` reads them."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reelign import video


def write_pairs(path: Path, texts: Sequence[str], chosen: Tensor, rejected: Tensor, fps: float) -> Path:
    """A .jsonl file, and its clips [b f 3 H W] as `<stem>/000000-chosen.mp4`, ..."""
    lines = []
    for index, text in enumerate(texts):
        row = {"prompt": text}
        for side, clips in (("chosen", chosen), ("rejected", rejected)):
            row[side] = f"{path.stem}/{index:06d}-{side}.mp4"
            video.write(path.parent / row[side], clips[index], fps, lossless=True)
        lines.append(f"{json.dumps(row)}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path
