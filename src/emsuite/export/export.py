"""The stage that exports a segmentation for other programs: a volume with meshes and skeletons, or a table of segments.

    blocks of voxels   ->  pieces of each segment   ->  segments: meshes, skeletons, measures   ->  the table
    (FindPieces)           (files of the run)           (ShapeSegments)                             scales of voxels

Meshes of a segment need all of its pieces in memory; its skeleton needs its voxels, of a large segment coarser ones.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.blockwise.grid import make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_json
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.common.outputs import Output, check_whole, output
from emsuite.export import multilod, skeletons
from emsuite.export.blocks import FindPieces, block_voxels, check_labels, space_of
from emsuite.export.pieces import forget, gather_rows
from emsuite.export.scales import check_scales, write_scales
from emsuite.export.segments import MESHES, SKELETONS, ShapeSegments, batches, read_measures
from emsuite.export.table import segment_properties, sum_rows, write_segments
from emsuite.io.fingerprint import state_or_voxels
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.volume import Volume, fingerprint, open_volume

TABLE, PROPERTIES = "segments.csv", "segment_properties"
_STATE = ".export"


@dataclass(frozen=True)
class Shapes:
    """What is made of the voxels of each segment."""

    levels: int = 3
    """Of detail of the meshes; 0: no meshes and no surface."""
    skeletons: bool = False


@dataclass(frozen=True)
class _Request:
    volume: Volume
    region: Roi
    block_size: Coordinate
    shapes: Shapes
    workers: BlockWorkers

    def settings(self) -> dict[str, Any]:
        return {
            "from": [fingerprint(self.volume.path), state_or_voxels(self.volume.path)],
            "roi": format_roi(self.region),
            "grid": [json_numbers(self.volume.voxel_size), json_numbers(self.volume.offset)],
            "block_size": json_numbers(self.block_size),
            "levels_of_detail": self.shapes.levels,
            "skeletons": "of whole segments" if self.shapes.skeletons else "none",
        }


def export_precomputed(
    source: Path,
    out: Path,
    *,
    roi: str | None = None,
    block_size: Coordinate | None = None,
    shapes: Shapes | None = None,
    workers: BlockWorkers = 1,
) -> int:
    """Write a segmentation as neuroglancer's precomputed volume, with meshes, skeletons and a table of segments.

    What a stopped run with the same settings has finished is kept.

    Args:
        source: Integers (Z, Y, X), in any format; 0 is background.
        out: The folder to write, `x.precomputed`.
        roi: The region, as `parse_roi` reads it; None: all. Segments end at its faces.
        block_size: nm, z y x; None: about 128 voxels along each axis.
        shapes: Meshes and skeletons.
        workers: Processes on this machine, or jobs of Slurm. The result does not depend on them.

    Returns:
        The number of segments.

    Raises:
        BadInput: The source is missing, unfinished or no segmentation, or `out` has another ending.
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".precomputed":
        raise BadInput(f"{out}: expected a folder with the ending .precomputed")
    request = _request(source, roi, block_size, shapes, workers)
    check_scales(request.volume, request.region)
    settings = request.settings() | {"format": "precomputed"}
    with output(out, settings, inputs={"from": source}, fingerprint=fingerprint) as begun:
        state = _state(begun, begun.resumed)
        summed, measures = _find_segments(request, state, out, begun.run)
        write_segments(out / TABLE, summed, measures, request.region, request.volume.voxel_size)
        write_scales(request.volume, out, request.region, state, workers, begun.run)
        properties = segment_properties(summed, measures, request.volume.voxel_size)
        _describe(out, request.shapes, properties)
        begun.notes["segments"] = len(summed)
        remove(state)
    return len(summed)


def export_table(
    source: Path,
    out: Path,
    *,
    roi: str | None = None,
    block_size: Coordinate | None = None,
    shapes: Shapes | None = None,
    workers: BlockWorkers = 1,
) -> int:
    """Write the table of segments alone; see `export_precomputed`. While a run writes it, `out` is a folder."""
    source, out = Path(source), Path(out)
    request = _request(source, roi, block_size, shapes, workers)
    settings = request.settings() | {"format": "csv"}
    with output(out, settings, inputs={"from": source}, fingerprint=fingerprint) as begun:
        state = _state(begun, begun.resumed and out.is_dir())
        summed, measures = _find_segments(request, state, None, begun.run)
        begun.notes["segments"] = len(summed)
        write_segments(begun.file, summed, measures, request.region, request.volume.voxel_size)
        begun.become_file()
    return len(summed)


def _request(
    source: Path, roi: str | None, block_size: Coordinate | None, shapes: Shapes | None, workers: BlockWorkers
) -> _Request:
    check_whole(source)
    volume = open_volume(source)
    check_labels(volume)
    region = volume.roi if roi is None else parse_roi(roi, volume)
    size = make_grid(volume, block_voxels(block_size, volume), volume.voxel_size * 0).block_size
    return _Request(volume, region, size, shapes or Shapes(), workers)


def _state(out: Output, resumed: bool) -> Path:
    """Return the folder that keeps the state of the run, empty unless it continues."""
    state = out.path / _STATE
    if not (resumed and state.exists()):
        out.clear()
        state.mkdir(parents=True)
    return state


def _find_segments(request: _Request, state: Path, out: Path | None, run: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed rows and the measures of all segments; write meshes and skeletons to `out`, if there is one."""
    shapes, workers = request.shapes, request.workers
    pieces, shaped = state / "pieces", state / "segments"
    for folder in (pieces, shaped, *((out / MESHES, out / SKELETONS) if out else ())):
        folder.mkdir(exist_ok=True)
    forget()
    grid = make_grid(request.volume, request.block_size, request.volume.voxel_size * 0)
    grid = replace(grid, total=request.region)
    find = FindPieces(request.volume.path, pieces, request.region, shapes.levels > 0, shapes.skeletons)
    run_blocks("blocks", grid, find, workers, state / "blocks_done", run=run)
    summed = sum_rows(gather_rows(pieces, range(len(grid))))
    if len(summed):
        space = space_of(request.volume, request.region)
        shape = tuple(int(n) for n in request.region.shape / request.volume.voxel_size)
        process = ShapeSegments(pieces, shaped, out, space, shape, shapes.levels, shapes.skeletons)
        run_blocks("segments", batches(len(summed)), process, workers, state / "segments_done", run=run)
    measures = read_measures(shaped, len(summed))
    forget()
    return summed, measures


def _describe(out: Path, shapes: Shapes, properties: dict[str, Any]) -> None:
    """Write the documents that tell a viewer of meshes, skeletons and properties."""
    info = read_json(out / "info") | {PROPERTIES: PROPERTIES}
    for made, name, kind in ((shapes.levels, MESHES, multilod.INFO), (shapes.skeletons, SKELETONS, skeletons.INFO)):
        if made:
            info[name] = name
            write_json(out / name / "info", kind)
        else:
            remove(out / name)
    write_json(out / PROPERTIES / "info", properties)
    write_json(out / "info", info)
