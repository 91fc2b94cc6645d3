"""Prediction of a volume, tile by tile, on one device or several, in memory set by the tile and not by the volume.

read the next tile  |  compute this one  |  write the one before        in every worker, see `overlap`
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Roi

from emsuite.blockwise.grid import Block
from emsuite.blockwise.run import run_blocks
from emsuite.common.arrays import Shape
from emsuite.common.device import claim_gpu, one_core
from emsuite.common.errors import BadInput
from emsuite.common.outputs import Output, is_finished, manifest_path, output, read_json, unfinished_path
from emsuite.common.pipelining import overlap
from emsuite.common.progress import progress
from emsuite.io.volume import Volume, create_volume, open_volume
from emsuite.prediction.finished_tiles import TileRecord
from emsuite.prediction.predictor import Predicted, Predictor, in_nm, in_voxels
from emsuite.prediction.storage_layout import Layout, Share, make_layout, share_out
from emsuite.prediction.tiling import BY_STRIDE, Tile

_GPU_READERS, _GPU_WRITERS = 4, 8  # threads that read, and that compress and write, beside one GPU, at most


def predict_to(
    out: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path],
    predictor: Predictor,
    raw: Volume,
    roi: Roi,
    workers: int = 1,
) -> bool:
    """Predict `roi` (nm) of `raw` to the zarr `out`; False if that is there already, made with the same `settings`."""
    if is_finished(out, settings):
        return False
    with output(out, settings, inputs=inputs) as made:
        predict_volume(predictor, raw, roi, made, workers)
    return True


def predict_volume(predictor: Predictor, raw: Volume, roi: Roi, out: Output, workers: int = 1) -> None:
    """Predict `roi` (nm) of `raw` into one zarr array per head below `out.path`, continuing an earlier run's tiles.

    LSDs that are stored for the network to read lie there as `input_lsds`, uint8, as far as `roi` needs them. Several
    workers are processes of their own, on one GPU each, or one core of the CPU; the bytes do not depend on them.
    """
    wanted, sources = in_voxels(raw, roi), [raw]
    if predictor.lsds:
        needed = predictor.reads(predictor.grid(raw, wanted)).intersect(predictor.whole(raw))
        sources += _predict(predictor.lsds, [raw], needed, out, workers, "input_").values()
    _predict(predictor, sources, wanted, out, workers)
    for record in out.path.glob("done_*tiles*.txt"):
        record.unlink()


def _predict(
    predictor: Predictor, sources: list[Volume], wanted: Roi, out: Output, workers: int, prefix: str = ""
) -> dict[str, Volume]:
    raw, tiles = sources[0], predictor.grid(sources[0], wanted)
    layout, record = make_layout(tiles, wanted), TileRecord(out.path, f"done_{prefix}tiles")
    paths = {name: out.path / f"{prefix}{name}" for name in predictor.heads}
    if out.resumed and record.begun:
        arrays = {name: open_volume(path, "r+") for name, path in paths.items()}
    else:
        arrays = _create(predictor, raw, wanted, paths, layout)
        record.begin()
    what, done = "predict stored LSDs" if prefix else "predict", record.read()
    run = _Run(predictor, sources, arrays, tiles, record)
    if workers == 1:
        _predict_here(what, run, done)
    else:
        _predict_on_workers(what, run, wanted, layout, done, workers)
    return arrays


@dataclass(frozen=True)
class _Run:
    """The prediction of a grid's tiles from and to arrays that are open."""

    predictor: Predictor
    sources: Sequence[Volume]
    arrays: Mapping[str, Volume]
    tiles: Sequence[Tile]
    record: TileRecord

    def predict(self, numbers: Sequence[int]) -> Iterator[int]:
        """Yield the numbers of tiles as they are written."""
        on_gpu = self.predictor.device.type == "cuda"
        cores = len(os.sched_getaffinity(0)) if on_gpu else 1
        readers, writers = min(_GPU_READERS, cores), min(_GPU_WRITERS, cores)
        return overlap(numbers, self._read, lambda read: self.predictor(*read), self._write, writers, readers)

    def _read(self, number: int) -> Any:
        return self.predictor.read(self.sources, self.tiles[number])

    def _write(self, number: int, predicted: Predicted) -> None:
        tile = self.tiles[number]
        place = in_nm(self.sources[0], Roi(tile.keep_begin, tile.keep_shape))
        for name, voxels in predicted.arrays().items():
            self.arrays[name].write(place, voxels[tile.kept_of_output])
        self.record.add(number)

    def anew(self, predictor: Predictor) -> "_Run":
        """The same in another process, which has files of its own."""
        sources = [open_volume(self.sources[0].path), *(open_volume(other.path, "r+") for other in self.sources[1:])]
        arrays = {name: open_volume(array.path, "r+") for name, array in self.arrays.items()}
        return replace(
            self, predictor=predictor, sources=sources, arrays=arrays, record=self.record.open(str(os.getpid()))
        )


