"""Prediction of a volume, tile by tile, on one device or several, in memory set by the tile and not by the volume.

read the next tile  |  compute this one  |  write the one before        in every worker, see `overlap`

Each voxel is kept from one tile, or blended from all tiles over it: then whole rows of shards are written, see
`blended_rows.py`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsuite.blockwise.grid import Block
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.scratch import scratch_folder
from emsuite.common.device import claim_gpu, one_core
from emsuite.common.errors import RunFailed
from emsuite.common.geometry import Roi
from emsuite.common.outputs import Output, is_finished, output
from emsuite.common.pipelining import overlap
from emsuite.common.progress import progress
from emsuite.data.grey_values import reopened
from emsuite.io.regions import has_files
from emsuite.io.volume import Volume, fingerprint, open_volume
from emsuite.prediction.blended_rows import RowSums
from emsuite.prediction.blending import Blended, GridWeights
from emsuite.prediction.finished_tiles import TileRecord
from emsuite.prediction.predictor import Predicted, Predictor
from emsuite.prediction.region import in_nm, in_voxels
from emsuite.prediction.request import EVERYTHING, Request
from emsuite.prediction.settings import check_unchanged, same_weights
from emsuite.prediction.storage_layout import (
    BlockShare,
    Layout,
    create_arrays,
    make_blended_layout,
    make_layout,
    share_out,
    share_rows,
)
from emsuite.prediction.tile_grid import TileGrid
from emsuite.prediction.tile_size import tell_of_margins

_GPU_READERS, _GPU_WRITERS = 4, 8  # threads that read, and that compress and write, beside one GPU, at most


def predict_to(
    out: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path],
    predictor: Predictor,
    raw: Volume,
    roi: Roi,
    workers: int = 1,
    request: Request = EVERYTHING,
) -> bool:
    """Predict a region to a zarr container, unless it is there already.

    Args:
        out: the container; it gets one array per head.
        settings: all that decide the bytes, see `decided_settings`; an earlier prediction with the same ones is
            continued, or kept.
        inputs: files that the manifest names, with their digests.
        predictor: predicts the tiles.
        raw: the volume.
        roi: the region, nm.
        workers: processes, see `predict_volume`.
        request: what is left out, and how arrays are compressed; its settings must be among `settings`.

    Returns:
        False if the prediction was there already, made with the same settings.
    """
    upgrade = same_weights(settings)
    if is_finished(out, settings, upgrade):
        return False
    tell_of_margins(predictor.input_shape, predictor.step, in_voxels(raw, roi).shape)
    with output(out, settings, inputs=inputs, upgrade=upgrade, fingerprint=fingerprint) as prediction:
        predict_volume(predictor, raw, roi, prediction, workers, request)
        check_unchanged(settings, predictor, raw, roi)  # the tiles are forgotten by now: the next run begins anew
    return True


def predict_volume(
    predictor: Predictor, raw: Volume, roi: Roi, out: Output, workers: int = 1, request: Request = EVERYTHING
) -> None:
    """Predict `roi` (nm) of `raw` into one zarr array per head below `out.path`. Continue the work of an earlier run.

    LSDs that are stored for the network to read become the array `input_lsds`, uint8, as far as `roi` needs them; none
    are left out. Several workers are processes of their own, on one GPU each, or one core of the CPU; the bytes do not
    depend on their number.
    """
    roi_vx, sources = in_voxels(raw, roi), [raw]
    if predictor.lsds:
        needed = predictor.reads(predictor.grid(raw, roi_vx)).intersect(predictor.whole(raw))
        sources += _predict(predictor.lsds, [raw], needed, out, workers, EVERYTHING, "input_").values()
    _predict(predictor, sources, roi_vx, out, workers, request)
    for record in out.path.glob("done_*tiles*.txt"):
        record.unlink()


def _predict(
    predictor: Predictor,
    sources: list[Volume],
    roi: Roi,
    out: Output,
    workers: int,
    request: Request,
    prefix: str = "",
) -> dict[str, Volume]:
    raw, tiles, tiling = sources[0], predictor.grid(sources[0], roi), predictor.tiling
    if isinstance(tiling, Blended):
        stride = predictor.network.receptive_field.stride
        layout = make_blended_layout(tuple(map(tiling.advance, predictor.step, stride)), roi)
        share = share_rows(tiles, layout, roi, raw)
    else:
        layout = make_layout(tiles, roi)
        share = share_out(tiles, layout, roi, raw, workers)
    record = TileRecord(out.path, f"done_{prefix}tiles", out.run)
    paths = {name: out.path / f"{prefix}{name}" for name in predictor.heads}
    out.claim(*(path.name for path in paths.values()))
    if out.resumed and record.begun:
        arrays = {name: open_volume(path, "r+") for name, path in paths.items()}
    else:
        arrays = create_arrays(predictor, raw, roi, paths, layout, request.compression)
        record.begin()
    what = "predict stored LSDs" if prefix else "predict"
    kind = _BlendedRun if isinstance(tiling, Blended) else _Run
    run = kind(predictor, sources, arrays, tiles, record, share, layout, request)
    # a copy of a run that was writing may name tiles without their files
    done = {n for n in record.read() if all(has_files(array, run.lies_at(n)) for array in arrays.values())}
    record.keep(done)
    if workers == 1:
        _predict_here(what, run, done)
    else:
        # which blocks are done is known here alone: the record of tiles outlives it
        with scratch_folder() as folder:
            run_blocks(what, share.grid, _Blocks(run, done, workers, folder), workers, folder)
    blocks = range(len(share.grid))
    if missing := sum(1 for _ in run.tiles_to_do(blocks, record.read())):
        raise RunFailed(f"{out.path}: {missing} tiles were written by another run, or removed; run this again")
    return arrays


@dataclass(frozen=True)
class _Run:
    """The prediction of a grid's tiles from and to arrays that are open."""

    predictor: Predictor
    sources: Sequence[Volume]
    arrays: Mapping[str, Volume]
    tiles: TileGrid
    record: TileRecord
    share: BlockShare
    layout: Layout
    request: Request

    def tiles_to_do(self, blocks: Iterable[int], done: set[int]) -> Iterator[Any]:
        """Yield the tiles of these blocks that are not done, as `predict` takes them; `done` as it was recorded."""
        return (number for block in blocks for number in self.share.tiles[block] if number not in done)

    def lies_at(self, number: int) -> Roi:
        """Return where a tile that the record may name lies, nm."""
        tile = self.tiles[min(number, len(self.tiles) - 1)]
        return in_nm(self.sources[0], Roi(tile.keep_begin, tile.keep_shape))

    def all_to_do(self, done: set[int]) -> Iterator[Any]:
        """Yield the tiles of all blocks that are not done, as `predict` takes them."""
        return (number for number in range(len(self.tiles)) if number not in done)

    def number_done(self, done: set[int]) -> int:
        """Return how many tiles of `share.tiles.total` are done."""
        return len(done)

    def predict(self, numbers: Iterable[Any]) -> Iterator[Any]:
        """Predict tiles and yield once for each of them."""
        readers, writers = self._threads()
        return overlap(numbers, self._read, self._compute, self._write, writers, readers)

    def _threads(self) -> tuple[int, int]:
        on_gpu = self.predictor.device.type == "cuda"
        cores = len(os.sched_getaffinity(0)) if on_gpu else 1
        return min(_GPU_READERS, cores), min(_GPU_WRITERS, cores)

    def _read(self, number: int) -> Any:
        """Return the input of a tile; None if it is left at 0."""
        tile, raw = self.tiles[number], self.sources[0]
        masked_in = self.request.masked_in(raw, Roi(tile.keep_begin, tile.keep_shape))
        if masked_in is not None and not masked_in.any():
            return None
        read = self.predictor.read(self.sources, tile)
        return None if self.request.is_skipped(read[0].numpy()) else read

    def _compute(self, read: Any) -> Predicted | None:
        return None if read is None else self.predictor(*read)

    def _write(self, number: int, predicted: Predicted | None) -> None:
        tile = self.tiles[number]
        if predicted is not None:
            kept = {name: voxels[tile.kept_of_output] for name, voxels in predicted.arrays().items()}
            self._store(Roi(tile.keep_begin, tile.keep_shape), kept)
        self.record.add(number)

    def _store(self, region: Roi, predicted: Mapping[str, np.ndarray]) -> None:
        """Write a region, in voxels of raw, of each head; 0 where it is masked out."""
        raw = self.sources[0]
        region_nm, masked_in = in_nm(raw, region), self.request.masked_in(raw, region)
        for name, voxels in predicted.items():
            masked = voxels if masked_in is None else np.where(masked_in, voxels, voxels.dtype.type(0))
            self.arrays[name].write(region_nm, masked)

    def reopened(self, predictor: Predictor) -> "_Run":
        """Return the same run with open files of its own, for another process."""
        sources = [reopened(self.sources[0]), *(open_volume(other.path, "r+") for other in self.sources[1:])]
        arrays = {name: open_volume(array.path, "r+") for name, array in self.arrays.items()}
        record, request = self.record.open(str(os.getpid())), self.request.reopened()
        return replace(self, predictor=predictor, sources=sources, arrays=arrays, record=record, request=request)


