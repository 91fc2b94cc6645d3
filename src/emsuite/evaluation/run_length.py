"""Expected run length: the mean length of a neuron that one can follow in a segmentation before an error.

skeleton   o----o----o----o----o         from a random point on the skeleton, the run is the length of the skeleton that
segment      1    1  | 2    2            the segment at this point covers; edges with both ends in one segment count
"""

from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.skeletons import Skeletons


@dataclass(frozen=True)
class RunLength:
    """`erl` is in nm; `nerl` is `erl` divided by that of a perfect segmentation, 0 to 1.

    `splits` are the segments beyond the first, summed over skeletons. `merges` are the skeletons beyond the first,
    summed over segments.
    """

    erl: float
    nerl: float
    splits: int
    merges: int


def expected_run_length(skeletons: Skeletons, segments: np.ndarray) -> RunLength:
    """Return the expected run length (Januszewski et al. 2018, Nature Methods 15:605).

    A segment that touches two skeletons scores nothing, and neither does segment 0. If the border of the region cuts a
    skeleton in pieces, each piece has runs of its own, since no segmentation can join them; but a segment that touches
    two pieces of one skeleton is no merge.

    Args:
        skeletons: The skeletons in the region.
        segments: The segment under each node, integers (N,), in the order of the skeletons' nodes.

    Raises:
        BadInput: The skeletons have no edges.
    """
    ends, lengths = skeletons.ends, skeletons.lengths
    total = lengths.sum()
    if total == 0:
        raise BadInput(f"{skeletons.source}: no edges in the region that is scored, expected skeletons to run along")
    distinct, segment = np.unique(segments, return_inverse=True)
    segmented = segments != 0
    piece = skeletons.pieces
    _, skeleton = np.unique(skeletons.skeleton, return_inverse=True)
    skeletons_of_segment = _count_partners(segment[segmented], skeleton[segmented], distinct.size)
    segments_of_piece = _count_partners(piece[segmented], segment[segmented], piece.max() + 1)
    first, second = segment[ends].T
    correct = (first == second) & segmented[ends[:, 0]] & (skeletons_of_segment[first] <= 1)
    runs = _run_lengths(piece[ends[correct, 0]], first[correct], lengths[correct])
    perfect = skeletons.longest_runs
    return RunLength(
        erl=float(runs @ runs / total),
        nerl=float(runs @ runs / (perfect @ perfect)),
        splits=int(np.maximum(segments_of_piece - 1, 0).sum()),
        merges=int(np.maximum(skeletons_of_segment - 1, 0).sum()),
    )


def _count_partners(a: np.ndarray, b: np.ndarray, size: int) -> np.ndarray:
    # for each number below `size`: the number of distinct b in pairs (number, b)
    return np.bincount(np.unique(_pairs(a, b)) // _width(b), minlength=size)


def _run_lengths(piece: np.ndarray, segment: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    # the length of each piece that each segment covers
    _, run = np.unique(_pairs(piece, segment), return_inverse=True)
    return np.bincount(run, weights=lengths)


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # both count from 0 to less than the number of nodes: a pair fits one int64, which sorts fast
    return a * _width(b) + b


def _width(b: np.ndarray) -> int:
    return int(b.max(initial=0)) + 1
