"""Draw sections of an evaluated volume: raw, affinities, segmentation, ground truth and errors, side by side."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Number, Roi, json_numbers
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.split_merge_errors import VoxelError, voxel_errors
from emsuite.evaluation.threshold_sweep import Evaluation
from emsuite.io.relabel import find_sorted
from emsuite.io.volume import Volume

_WINDOW = 512  # voxels that a picture shows along each axis, around the centre of the section
_PLANES = ((0, 1 / 6), (0, 1 / 2), (0, 5 / 6), (1, 1 / 2))  # the axis across each section, its depth along that axis

COLORS = {
    VoxelError.SPLIT: (255, 159, 28),
    VoxelError.MERGE: (214, 40, 110),
    VoxelError.BOTH: (58, 134, 255),
    VoxelError.UNSEGMENTED: (150, 150, 150),
}
"""Red, green, blue of each error in the picture `errors`."""


@dataclass(frozen=True)
class Section:
    """One section through the volume: its position in words, and its pictures (JPEG, all of one size) by name."""

    caption: str
    pictures: dict[str, bytes]


def draw_sections(
    evaluation: Evaluation, truth: GroundTruth, segmentation: Volume, raw: Volume | None, affinities: Volume | None
) -> list[Section]:
    """Draw three sections in x and y at different z (fewer of a thin volume), and one in x and z, through the middle.

    Args:
        evaluation: The scores of `segmentation`; the sections lie in the ROI that was scored.
        truth: The ground truth. Without labels, the pictures `ground truth` and `errors` are left out.
        segmentation: The scored segmentation or fragments.
        raw: The raw volume (Z, Y, X); None leaves its picture out.
        affinities: Affinities (C, Z, Y, X), shown as red, green and blue of the first three channels; None leaves the
            picture out.

    Raises:
        BadInput: As `common_roi_of_pictures`.
    """
    roi = common_roi_of_pictures(evaluation.roi, segmentation, raw, affinities)
    planes = [_plane(roi, segmentation.voxel_size, axis, depth) for axis, depth in _PLANES]
    distinct = {plane.caption: plane for plane in planes}.values()
    return [_section(plane, evaluation, truth, segmentation, raw, affinities) for plane in distinct]


def common_roi_of_pictures(scored_roi: Roi, segmentation: Volume, raw: Volume | None, affinities: Volume | None) -> Roi:
    """Return the part (nm) of `scored_roi` that the raw volume and the affinities cover.

    Raises BadInput if one of them does not overlap it, or has another voxel size than the segmentation.
    """
    roi = scored_roi
    for array in (raw, affinities):
        roi = roi if array is None else _overlap(roi, array, segmentation)
    return roi


def id_colors(ids: np.ndarray) -> np.ndarray:
    """Return a colour (uint8, last axis red, green, blue) for each id (uint64), the same in every run; 0 is black."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hue = (mixed >> np.uint64(40)).astype(np.float32) / 2**24
    light = 0.72 + 0.28 * ((mixed >> np.uint64(20)) & np.uint64(255)).astype(np.float32) / 255
    wheel = np.abs((hue[..., None] * 6 + np.array([0, 4, 2], np.float32)) % 6 - 3) - 1
    color = light[..., None] * (0.25 + 0.75 * wheel.clip(0, 1))
    return np.where((ids == 0)[..., None], 0, 255 * color).astype(np.uint8)


def _overlap(roi: Roi, array: Volume, segmentation: Volume) -> Roi:
    if array.voxel_size != segmentation.voxel_size:
        raise BadInput(
            f"{array.path}: voxel size {array.voxel_size} nm, but {segmentation.voxel_size} in {segmentation.path}"
        )
    if not roi.intersects(array.roi):
        raise BadInput(f"{array.path}: covers {array.roi} nm, which does not overlap the scored region {roi}")
    return roi.intersect(array.roi)


