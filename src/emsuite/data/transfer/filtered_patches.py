"""The patches that a filter keeps, as files, as boxes in their volume, and as a picture.

    OUT/patches/12_block_3.png    section 12, block 3 of its blocks, row by row; TIFF for blocks of many sections
    OUT/labels/12_block_3.tif     the labels of the same voxels
    OUT/boxes.json                the same blocks as regions, nm, if sections were not resized
    OUT/blocks.csv                every block: where it lies, what was measured, whether it is kept
    OUT/kept.png                  the kept blocks of a slab in the middle; the others are dark

As a stack, patches.tif and labels.tif stand in the place of the folders, with the axes (n, z, y, x).
"""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.common.outputs import check_whole, is_finished, output
from emsuite.data.transfer.filter_volume import Block, CutVolume, choose_blocks
from emsuite.data.transfer.patch_filter import PatchFilter, cut, resized
from emsuite.data.transfer.patches import save_patches
from emsuite.io.fingerprint import voxels_or_times
from emsuite.io.regions import format_roi
from emsuite.io.volume import Volume, fingerprint, open_volume

_DARK = 0.4
"""The share of its brightness that a dropped block has in the picture."""


def filter_patches(
    volume: Path, to: Path, settings: PatchFilter, *, labels: Path | None = None, stack: bool = False
) -> tuple[int, int]:
    """Write the patches of a volume that a filter keeps; what is there already, made alike, is kept.

    Args:
        volume: The array of images, any type of grey values.
        to: The folder to write.
        settings: The filter.
        labels: The array of labels of the same voxels; None: none are written.
        stack: Whether patches are one TIFF of 4 axes, in place of a folder.

    Returns:
        The number of kept blocks, and of all.

    Raises:
        BadInput: No block is kept, labels do not match, or arrays cannot be read.
    """
    inputs = {"volume": volume} | ({"labels": labels} if labels else {})
    inputs |= {"target": settings.likeness.target} if settings.likeness else {}
    for path in inputs.values():
        check_whole(path)
    opened = {name: open_volume(path) for name, path in inputs.items()}
    made_from = {name: [voxels_or_times(each), json_numbers(each.voxel_size)] for name, each in opened.items()}
    recorded = {"filter": settings.model_dump(mode="json"), "stack": stack, "made_from": made_from}
    if is_finished(to, recorded):
        rows = list(csv.DictReader((to / "blocks.csv").open(newline="")))
        return sum(row["kept"] == "1" for row in rows), len(rows)
    objects = None if labels is None else _matching(labels, open_volume(volume))
    blocks = choose_blocks(volume, settings)
    kept = [block for block in blocks if block.kept]
    if not kept:
        raise BadInput(f"{volume}: none of {len(blocks)} blocks is kept, expected a filter that keeps some")
    with output(to, recorded, inputs=inputs, fingerprint=fingerprint) as out:
        out.clear()
        _write(to, CutVolume(volume, settings), blocks, kept, objects, stack)
    return len(kept), len(blocks)


def _write(
    to: Path, source: CutVolume, blocks: Sequence[Block], kept: Sequence[Block], labels: Volume | None, stack: bool
) -> None:
    ending = ".png" if source.settings.depth == 1 else ".tif"
    place = "patches.tif" if stack else "patches"
    save_patches(to / place, [block.name + ending for block in kept], _images(source, kept))
    if labels is not None:
        place = "labels.tif" if stack else "labels"
        save_patches(to / place, [block.name + ".tif" for block in kept], _labels(source, kept, labels))
    if source.settings.scale == 1:
        regions = [{"roi": format_roi(_region(source, block))} for block in kept]
        (to / "boxes.json").write_text(json.dumps({"boxes": regions}, indent=1))
    _write_table(to / "blocks.csv", blocks)
    save_patches(to / "picture.tmp", ["kept.png"], [_picture(source, kept)])
    (to / "picture.tmp/kept.png").rename(to / "kept.png")
    (to / "picture.tmp").rmdir()


def _matching(labels: Path, volume: Volume) -> Volume:
    objects = open_volume(labels)
    if objects.dtype.kind not in "uib" or objects.channels is not None:
        raise BadInput(f"{labels}: {objects.dtype} {objects.shape}, expected labels (z, y, x), integers")
    if (objects.voxel_size, objects.roi) != (volume.voxel_size, volume.roi):
        raise BadInput(
            f"{labels}: voxels of {objects.voxel_size} nm at {objects.roi}, expected those of {volume.path}, "
            f"{volume.voxel_size} nm at {volume.roi}"
        )
    return objects


def _images(source: CutVolume, kept: Sequence[Block]) -> Iterator[np.ndarray]:
    for section, blocks in groupby(kept, key=lambda block: block.section):
        slab = cut(np.rint(source.grey(section) * 255).astype(np.uint8), source.settings.patch)
        yield from (np.ascontiguousarray(slab[block.row, block.column]) for block in blocks)


def _labels(source: CutVolume, kept: Sequence[Block], labels: Volume) -> Iterator[np.ndarray]:
    settings = source.settings
    for section, blocks in groupby(kept, key=lambda block: block.section):
        slab = cut(resized(labels[section : section + settings.depth], settings.scale, nearest=True), settings.patch)
        yield from (np.ascontiguousarray(slab[block.row, block.column]) for block in blocks)


def _region(source: CutVolume, block: Block) -> Roi:
    """Return where a block lies, nm."""
    volume, (height, width) = source.volume, source.settings.patch
    begin = Coordinate(block.section, block.row * height, block.column * width)
    shape = Coordinate(source.settings.depth, height, width)
    return Roi(volume.offset + begin * volume.voxel_size, shape * volume.voxel_size)


def _write_table(path: Path, blocks: Sequence[Block]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["section", "block", "mean", "slice_mean", "foreground", "dense", "distance", "kept"])
        for one in blocks:
            apart = "" if one.distance is None else f"{one.distance:.6f}"
            measured = f"{one.mean:.6f}", f"{one.slab_mean:.6f}", f"{one.foreground:.6f}"
            table.writerow([one.section, one.number, *measured, int(one.is_dense), apart, int(one.kept)])


def _picture(source: CutVolume, kept: Sequence[Block]) -> np.ndarray:
    """Return a section (1, Y, X) uint8 of the slab with kept blocks that is nearest to the middle."""
    middle = source.volume.shape[0] / 2
    section = min((block.section for block in kept), key=lambda first: (abs(first - middle), first))
    grey = source.grey(section)[:1] * 255
    shown, (height, width) = grey * _DARK, source.settings.patch
    for block in kept:
        if block.section == section:
            box = np.s_[
                :, block.row * height : (block.row + 1) * height, block.column * width : (block.column + 1) * width
            ]
            shown[box] = grey[box]
    return np.rint(shown).astype(np.uint8)
