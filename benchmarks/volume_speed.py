"""Speed of volumes: a prediction's tiles written by the suite and by zarr-python, and random crops from each format.

Affinities are those of random cells, uint8, in the layout of a prediction: a shard for each tile, chunks of about 64
voxels, channels together. Both write them with two threads. The floor is zstd alone: chunks cut out and compressed by
two threads, nothing written. Crops are of raw voxels, real ones or random cells, 84 MB:
no format keeps them decoded. Rounds alternate, so that a busy machine slows all alike.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import zarr
from numcodecs import Blosc, GZip, Zstd
from volumes import mirrored, random_cells, synthetic, volume
from volumes import read as read_volume

from emsuite.io.chunks import dividing_chunk_length
from emsuite.io.volume import Volume, create_volume, open_volume


class Copied:
    """The codec of chunks that are not compressed."""

    def encode(self, voxels: np.ndarray) -> bytes:
        """Return the voxels' bytes."""
        return voxels.tobytes()

    def decode(self, chunk: bytes) -> bytes:
        """Return the bytes, copied as those of a file are."""
        return bytes(bytearray(chunk))


_TILE, _TILES = (96, 96, 96), (1, 2, 2)
_RAW, _CROP = (320, 512, 512), (48, 84, 84)
_CHUNK = (64, 64, 64)
_ZSTD_LEVEL = 3  # what level 0, the suite's default, stands for
_CODECS: dict[str, Any] = {
    "zarr 2": Blosc("lz4", 5),
    "zarr 3, shards": Zstd(_ZSTD_LEVEL),
    "zarr 3 by zarr-python": Zstd(_ZSTD_LEVEL),
    "HDF5": GZip(1),
    "N5": GZip(1),
    "precomputed": Copied(),
}
"""The formats whose crops are read, and how each compresses a chunk unless it is told otherwise."""


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--crops", default=20, show_default=True)
@volume
@synthetic
def main(rounds: int, crops: int, volume: Path, synthetic: bool) -> None:
    raw, _ = read_volume(volume, synthetic)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rounds)
        read(Path(folder), mirrored(raw, _RAW), rounds, crops)


def affinities(shape: tuple[int, ...], channels: int) -> np.ndarray:
    """Return smooth affinities (C, Z, Y, X), high inside cells and low between them."""
    _, labels = random_cells(shape, 60)
    raw, _ = random_cells(shape, 60)
    inside = raw > np.median(raw)
    return np.stack(
        [np.where(np.roll(labels, c + 1, c % 3) == labels, 255 - 3 * inside, c) for c in range(channels)]
    ).astype(np.uint8)