class _Plane(NamedTuple):
    """The voxels of a picture: `roi` (nm) is one voxel thick along `axis`, and a centred window along the others."""

    roi: Roi
    axis: int

    @property
    def caption(self) -> str:
        return f"x, {'yz'[self.axis]} at {'zy'[self.axis]} = {json_numbers(self.roi.begin)[self.axis]:,} nm"


def _plane(roi: Roi, voxel_size: Coordinate, axis: int, depth: float) -> _Plane:
    begin, shape = [], []
    for a, (low, width, size) in enumerate(zip(roi.begin, roi.shape, voxel_size, strict=True)):
        voxels = width // size
        count = 1 if a == axis else min(voxels, _WINDOW)
        first = int(depth * voxels) if a == axis else (voxels - count) // 2
        begin.append(low + first * size)
        shape.append(count * size)
    return _Plane(Roi(begin, shape), axis)


def _section(
    plane: _Plane,
    evaluation: Evaluation,
    truth: GroundTruth,
    segmentation: Volume,
    raw: Volume | None,
    affinities: Volume | None,
) -> Section:
    roi, axis = plane
    segments = evaluation.segments_of(segmentation.read(roi).squeeze(axis)).astype(np.uint64)
    grey = np.zeros((*segments.shape, 1), np.uint8) if raw is None else _grey(raw.read(roi).squeeze(axis))
    pictures = {} if raw is None else {"raw": grey}
    if affinities is not None:
        pictures["affinities"] = _affinity_colors(affinities.read(roi).squeeze(axis + 1))
    pictures["segmentation"] = _overlay(grey, id_colors(_color_ids(evaluation.table, segments)), segments != 0, 0.55)
    if truth.labels is not None:
        labels = truth.read(roi).squeeze(axis).astype(np.uint64)
        pictures["ground truth"] = _overlay(grey, id_colors(labels), labels != 0, 0.55)
        errors = voxel_errors(evaluation.table, segments, labels)
        palette = np.array([COLORS.get(error, (0, 0, 0)) for error in VoxelError], np.uint8)
        pictures["errors"] = _overlay(grey, palette[errors], errors != VoxelError.NONE, 0.75)
    aspect = [segmentation.voxel_size[a] for a in (1 - axis, 2)]
    return Section(plane.caption, {name: jpeg(picture, aspect) for name, picture in pictures.items()})


def _color_ids(table: Contingency, segments: np.ndarray) -> np.ndarray:
    # a label's main segment takes the label's colour, every other segment a colour of its own
    ids = table.by_segment.ids
    main_label_index = np.searchsorted(table.by_label.ids, table.main_label)
    is_main = (table.main_segment[main_label_index] == ids) & (ids != 0)
    color_of_id = np.where(is_main, table.main_label, ids ^ np.uint64(1 << 63))
    colors = segments ^ np.uint64(1 << 63)
    indices, in_table = find_sorted(segments, ids)
    colors[in_table] = color_of_id[indices[in_table]]
    return np.where(segments == 0, np.uint64(0), colors)


def _grey(voxels: np.ndarray) -> np.ndarray:
    low, high = np.percentile(voxels, [0.5, 99.5])
    stretched = (voxels.astype(np.float32) - low) / max(high - low, 1e-9)
    return (255 * stretched.clip(0, 1)).astype(np.uint8)[..., None]


def _affinity_colors(affinities: np.ndarray) -> np.ndarray:
    colors = np.moveaxis(affinities[:3], 0, -1)
    if not np.issubdtype(colors.dtype, np.integer):
        colors = 255 * np.nan_to_num(colors).clip(0, 1)
    return colors.astype(np.uint8)


def _overlay(grey: np.ndarray, colors: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    alpha = opacity * mask[..., None]
    return ((1 - alpha) * grey + alpha * colors).astype(np.uint8)


def jpeg(picture: np.ndarray, voxel_size: Sequence[float | Number]) -> bytes:
    """Return a picture (Y, X, 1 or 3) uint8 as JPEG; voxels of any size (Y, X) are drawn in their proportions."""
    finest = min(voxel_size)
    for axis, size in enumerate(voxel_size):
        picture = np.repeat(picture, round(size / finest), axis=axis)
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()