def _predict_here(what: str, run: _Run, done: set[int]) -> None:
    todo = [number for number in range(len(run.tiles)) if number not in done]
    with closing(run.record.open()), progress(what=what, total=len(run.tiles), done=len(done), unit="tile") as bar:
        for _ in replace(run, predictor=run.predictor.on(run.predictor.device)).predict(todo):
            bar.update()


def _predict_on_workers(what: str, run: _Run, wanted: Roi, layout: Layout, done: set[int], workers: int) -> None:
    share = share_out(run.tiles, layout, wanted, run.sources[0], workers)
    # which blocks are done is known here alone: the tiles' record outlives it
    with tempfile.TemporaryDirectory(prefix="emsuite-") as folder:
        run_blocks(what, share.grid, _Blocks(run, share, done, workers, Path(folder)), workers, Path(folder))


@dataclass
class _Blocks:
    """What a worker does to one block after the other."""

    run: _Run
    share: Share
    done: set[int]
    workers: int
    folder: Path
    _here: _Run | None = field(default=None, init=False)

    def __call__(self, block: Block) -> None:
        """Predict its tiles."""
        # on one core also for the sake of GNU's OpenMP, whose threads do not come along when a process is forked
        with one_core():
            if self._here is None:
                self._here = self.run.anew(self._predictor())
            for _ in self._here.predict(
                [number for number in self.share.tiles[block.index] if number not in self.done]
            ):
                pass

    def _predictor(self) -> Predictor:
        predictor = self.run.predictor
        on_gpu = predictor.device.type == "cuda"
        return predictor.on(claim_gpu(self.folder, self.workers) if on_gpu else predictor.device)


def _create(
    predictor: Predictor, raw: Volume, wanted: Roi, paths: Mapping[str, Path], layout: Layout
) -> dict[str, Volume]:
    offset, arrays = in_nm(raw, wanted).offset, {}
    shards = None if layout.shard == layout.chunk else layout.shard
    for name, path in paths.items():
        head = predictor.network.config.heads[name]
        channels = (head.channels,)
        arrays[name] = create_volume(
            path,
            (*channels, *wanted.shape),
            np.uint8,
            raw.voxel_size,
            offset,
            (*channels, *layout.chunk),
            shards=shards and (*channels, *shards),
        )
        if head.target == "affinities":
            arrays[name].array.attrs["neighborhood"] = [list(offset) for offset in head.neighborhood]
    return arrays


def earlier_input_shape(out: Path, settings: Mapping[str, Any]) -> Shape | None:
    """That of a finished prediction at `out`, or one to be continued, by the stride and with these `settings` as well.

    How much memory is free must not decide whether earlier work counts.
    """
    if settings["tiles"] != BY_STRIDE.name:
        return None
    wanted = json.loads(json.dumps(settings))
    for earlier in ((read_json(manifest_path(out)) or {}).get("settings"), read_json(unfinished_path(out))):
        if isinstance(earlier, dict) and earlier | wanted == earlier and "input_shape" in earlier:
            return tuple(earlier["input_shape"])
    return None


def check_name(out: Path) -> None:
    """Refuse a place for predictions that is no zarr, before anything is written there."""
    if out.suffix != ".zarr":
        raise BadInput(f"{out}: predictions are written as zarr, expected a name that ends in .zarr")
