"""Pictures of sections: raw, affinities, segmentation, ground truth and where the two differ, side by side."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from funlib.geometry import Coordinate, Roi
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.common.relabel import find_sorted
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.split_merge_errors import Mistake, mistakes
from emsuite.evaluation.threshold_sweep import Evaluation
from emsuite.io.volume import Volume

_WINDOW = 512  # voxels of a section that are shown, along each axis, around its centre
_DEPTHS = (1 / 6, 1 / 2, 5 / 6)  # of the sections, as shares of the volume

COLORS = {
    Mistake.SPLIT: (255, 159, 28),
    Mistake.MERGE: (214, 40, 110),
    Mistake.BOTH: (58, 134, 255),
    Mistake.UNSEGMENTED: (150, 150, 150),
}
"""Red, green, blue of what is laid over the errors' picture."""


@dataclass(frozen=True)
class Section:
    """One cut through the volume: where it lies, and its pictures (JPEG) by name, all of one size."""

    place: str
    pictures: dict[str, bytes]


def sections(
    evaluation: Evaluation, truth: GroundTruth, segmentation: Volume, raw: Volume | None, affinities: Volume | None
) -> list[Section]:
    """Three sections in x and y at different z (fewer of a thin volume), and one in x and z, through the middle.

    `raw` (Z, Y, X) and `affinities` (C, Z, Y, X; the first three channels are shown as red, green, blue) are left out
    if None. Raises BadInput as `shown_roi`.
    """
    shown = shown_roi(evaluation.roi, truth, raw, affinities)
    places = [*((0, depth) for depth in _DEPTHS), (1, 0.5)]
    cuts = [_cut(shown, truth.labels.voxel_size, axis, depth) for axis, depth in places]
    different = {cut.place: cut for cut in cuts}.values()
    return [_section(cut, evaluation, truth, segmentation, raw, affinities) for cut in different]


def shown_roi(scored: Roi, truth: GroundTruth, raw: Volume | None, affinities: Volume | None) -> Roi:
    """What can be shown of the ROI that is scored, nm.

    Raises BadInput where an array does not cover any of it or has another voxel size than the labels.
    """
    for array in (raw, affinities):
        scored = scored if array is None else _overlap(scored, array, truth.labels)
    return scored


def id_colors(ids: np.ndarray) -> np.ndarray:
    """A colour (uint8, one more axis of red, green, blue) for each id (uint64), the same in every run; 0 is black."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hue = (mixed >> np.uint64(40)).astype(np.float32) / 2**24
    light = 0.72 + 0.28 * ((mixed >> np.uint64(20)) & np.uint64(255)).astype(np.float32) / 255
    wheel = np.abs((hue[..., None] * 6 + np.array([0, 4, 2], np.float32)) % 6 - 3) - 1
    color = light[..., None] * (0.25 + 0.75 * wheel.clip(0, 1))
    return np.where((ids == 0)[..., None], 0, 255 * color).astype(np.uint8)


def _overlap(roi: Roi, array: Volume, labels: Volume) -> Roi:
    if array.voxel_size != labels.voxel_size:
        raise BadInput(
            f"{array.path}: voxel size {tuple(array.voxel_size)} nm, but {tuple(labels.voxel_size)} in {labels.path}"
        )
    if not roi.intersects(array.roi):
        raise BadInput(f"{array.path}: covers {array.roi} nm, which does not overlap {roi}, which is scored")
    return roi.intersect(array.roi)


class _Cut(NamedTuple):
    """What is shown (nm), one voxel thick along `axis`, a centred window along the others."""

    roi: Roi
    axis: int

    @property
    def place(self) -> str:
        """In words."""
        return f"x, {'yz'[self.axis]} at {'zy'[self.axis]} = {self.roi.begin[self.axis]:,} nm"


def _cut(roi: Roi, voxel_size: Coordinate, axis: int, depth: float) -> _Cut:
    begin, shape = [], []
    for a, (low, width, size) in enumerate(zip(roi.begin, roi.shape, voxel_size, strict=True)):
        voxels = width // size
        count = 1 if a == axis else min(voxels, _WINDOW)
        first = int(depth * voxels) if a == axis else (voxels - count) // 2
        begin.append(low + first * size)
        shape.append(count * size)
    return _Cut(Roi(begin, shape), axis)


def _section(
    cut: _Cut,
    evaluation: Evaluation,
    truth: GroundTruth,
    segmentation: Volume,
    raw: Volume | None,
    affinities: Volume | None,
) -> Section:
    roi, axis = cut
    labels = truth.read(roi).squeeze(axis).astype(np.uint64)
    segments = evaluation.segments_of(segmentation.read(roi).squeeze(axis)).astype(np.uint64)
    grey = np.zeros((*labels.shape, 1), np.uint8) if raw is None else _grey(raw.read(roi).squeeze(axis))
    pictures = {} if raw is None else {"raw": grey}
    if affinities is not None:
        pictures["affinities"] = _affinity_colors(affinities.read(roi).squeeze(axis + 1))
    pictures["segmentation"] = _overlay(grey, id_colors(_matched(evaluation.table, segments)), segments != 0, 0.55)
    pictures["ground truth"] = _overlay(grey, id_colors(labels), labels != 0, 0.55)
    kind = mistakes(evaluation.table, segments, labels)
    palette = np.array([COLORS.get(mistake, (0, 0, 0)) for mistake in Mistake], np.uint8)
    pictures["errors"] = _overlay(grey, palette[kind], kind != Mistake.NONE, 0.75)
    aspect = [truth.labels.voxel_size[a] for a in (1 - axis, 2)]
    return Section(cut.place, {name: _jpeg(picture, aspect) for name, picture in pictures.items()})


def _matched(table: Contingency, segments: np.ndarray) -> np.ndarray:
    # a label's main segment is shown in the label's colour, every other segment in one of its own
    ids = table.by_segment.ids
    main = np.searchsorted(table.by_label.ids, table.main_label)
    is_main = (table.main_segment[main] == ids) & (ids != 0)
    shown = np.where(is_main, table.main_label, ids ^ np.uint64(1 << 63))
    colors = segments ^ np.uint64(1 << 63)
    place, known = find_sorted(segments, ids)
    colors[known] = shown[place[known]]
    return np.where(segments == 0, np.uint64(0), colors)


def _grey(voxels: np.ndarray) -> np.ndarray:
    low, high = np.percentile(voxels, [0.5, 99.5])
    stretched = (voxels.astype(np.float32) - low) / max(high - low, 1e-9)
    return (255 * stretched.clip(0, 1)).astype(np.uint8)[..., None]


def _affinity_colors(affinities: np.ndarray) -> np.ndarray:
    shown = np.moveaxis(affinities[:3], 0, -1)
    if not np.issubdtype(shown.dtype, np.integer):
        shown = 255 * np.nan_to_num(shown).clip(0, 1)
    return shown.astype(np.uint8)


def _overlay(grey: np.ndarray, colors: np.ndarray, where: np.ndarray, opacity: float) -> np.ndarray:
    share = opacity * where[..., None]
    return ((1 - share) * grey + share * colors).astype(np.uint8)


def _jpeg(picture: np.ndarray, voxel_size: Sequence[int]) -> bytes:
    # voxels that are longer along one axis are shown so
    finest = min(voxel_size)
    for axis, size in enumerate(voxel_size):
        picture = np.repeat(picture, round(size / finest), axis=axis)
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()