@dataclass(frozen=True)
class _BlendedRun(_Run):
    """The same, where outputs overlap: whole rows are written, each a block. The record holds the numbers of rows."""

    def tiles_to_do(self, blocks: Iterable[int], done: set[int]) -> Iterator[Any]:
        """Yield pairs of a row that is not done and a tile of it, row after row."""
        return ((row, number) for row in blocks if row not in done for number in self.share.tiles[row])

    def lies_at(self, number: int) -> Roi:
        """Return where a row lies, nm."""
        return self.share.grid.block(min(number, len(self.share.grid) - 1)).write

    def all_to_do(self, done: set[int]) -> Iterator[Any]:
        """Yield pairs of a row and a tile, see `tiles_to_do`."""
        return self.tiles_to_do(range(len(self.share.tiles)), done)

    def number_done(self, done: set[int]) -> int:
        """Return the number of tiles of the rows that are done."""
        return sum(len(self.share.tiles[row]) for row in done)

    def predict(self, pairs: Iterable[Any]) -> Iterator[Any]:
        """Predict the tiles of whole rows and yield once for each of them."""
        readers, _ = self._threads()
        write = _RowWriter(self)
        # one writer: it adds outputs in the order of the tiles
        return overlap(pairs, lambda pair: self._read(pair[1]), self._compute, write, 1, readers)


