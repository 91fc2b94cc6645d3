"""How well a segmentation agrees with ground truth, region by region: variation of information and Rand.

All scores are made from one contingency table, and none counts voxels of label 0 (not annotated). Voxels that are
labelled but lie in segment 0 do count: for the variation of information, segment 0 is a segment as any other, as in
funlib.evaluate's `rand_voi` and waterz; for the adapted Rand error each such voxel is a segment of its own, as in the
SNEMI3D and CREMI challenges.
"""

from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import Contingency, contingency


@dataclass(frozen=True)
class VariationOfInformation:
    """In bits: `split` = H(segmentation | labels), `merge` = H(labels | segmentation); 0 is perfect."""

    split: float
    merge: float

    @property
    def sum(self) -> float:
        """The variation of information, split + merge."""
        return self.split + self.merge


@dataclass(frozen=True)
class AdaptedRand:
    """`error` = 1 - F, F the harmonic mean of `precision` (lowered by merges) and `recall` (lowered by splits)."""

    error: float
    precision: float
    recall: float


def variation_of_information(segmentation: np.ndarray, labels: np.ndarray) -> VariationOfInformation:
    """Variation of information of two integer arrays of one shape (any integer dtype, any number of axes).

    Meilă 2007, J. Multivariate Analysis 98, equation 16, in bits. Raises BadInput where the arrays differ in shape,
    hold no integers or ids below 0, or no label but 0.
    """
    return variation_of_information_of(contingency(segmentation, labels))


def adapted_rand(segmentation: np.ndarray, labels: np.ndarray) -> AdaptedRand:
    """Adapted Rand error of two integer arrays of one shape; raises as `variation_of_information`.

    Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142, over pairs of distinct voxels, as scikit-image counts them
    (its `adapted_rand_error` gives what is called recall here before precision).
    """
    return adapted_rand_of(contingency(segmentation, labels))


def rand_index(segmentation: np.ndarray, labels: np.ndarray) -> float:
    """The Rand index of two integer arrays of one shape; see `rand_index_of`, and raises as the other scores."""
    return rand_index_of(contingency(segmentation, labels))


def variation_of_information_of(table: Contingency) -> VariationOfInformation:
    """Variation of information from a contingency table; raises BadInput if the table is empty."""
    shared = _scorable(table).counts.astype(np.float64)
    share = shared / table.voxels
    in_label = table.by_label.voxels[table.by_label.row]
    in_segment = table.by_segment.voxels[table.by_segment.row]
    return VariationOfInformation(
        split=float(np.sum(share * np.log2(in_label / shared))),
        merge=float(np.sum(share * np.log2(in_segment / shared))),
    )


def adapted_rand_of(table: Contingency) -> AdaptedRand:
    """Adapted Rand error from a contingency table; raises BadInput if the table is empty."""
    has_segment = _scorable(table).segments != 0
    together = _pairs(table.counts[has_segment])
    in_segments = _pairs(table.by_segment.voxels[table.by_segment.ids != 0])
    in_labels = _pairs(table.by_label.voxels)
    return AdaptedRand(
        error=1 - _ratio(2 * together, in_segments + in_labels),
        precision=_ratio(together, in_segments),
        recall=_ratio(together, in_labels),
    )


def rand_index_of(table: Contingency) -> float:
    """The share of pairs of distinct voxels, 0 to 1, that are together in both partitions or apart in both.

    Rand 1971, J. American Statistical Association 66:846. Segment 0 is a segment as any other, as it is for the
    variation of information. Raises BadInput if the table is empty.
    """
    together, in_segments, in_labels = (
        _pairs(counts) for counts in (_scorable(table).counts, table.by_segment.voxels, table.by_label.voxels)
    )
    everything = _pairs(np.array([table.voxels]))
    return _ratio(everything + 2 * together - in_segments - in_labels, everything)


def _scorable(table: Contingency) -> Contingency:
    if table.voxels == 0:
        raise BadInput("labels: hold nothing but 0 (not annotated) here; expected labelled voxels to score")
    return table


def _pairs(counts: np.ndarray) -> float:
    # ordered pairs of distinct voxels; in floats, as the square of a teravoxel does not fit 64 bits
    sizes = counts.astype(np.float64)
    return float(np.sum(sizes * (sizes - 1)))


def _ratio(part: float, whole: float) -> float:
    # where there is no pair at all, none is wrong
    return part / whole if whole else 1.0
