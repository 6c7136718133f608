"""What the bytes of a file say before FFmpeg sees them: its kind, whether its end is there, cropping, and paces.

FFmpeg reads on without a word where a Matroska, AVI or GIF file is cut off, its decoders do not apply the cropping that
a container asks for, and it plays all parts of an edit list at one pace.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".gif")
"""Of the files that are taken for clips. What a file is, its first bytes say."""

_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"wide", b"free", b"skip", b"pnot", b"uuid", b"udta")
"""What stands at the top level of MP4 and QuickTime files."""
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_TRACKS, _ENTRY, _VIDEO = 0x1654AE6B, 0xAE, 0xE0
_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
_VISUAL_ENTRY = 78
"""Bytes of a sample description of MP4 before the boxes in it; its width and height are the bytes from 24 to 28."""
_EDIT, _LONG_EDIT = struct.Struct(">IiI"), struct.Struct(">QqI")
"""An entry of an edit list, in versions 0 and 1: duration, where in the clip (below 0: nothing is shown), pace."""
_LONGEST = 2**20
"""Bytes of an edit list that are read."""

Span = tuple[int, int]
"""First byte, and first byte after."""
Children = Callable[[BinaryIO, Span], Iterator[tuple[bytes | int, Span]]]


def demuxer(file: BinaryIO) -> str | None:
    """FFmpeg's name for the kind of file, from its first bytes; None: none of those that are read.

    Play lists, which name other files, are of no kind.
    """
    file.seek(0)
    head = file.read(12)
    if head[4:8] in _BOXES:
        return "mp4"
    if head[:4] == _EBML.to_bytes(4):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return "gif" if head[:6] in (b"GIF87a", b"GIF89a") else None


def cut_off(file: BinaryIO, kind: str) -> bool:
    """Whether the file ends before its own structure does."""
    size = file.seek(0, os.SEEK_END)
    if kind == "mp4":  # cameras leave junk behind the last box, so only known boxes count
        return any(name in _BOXES and end > size for name, (_, end) in _boxes(file, (0, size)))
    if kind == "matroska":
        return any(end > size for _, (_, end) in _elements(file, (0, size)))
    if kind == "avi":
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 > size
    file.seek(max(0, size - 512))
    return not file.read().rstrip(b"\0").endswith(b";")


def cropped(file: BinaryIO, kind: str) -> bool:
    """Whether the container asks players to show a part of the picture only."""
    whole = (0, file.seek(0, os.SEEK_END))
    if kind == "mp4":
        return any(
            _smaller_aperture(file, entry)
            for start, end in _at(_boxes, file, whole, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
            for _, entry in _boxes(file, (start + 8, end))
        )
    if kind == "matroska":
        pictures = _at(_elements, file, whole, _SEGMENT, _TRACKS, _ENTRY, _VIDEO)
        crops = (crop for picture in pictures for name, crop in _elements(file, picture) if name in _CROPS)
        return any(any(_read(file, crop)) for crop in crops)
    return False


def paced(file: BinaryIO, kind: str) -> bool:
    """Whether an edit list asks players to show a part of the clip slower, faster or standing still."""
    if kind != "mp4":
        return False
    for track in _at(_boxes, file, (0, file.seek(0, os.SEEK_END)), b"moov", b"trak"):
        kinds = [_read(file, handler)[8:12] for handler in _at(_boxes, file, track, b"mdia", b"hdlr")]
        edits = [_read(file, edits, _LONGEST) for edits in _at(_boxes, file, track, b"edts", b"elst")]
        if b"vide" in kinds and any(pace != 1 for each in edits for pace in _paces(each)):
            return True
    return False


def _paces(edits: bytes) -> Iterator[float]:
    """How fast each entry of an edit list shows its part: 1 is as recorded, 0 a still."""
    entry = _LONG_EDIT if edits[:1] == b"\1" else _EDIT
    count = min(int.from_bytes(edits[4:8]), (len(edits) - 8) // entry.size)
    for _, begin, pace in entry.iter_unpack(edits[8 : 8 + max(0, count) * entry.size]):
        if begin >= 0:
            yield pace / 2**16


def _read(file: BinaryIO, span: Span, most: int = 64) -> bytes:
    file.seek(span[0])
    return file.read(max(0, min(most, span[1] - span[0])))


def _at(children: Children, file: BinaryIO, span: Span, *names: bytes | int) -> Iterator[Span]:
    """The contents of all that lies at a path of names below a span."""
    if not names:
        yield span
        return
    for name, inner in children(file, span):
        if name == names[0]:
            yield from _at(children, file, inner, *names[1:])


def _boxes(file: BinaryIO, within: Span) -> Iterator[tuple[bytes | int, Span]]:
    """Boxes of an MP4 file: name and content. The last may end beyond what it lies in."""
    start, end = within
    while start + 8 <= end:
        head = _read(file, (start, start + 16))
        size, name, before = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1:
            size, before = int.from_bytes(head[8:16]), 16
        if size == 0:  # up to the end
            size = end - start
        if size < before:
            return
        yield name, (start + before, start + size)
        start += size


def _smaller_aperture(file: BinaryIO, entry: Span) -> bool:
    width, height = (int.from_bytes(_read(file, (entry[0] + at, entry[0] + at + 2))) for at in (24, 26))
    for aperture in _at(_boxes, file, (entry[0] + _VISUAL_ENTRY, entry[1]), b"clap"):
        clean = _read(file, aperture)
        shown_width, per_width, shown_height, per_height = (int.from_bytes(clean[k : k + 4]) for k in (0, 4, 8, 12))
        if shown_width < width * per_width or shown_height < height * per_height:
            return True
    return False


def _elements(file: BinaryIO, within: Span) -> Iterator[tuple[bytes | int, Span]]:
    """Elements of a Matroska file before its first cluster: name and content, which may end beyond what it lies in."""
    start, end = within
    while start < end:
        head = _read(file, (start, start + 12))
        name_length = 9 - head[0].bit_length() if head else 9
        if name_length > 4 or len(head) <= name_length:
            return
        size_length = 9 - head[name_length].bit_length()
        name, after = int.from_bytes(head[:name_length]), name_length + size_length
        if size_length > 8 or len(head) < after or name == _CLUSTER:
            return
        unknown = (1 << 7 * size_length) - 1
        size = int.from_bytes(head[name_length:after]) & unknown
        stop = end if size == unknown else start + after + size  # written live, it ends where the file does
        yield name, (start + after, stop)
        start = stop