class _RowWriter:
    """Adds up the outputs of one row after the other, and writes them as uint8."""

    def __init__(self, run: _BlendedRun):
        self._run = run
        window = run.predictor.tiling.window
        assert window is not None
        self._weights = GridWeights(run.tiles, run.predictor.step, window)
        self._sums: RowSums | None = None

    def __call__(self, pair: tuple[int, int], predicted: Predicted | None) -> None:
        """Add the output of a tile, if it has one, to its row's sums. Behind the last tile, note the row as done."""
        row, number = pair
        share, tile = self._run.share, self._run.tiles[number]
        if self._sums is None:
            region = in_voxels(self._run.sources[0], share.grid.block(row).write)
            self._sums = RowSums(region, self._run.layout.shard[2], self._run.predictor.step[2], self._store)
        self._sums.advance(tile)
        if predicted is not None:
            self._sums.add(tile, self._weights.of(tile), predicted.arrays())
        if number == share.tiles[row].last:
            self._sums.finish()
            self._sums = None
            self._run.record.add(row)

    def _store(self, region: Roi, predicted: Mapping[str, np.ndarray]) -> None:
        stored = self._run.predictor.to_stored
        self._run._store(
            region, {name: stored(name, torch.from_numpy(values)).numpy() for name, values in predicted.items()}
        )


def _predict_here(what: str, run: _Run, done: set[int]) -> None:
    total, before = run.share.tiles.total, run.number_done(done)
    with closing(run.record.open()), progress(what=what, total=total, done=before, unit="tile") as bar:
        for _ in replace(run, predictor=run.predictor.on(run.predictor.device)).predict(run.all_to_do(done)):
            bar.update()


@dataclass
class _Blocks:
    """What a worker does with one block after the other."""

    run: _Run
    done: set[int]
    workers: int
    folder: Path
    _reopened: _Run | None = field(default=None, init=False)

    def __call__(self, block: Block) -> None:
        """Predict the tiles of `block`."""
        # one core also because the threads of GNU's OpenMP do not survive a fork
        with one_core():
            if self._reopened is None:
                self._reopened = self.run.reopened(self._predictor())
            for _ in self._reopened.predict(self.run.tiles_to_do([block.index], self.done)):
                pass

    def _predictor(self) -> Predictor:
        predictor = self.run.predictor
        on_gpu = predictor.device.type == "cuda"
        return predictor.on(claim_gpu(self.folder, self.workers) if on_gpu else predictor.device)
