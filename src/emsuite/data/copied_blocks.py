"""The blocks of a copy: copied, read back, compared, and compared again with sources on servers."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput, RunFailed, without_secrets
from emsuite.common.files import remove, write_text
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.progress import progress
from emsuite.io.fingerprint import origin_of
from emsuite.io.values import fitted
from emsuite.io.volume import Volume, open_volume


@dataclass(frozen=True)
class CopyBlock:
    """Copies one block. It holds paths, not open arrays, so that it can be sent to workers."""

    source: Path
    to: Path
    record: Path

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        copied = digest_path(self.record, block.index)
        return copied.exists() and _sha256(open_volume(self.to, "r+").read(block.write)) == copied.read_text()

    def __call__(self, block: Block) -> None:
        new = open_volume(self.to, "r+")
        voxels = fitted(self.source, open_volume(self.source).read(block.write), new.dtype)
        new.write(block.write, voxels)
        digest = _digest(voxels, open_volume(self.to, "r+"), block.write)
        write_text(digest_path(self.record, block.index), digest)


@dataclass(frozen=True)
class _CompareBlock:
    """Compares a block of the source, as it is by now, with what was copied."""

    copied: CopyBlock

    def __call__(self, block: Block) -> None:
        dtype = open_volume(self.copied.to).dtype
        voxels = fitted(self.copied.source, open_volume(self.copied.source).read(block.write), dtype)
        if _sha256(voxels) != digest_path(self.copied.record, block.index).read_text():
            raise _changed(self.copied)


def compare_again(copied: CopyBlock, grid: BlockGrid, workers: BlockWorkers, origin: list[str]) -> None:
    """Compare all blocks with a source on a server as it is by now.

    Raises:
        BadInput: The source has changed, during this run or since a run that was stopped. The next run begins anew.
    """
    done = copied.record / "compared"
    remove(done)  # of a stopped run: what it compared may have changed since
    run_blocks("compare", grid, _CompareBlock(copied), workers, done)
    if origin_of(copied.source) != origin:
        raise _changed(copied)


def _changed(copied: CopyBlock) -> BadInput:
    write_text(changed_path(copied.record), "")
    told = "was replaced or edited while it was copied, or since a copy was stopped"
    return BadInput(f"{without_secrets(str(copied.source))}: {told}; run this again, which begins anew")


def changed_path(record: Path) -> Path:
    """Return the path of the file that tells that the blocks copied so far are of several versions of the source."""
    return record / "changed"


def compare(source: Volume, copy: Volume, region: Roi, dtype: np.dtype, block: Sequence[int]) -> list[str]:
    """Return the digests of all blocks of a copy; raise RunFailed if one differs from the source."""
    grid = BlockGrid(region, Coordinate(block) * source.voxel_size, source.voxel_size * 0)
    blocks = progress(grid, what="compare", total=len(grid), unit="block")
    return [_digest(fitted(source.path, source.read(b.write), dtype), copy, b.write) for b in blocks]


def digest_of(digests: Iterable[str]) -> str:
    """Return the digest of a copy from those of its blocks."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def voxels_digest(copy: Volume, block: Sequence[int]) -> str:
    """Return the digest of a copy as its voxels are by now, in blocks of a shape."""
    grid = BlockGrid(copy.roi, Coordinate(block) * copy.voxel_size, copy.voxel_size * 0)
    blocks = progress(grid, what=f"looking for edits in {copy.path.name}", total=len(grid), unit="block")
    return digest_of(_sha256(copy.read(part.write)) for part in blocks)


def _digest(voxels: np.ndarray, copy: Volume, roi: Roi) -> str:
    """Return the SHA-256 of voxels, little-endian; raise RunFailed if the copy has others at `roi` (nm)."""
    voxels = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<"))
    back = np.ascontiguousarray(copy.read(roi), voxels.dtype)
    if not np.array_equal(voxels.reshape(-1).view(np.uint8), back.reshape(-1).view(np.uint8)):
        raise RunFailed(f"{copy.path}: voxels at {roi} nm that were read back differ from those written")
    return _sha256(voxels)


def _sha256(voxels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<")).data).hexdigest()


def digest_path(record: Path, index: int) -> Path:
    """Return the path of the file with the digest of a block."""
    return record / f"{index}.sha256"
