"""neuroglancer's precomputed volumes, for reading and writing; a scale is an array, its key is the name.

precomputed://data/em                   a local folder, its first scale
precomputed://data/em/16_16_16          the scale with this key
precomputed://https://host/em           on a server, see `remote`
em.precomputed/8_8_8                    a local folder with this ending needs no scheme

A scale's axes are x, y, z, channel; the suite's arrays are (C) Z Y X, without C if there is one channel. The
resolution is in nm and may be fractional, `voxel_offset` counts voxels. Raw, compressed_segmentation, jpeg and png are
read; images are written raw, labels of 32 and 64 bits as compressed_segmentation.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_text
from emsuite.common.provenance import checksum
from emsuite.io.formats.axes import numbers
from emsuite.io.formats.base import Mode, NewArray, StoredArray
from emsuite.io.formats.tensors.n5 import parse
from emsuite.io.formats.tensors.servers import hash_of, is_remote, read_documents, store_of
from emsuite.io.formats.tensors.store import Region, TensorArray, check_file, file_store
from emsuite.io.formats.zarr_chunks import read_plain

SCHEME, INFO = "precomputed://", "info"
_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
_LABELS = ("uint32", "uint64")
_DEPTH = 3  # parts of a path that the key of a scale may have


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    root, key = _root(container, name)
    info = _info(root)
    scales = _scales(root, info)
    number = next((n for n, scale in enumerate(scales) if key == scale["key"]), None if key else _finest(scales))
    if number is None:
        raise BadInput(f"{root}: has no scale '{key}'; it holds {', '.join(scale['key'] for scale in scales[:8])}")
    if mode == "r+" and is_remote(root):
        raise BadInput(f"{root}: is on a server, which is read only; expected a local folder to write into")
    return _described(root, info, number, mode == "r+")


def array_names(container: str) -> list[str]:
    """See `Format.array_names`: the keys of the scales, or "" for a container that is a scale."""
    root, key = _root(container, "")
    return [""] if key else sorted(scale["key"] for scale in _scales(root, _info(root)))


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    try:
        root, key = _root(container, name)
    except BadInput:
        return False
    return any(key in ("", scale["key"]) for scale in _scales(root, _info(root)))


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the names and sizes of all files, and the info; of a server's volume the info alone."""
    root, _ = _root(container, name)
    return f"info:{hash_of(_info(root))}" if is_remote(root) else checksum(Path(root), read_whole=(INFO,))


def create_array(container: str, name: str, new: NewArray) -> StoredArray:
    """See `WritableFormat.create_array`; the scales of a container have one type of voxels."""
    root = _place(container)
    if is_remote(root):
        raise BadInput(f"{root}: is on a server, which is read only; expected a local folder to write into")
    kind, channels = np.dtype(new.dtype).name, new.shape[0] if len(new.shape) == 4 else 1
    size = [*reversed(new.attributes["voxel_size"])]
    key = name or "_".join(map(str, size))
    is_labels = kind in _LABELS and channels == 1
    info: dict[str, Any] = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if is_labels else "image",
        "data_type": kind,
        "num_channels": channels,
        "scales": [],
    }
    if kind not in _TYPES or len(new.shape) not in (3, 4):
        raise BadInput(f"{root}: precomputed holds no {len(new.shape)} axes of {kind}, expected 3 or 4 of {_TYPES}")
    if (Path(root) / INFO).exists():
        old = _info(root)
        if any(old.get(part) != info[part] for part in ("data_type", "num_channels")):
            raise BadInput(f"{root}: holds {old.get('data_type')}, expected a folder of its own for {kind}")
        info = old
    offset = numbers(Path(root), "offset", new.attributes.get("offset", [0] * 3))
    first = [n / s for n, s in zip(reversed(offset), numbers(Path(root), "voxel_size", size), strict=True)]
    if any(abs(n - round(n)) > Fraction(1, 1000) for n in first):
        raise BadInput(f"{root}: offset {new.attributes['offset']} nm, expected whole voxels of {size[::-1]} nm")
    scale = {
        "key": key,
        "size": [int(n) for n in reversed(new.shape[-3:])],
        "voxel_offset": [round(n) for n in first],
        "resolution": size,
        "chunk_sizes": [[int(n) for n in reversed(new.chunks[-3:])]],
        "encoding": "compressed_segmentation" if is_labels else "raw",
    }
    scale |= {"compressed_segmentation_block_size": [8, 8, 8]} if is_labels else {}
    remove(Path(root) / key)
    (Path(root) / key).mkdir(parents=True)
    write_text(Path(root) / INFO, json.dumps(info | {"scales": _with(info["scales"], key, scale)}))
    return open_array(container, key, "r+")


