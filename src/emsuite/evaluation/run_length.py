"""Expected run length: how far along a neuron one gets in a segmentation, on average, before an error.

skeleton   o----o----o----o----o         starting anywhere on the skeleton, the run is the length that the
segment      1    1  | 2    2            segment there covers: edges with both ends in one segment count
"""

from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.skeletons import Skeletons


@dataclass(frozen=True)
class RunLength:
    """`erl` in nm; `nerl` = erl / erl of a perfect segmentation, 0 to 1; numbers of errors.

    `splits`: segments beyond the first, summed over skeletons. `merges`: skeletons beyond the first, summed over
    segments.
    """

    erl: float
    nerl: float
    splits: int
    merges: int


def expected_run_length(skeletons: Skeletons, segments: np.ndarray) -> RunLength:
    """Score the segment under each node (`segments`, integers (N,), in the order of the skeletons' nodes).

    Januszewski et al. 2018, Nature Methods 15:605: a segment that touches two skeletons scores nothing, nor does
    segment 0. A skeleton in several pieces (cut by the border of the region) is one neuron when merges are
    looked for, but its pieces run on their own: no segmentation can join them. Raises BadInput without any edge.
    """
    ends, lengths = skeletons.ends, skeletons.lengths
    total = lengths.sum()
    if total == 0:
        raise BadInput(f"{skeletons.source}: no edges in the region that is scored, expected skeletons to run along")
    distinct, segment = np.unique(segments, return_inverse=True)
    segmented = segments != 0
    piece = skeletons.pieces
    _, skeleton = np.unique(skeletons.skeleton, return_inverse=True)
    touched = _partners(segment[segmented], skeleton[segmented], distinct.size)
    parts = _partners(piece[segmented], segment[segmented], piece.max() + 1)
    near, far = segment[ends].T
    right = (near == far) & segmented[ends[:, 0]] & (touched[near] <= 1)
    runs = _run_lengths(piece[ends[right, 0]], near[right], lengths[right])
    perfect = skeletons.longest_runs
    return RunLength(
        erl=float(runs @ runs / total),
        nerl=float(runs @ runs / (perfect @ perfect)),
        splits=int(np.maximum(parts - 1, 0).sum()),
        merges=int(np.maximum(touched - 1, 0).sum()),
    )


def _partners(a: np.ndarray, b: np.ndarray, size: int) -> np.ndarray:
    # for each of the numbers below `size`: with how many different b it comes together
    return np.bincount(np.unique(_pairs(a, b)) // _width(b), minlength=size)


def _run_lengths(piece: np.ndarray, segment: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    # the length that each segment covers of each piece
    _, run = np.unique(_pairs(piece, segment), return_inverse=True)
    return np.bincount(run, weights=lengths)


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # both are numbered from 0 up, no further than there are nodes: a pair fits one int64, which sorts fast
    return a * _width(b) + b


def _width(b: np.ndarray) -> int:
    return int(b.max(initial=0)) + 1
