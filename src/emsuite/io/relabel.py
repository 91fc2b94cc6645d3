"""Replace the ids of fragments by the ids of the segments that they belong to.

A lookup table is two columns: the fragments, and the segment of each. Id 0 is background and stays 0.

fragments    3   7   9        relabel      0 7 7 9      ->  0 3 3 9
segments     3   3   9        lookup_rows  0 7 7 9      -> -1 1 1 2      the same for any column of segments
"""

import fastremap
import numpy as np

from emsuite.common.errors import BadInput

_FEW = 2**16  # up to so many ids, looking up each one is faster than finding the distinct ones first


def find_sorted(ids: np.ndarray, sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find each of `ids` (any shape) in `sorted_ids` (N,), which ascend and have the same dtype.

    Returns:
        The index (int64) of each id in `sorted_ids`, and whether the id is among them (bool), both of the shape of
        `ids`. The index of an id that is not among them is where it would be inserted, up to N.
    """
    indices = np.searchsorted(sorted_ids, ids)
    present = indices < sorted_ids.size
    present[present] = sorted_ids[indices[present]] == ids[present]
    return indices, present


def relabel(ids: np.ndarray, fragments: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Replace each fragment id by its segment id.

    Args:
        ids: Integers from 0 up, any shape: voxels, or a list of ids.
        fragments: Integers (N,), distinct; fastest where they ascend.
        segments: The segment (uint64) of each of `fragments`.

    Returns:
        The segments (uint64), in the shape of `ids`; 0 stays 0.

    Raises:
        BadInput: An id is not among `fragments`.
    """
    if ids.size <= _FEW:
        return segments_of_rows(lookup_rows(ids, fragments), segments)
    # a volume holds each id many times: look up the distinct ids only
    ids = ids.astype(np.uint64, copy=False)
    distinct = fastremap.unique(ids)
    replacement = segments_of_rows(lookup_rows(distinct, fragments), segments)
    return fastremap.remap(ids, dict(zip(distinct.tolist(), replacement.tolist(), strict=True)))


def lookup_rows(ids: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Return the row (int64) of each of `ids` in a lookup table, -1 for id 0; arguments and errors as for `relabel`.

    The rows serve all thresholds of a sweep, whose lookup tables list the same fragments.
    """
    # all in uint64: NumPy compares int64 with uint64 as floats, which cannot tell large ids apart
    ids, fragments = ids.astype(np.uint64, copy=False), fragments.astype(np.uint64, copy=False)
    rows, present = find_sorted(ids, fragments)
    missing = ~present & (ids != 0)
    if missing.any():
        # only now check the order: that reads the whole table, which may be far longer than `ids`
        if (fragments[1:] < fragments[:-1]).any():
            order = np.argsort(fragments, kind="stable")
            rows = lookup_rows(ids, fragments[order])
            return np.where(rows < 0, -1, order[rows])
        absent = np.unique(ids[missing])
        raise BadInput(
            f"lookup table: has no segment for {absent.size} fragments, {absent[0]} the first; "
            "expected the table that was made from these fragments"
        )
    rows[ids == 0] = -1
    return rows


def segments_of_rows(rows: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Return the segment (uint64) in each of the `rows` that `lookup_rows` returned; 0 where the row is -1."""
    result = np.zeros(rows.shape, np.uint64)
    inside = rows >= 0
    result[inside] = segments[rows[inside]]
    return result