def write(folder: Path, rounds: int) -> None:
    """Print MB/s of both writers and of zstd alone, and the suite's ratios to them."""
    shape = tuple(n * m for n, m in zip(_TILE, _TILES, strict=True))
    tiles = [np.s_[:, :, y : y + 96, x : x + 96] for y in range(0, shape[1], 96) for x in range(0, shape[2], 96)]
    voxels = affinities(shape, 12)
    copies = [np.ascontiguousarray(voxels[tile]) for tile in tiles]
    chunks = (12, *map(dividing_chunk_length, _TILE))
    speeds: dict[str, list[float]] = {"zstd alone": [], "the suite": [], "zarr-python": []}
    for _ in range(rounds):
        for writer, measured in speeds.items():
            volume = create_volume(
                folder / "p.zarr/affs", voxels.shape, "u1", (8,) * 3, (0,) * 3, chunks, 3, (12, *_TILE)
            )
            array: Any = volume.array if writer == "the suite" else zarr.open_array(folder / "p.zarr/affs", mode="r+")
            begin = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                if writer == "zstd alone":
                    list(pool.map(compress, copies, [chunks] * len(copies)))
                else:
                    list(pool.map(array.__setitem__, tiles, copies))
            measured.append(voxels.nbytes / 1e6 / (time.perf_counter() - begin))
    size = sum(path.stat().st_size for path in (folder / "p.zarr/affs/c").rglob("*") if path.is_file())
    ours = speeds.pop("the suite")
    print(f"written: {statistics.median(ours):.0f} MB/s, {voxels.nbytes / size:.1f} x smaller")
    for writer, theirs in speeds.items():
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        print(f"beside {writer}: {statistics.median(theirs):.0f} MB/s, ratio {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


def compress(tile: np.ndarray, chunks: tuple[int, ...]) -> None:
    """Cut a tile (C, Z, Y, X) into chunks and compress each, as a shard's are."""
    zstd = Zstd(_ZSTD_LEVEL)
    corners = itertools.product(*(range(0, length, chunk) for length, chunk in zip(tile.shape, chunks, strict=True)))
    for corner in corners:
        box = tuple(slice(low, low + chunk) for low, chunk in zip(corner, chunks, strict=True))
        zstd.encode(np.ascontiguousarray(tile[box]))


def read(folder: Path, raw: np.ndarray, rounds: int, crops: int) -> None:
    """Print the time of a random crop from each format, and its ratio to that of decoding its chunks alone."""
    sources = {name: store(folder, name, raw) for name in _CODECS}
    decoders = {name: decoder(codec, raw) for name, codec in _CODECS.items()}
    times: dict[str, list[float]] = {name: [] for name in _CODECS}
    floors: dict[str, list[float]] = {name: [] for name in _CODECS}
    random = np.random.default_rng(0)
    for _ in range(rounds):
        corners = [
            [int(random.integers(n - m + 1)) for n, m in zip(raw.shape, _CROP, strict=True)] for _ in range(crops)
        ]
        regions = [tuple(slice(low, low + n) for low, n in zip(corner, _CROP, strict=True)) for corner in corners]
        for name in _CODECS:
            times[name].append(timed(sources[name], regions))
            floors[name].append(timed(decoders[name], regions))
    for name in _CODECS:
        ours, floor = statistics.median(times[name]), statistics.median(floors[name])
        print(
            f"crop {_CROP} from {name}: {1000 * ours:.2f} ms, {ours / floor:.2f} x its decoder's {1000 * floor:.2f} ms"
        )


def timed(source: Callable[[Any], Any], regions: list[tuple[slice, ...]]) -> float:
    """Return the seconds that `source` takes for a region."""
    begin = time.perf_counter()
    for region in regions:
        source(region)
    return (time.perf_counter() - begin) / len(regions)


def decoder(codec: Any, raw: np.ndarray) -> Callable[[Any], None]:
    """Return what decodes the chunks of a region from memory, on one core, and copies the region's part of each."""
    length = _CHUNK[0]
    indices = np.ndindex(*(n // length for n in raw.shape))
    boxes = {index: tuple(slice(length * i, length * (i + 1)) for i in index) for index in indices}
    chunks = {index: codec.encode(np.ascontiguousarray(raw[box])) for index, box in boxes.items()}

    def decode(region: tuple[slice, ...]) -> None:
        crop = np.empty(_CROP, raw.dtype)
        touched = [range(part.start // length, (part.stop - 1) // length + 1) for part in region]
        for index in itertools.product(*touched):
            voxels = np.frombuffer(codec.decode(chunks[index]), raw.dtype).reshape(_CHUNK)
            pairs = list(zip(region, index, strict=True))
            to = tuple(slice(max(i * length - r.start, 0), (i + 1) * length - r.start) for r, i in pairs)
            of = tuple(slice(max(r.start - i * length, 0), r.stop - i * length) for r, i in pairs)
            crop[to] = voxels[of]

    return decode


def store(folder: Path, name: str, raw: np.ndarray) -> Callable[[Any], np.ndarray]:
    """Store raw voxels in a format; return what reads a region."""
    if name == "HDF5":
        with h5py.File(folder / "raw.h5", "w") as file:
            array = file.create_dataset("raw", data=raw, chunks=_CHUNK, compression="gzip", compression_opts=1)
            array.attrs["resolution"] = [8, 8, 8]
        return open_volume(folder / "raw.h5/raw").__getitem__
    path = folder / {"zarr 2": "2.zarr/raw", "N5": "raw.n5/raw", "precomputed": "raw.precomputed"}.get(
        name, "3.zarr/raw"
    )
    shards = (64, 128, 128) if name.startswith("zarr 3") else None
    volume: Volume = create_volume(path, raw.shape, raw.dtype, (8,) * 3, (0,) * 3, _CHUNK, 3 if shards else 2, shards)
    volume.write(volume.roi, raw)
    if name.endswith("zarr-python"):
        return open_volume(path).array._array.__getitem__
    return open_volume(path).__getitem__


if __name__ == "__main__":
    main()