def _with(scales: list[dict[str, Any]], key: str, new: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the scales with a new one: in the place of that with a key, else behind the others."""
    if any(scale.get("key") == key for scale in scales):
        return [new if scale.get("key") == key else scale for scale in scales]
    return [*scales, new]


def rename_array(container: str, old: str, new: str) -> None:
    """See `WritableFormat.rename_array`."""
    root = Path(_place(container))
    info = _info(str(root))
    remove(root / new)
    (root / old).rename(root / new)
    scales = [scale | {"key": new} if scale["key"] == old else scale for scale in info["scales"] if scale["key"] != new]
    write_text(root / INFO, json.dumps(info | {"scales": scales}))


def _place(container: str) -> str:
    """Return the path or URL without the scheme. A Path has lost one of the slashes that begin an absolute path."""
    place = container.removeprefix(SCHEME).rstrip("/")
    first = place.split("/")[0]
    lost = container.startswith(SCHEME) and first and not is_remote(place) and not os.path.exists(first)
    return f"/{place}" if lost and os.path.exists(f"/{first}") else place


def _root(container: str, name: str) -> tuple[str, str]:
    """Return the path or URL with the info, and the key of a scale, "" for the first."""
    place = "/".join(filter(None, (_place(container), name)))
    parts = place.split("/")
    for depth in range(_DEPTH + 1):
        root = "/".join(parts[: len(parts) - depth])
        if root and not root.endswith((":", ":/")) and _holds_info(root):
            return root, "/".join(parts[len(parts) - depth :])
    raise BadInput(f"{container}: no such volume; expected a folder of neuroglancer's precomputed, which holds 'info'")


def _holds_info(root: str) -> bool:
    return read_documents(root, (INFO,))[0] is not None if is_remote(root) else (Path(root) / INFO).exists()


def _info(root: str) -> dict[str, Any]:
    text = read_documents(root, (INFO,))[0] if is_remote(root) else read_plain(Path(root) / INFO)
    if text is None:
        raise BadInput(f"{root}: no such volume; expected a folder of neuroglancer's precomputed, which holds 'info'")
    return parse(f"{root}/{INFO}", text)


def _finest(scales: list[dict[str, Any]]) -> int:
    """Return the number of the scale with the smallest voxels, 0 if a resolution is odd."""
    try:
        return min(range(len(scales)), key=lambda n: math.prod(map(float, scales[n]["resolution"])))
    except (KeyError, TypeError, ValueError):
        return 0


def _scales(root: str, info: Mapping[str, Any]) -> list[dict[str, Any]]:
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales or not all(_has_key(scale) for scale in scales):
        raise BadInput(f"{root}/{INFO}: has no 'scales', each with a 'key', expected those of a volume")
    return scales


def _has_key(scale: Any) -> bool:
    return isinstance(scale, Mapping) and isinstance(scale.get("key"), str)


def _described(root: str, info: Mapping[str, Any], number: int, writable: bool) -> StoredArray:
    scale = info["scales"][number]
    where = f"{root}/{scale['key']}"
    try:
        size, chunk = (_three(values) for values in (scale["size"], scale["chunk_sizes"][0]))
        begin, channels = _three(scale.get("voxel_offset", [0, 0, 0])), info["num_channels"]
        if info["data_type"] not in _TYPES or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"{channels} channels of {info['data_type']}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{where}: its info describes no array: {error}") from None
    files: ScaleFiles | None = None
    if not is_remote(root) and "sharding" not in scale:
        files = ScaleFiles(where, begin, size, chunk)
        files.check_endings()
    store = store_of(root) if is_remote(root) else file_store(root)
    spec = json.dumps({"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": number})
    more = (channels,) if channels > 1 else ()
    array = TensorArray(
        where, spec, (*more, *size[::-1]), np.dtype(info["data_type"]), (*more, *chunk[::-1]), writable=writable,
        single=None if more else 3, files=files,
    )  # fmt: skip
    resolution = numbers(Path(where), "resolution", scale.get("resolution"))
    offset = [n * first for n, first in zip(resolution, begin, strict=False)]
    attributes = {"voxel_size": _plain(resolution), "offset": _plain(offset), "type": info.get("type")}
    return StoredArray(array, attributes)


def _plain(exact: list[Fraction]) -> list[int | float]:
    return [int(n) if n.denominator == 1 else float(n) for n in reversed(exact)]


def _three(values: Any) -> tuple[int, int, int]:
    whole = [int(n) for n in values]
    if len(whole) != 3 or whole != list(values):
        raise ValueError(f"{values!r}, expected three integers")
    return whole[0], whole[1], whole[2]


@dataclass(frozen=True)
class ScaleFiles:
    """The files of a scale's chunks, named by the voxels that they hold, x, y, z."""

    folder: str
    begin: tuple[int, int, int]
    size: tuple[int, int, int]
    chunk: tuple[int, int, int]

    def check(self, region: Region) -> None:
        """See `ChunkFiles.check`."""
        for path in self.of(region):
            check_file(path)

    def of(self, region: Region) -> Iterator[Path]:
        """See `ChunkFiles.of`."""
        spatial = region[-3:][::-1]
        parts = [range(r.start // n, -(-r.stop // n)) for r, n in zip(spatial, self.chunk, strict=True)]
        return (Path(self.folder, self._name(at)) for at in itertools.product(*parts))

    def check_endings(self) -> None:
        """Raise BadInput for chunks in files of their own compression, which tensorstore would take for missing."""
        try:
            with os.scandir(self.folder) as entries:
                for entry in itertools.islice(entries, 8):
                    if entry.name.endswith((".gz", ".br", ".zstd", ".xz")):
                        ending = Path(entry.name).suffix
                        raise BadInput(f"{self.folder}: its chunks are {ending} files, expected them unpacked")
        except FileNotFoundError:
            pass

    def _name(self, at: Sequence[int]) -> str:
        ranges = []
        for number, begin, n, width in zip(at, self.begin, self.size, self.chunk, strict=True):
            ranges.append(f"{begin + number * width}-{begin + min(n, (number + 1) * width)}")
        return "_".join(ranges)
