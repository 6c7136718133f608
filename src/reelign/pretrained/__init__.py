"""Model folders: read with stock loaders, and only after their JSON files and safetensors headers have been compared.

What is incomplete, damaged, of another model or could run code is refused from a few kB, before a weight is read.
"""

from reelign.pretrained.copies import copy, digest, files_of
from reelign.pretrained.part import Part, diffusers, load, transformers
from reelign.pretrained.paths import locate, read_json, reading, size_of

__all__ = [
    "Part",
    "copy",
    "diffusers",
    "digest",
    "files_of",
    "load",
    "locate",
    "read_json",
    "reading",
    "size_of",
    "transformers",
]
