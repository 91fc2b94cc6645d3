"""The compression of an array's chunks: a codec by name, and its level.

zstd         small files; what arrays have unless told otherwise
blosc-lz4    larger files, written and read faster
none         the voxels themselves
"""

import re
from typing import NamedTuple

from emsuite.common.errors import BadInput


class Compression(NamedTuple):
    """A codec of `COMPRESSIONS` and its level."""

    name: str
    level: int

    def __str__(self) -> str:
        return f"{self.name}:{self.level}"


COMPRESSIONS: dict[str, tuple[int, range]] = {
    "zstd": (0, range(23)),
    "blosc-lz4": (5, range(10)),
    "none": (0, range(1)),
}
"""The codecs of chunks by name: the level if none is said, and all levels. Level 0 of zstd is its own default, 3."""
ZSTD = Compression("zstd", 0)


def read_compression(text: str) -> Compression:
    """Return the compression that a text such as `zstd`, `blosc-lz4:5` or `none` names; raise BadInput for others."""
    match = re.fullmatch(r"([a-z0-9-]+?)(?::(\d{1,2}))?", text)
    if match is None or match[1] not in COMPRESSIONS:
        raise BadInput(f"--compression {text}: expected {', '.join(COMPRESSIONS)}, or one with its level, as zstd:5")
    default, levels = COMPRESSIONS[match[1]]
    level = default if match[2] is None else int(match[2])
    if level not in levels:
        expected = f"{levels[0]} to {levels[-1]}" if len(levels) > 1 else "none"
        raise BadInput(f"--compression {text}: level {level}, expected {expected}")
    return Compression(match[1], level)
