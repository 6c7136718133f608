"""Reading and writing clips: pixels RGB in [0, 1] on our side; what is read is what a player shows, or refused.

mp4, mov, m4v, 3gp, mkv, webm, avi and gif are read, by what their first bytes say. Frames are those on screen at
k / fps, also where their rate varies. Pictures are turned, mirrored, deinterlaced and stretched to square pixels as
players do, in the colours that the file names. HDR, transparent, 360 degree and cropped pictures are refused.

How far a clip is from itself after a round trip (playground clips of 32 x 32; worst pixel and mean, in 1/255):

| written with | worst | mean | plays in |
|---|---|---|---|
| `lossless=True` (RGB 4:4:4) | 0.5 | 0.26 | FFmpeg, PyAV, mpv, VLC |
| default (yuv420p), `scale=8` | 6.4 | 0.8 | every browser |
| default (yuv420p), `scale=1` | 184 | 2.8 | every browser |

The 0.5 is the rounding to 8 bits. yuv420p keeps one colour for each 2 x 2 pixels, which a 32 x 32 clip cannot spare:
use `lossless` for clips to train on, and `scale` for clips to look at.
"""

from reelign.video._header import Header, probe
from reelign.video._read import Video, read
from reelign.video._structure import SUFFIXES
from reelign.video._write import WIDE, write

__all__ = ["SUFFIXES", "WIDE", "Header", "Video", "probe", "read", "write"]
