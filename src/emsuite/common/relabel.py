"""Looking ids up among sorted ones."""

import fastremap
import numpy as np

from emsuite.common.errors import BadInput


def find_sorted(ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `ids` (any shape) stands in `known` (N,), ascending and of the same type.

    Returns places (int64) and whether the id is there (bool), both of the shape of `ids`; the place of one that is not
    there is where it would stand, up to N.
    """
    places = np.searchsorted(known, ids)
    found = places < known.size
    found[found] = known[places[found]] == ids[found]
    return places, found


def apply_lookup(ids: np.ndarray, fragments: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """`ids` (integers of any shape) with each fragment replaced by its segment (uint64); 0 stays 0.

    Raises BadInput if an id is not among `fragments`.
    """
    return segments_at(lookup_places(ids, fragments), segments)


def lookup_places(ids: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Where in `fragments` (integers, any order) each of `ids` (integers of any shape) stands; -1 for id 0.

    Raises BadInput if an id is not among `fragments`.
    """
    # all in uint64: NumPy compares int64 with uint64 as floats, which confuses large ids
    ids, fragments = ids.astype(np.uint64, copy=False), fragments.astype(np.uint64, copy=False)
    ascending = bool((fragments[1:] > fragments[:-1]).all())
    order = np.arange(fragments.size) if ascending else np.argsort(fragments, kind="stable")
    known = fragments if ascending else fragments[order]
    place, found = find_sorted(ids, known)
    if missing := np.count_nonzero(~found & (ids != 0)):
        first = ids[~found & (ids != 0)].min()
        raise BadInput(
            f"lookup table: has no segment for {missing} fragments, {first} the first; expected the table "
            "that was made from these fragments"
        )
    places = np.full(ids.shape, -1)
    places[found] = order[place[found]]
    places[ids == 0] = -1
    return places


def segments_at(places: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The segment (uint64) at each of the `places` that `lookup_places` found; 0 where that is -1."""
    mapped = np.zeros(places.shape, np.uint64)
    inside = places >= 0
    mapped[inside] = segments[places[inside]]
    return mapped


def relabel(voxels: np.ndarray, fragments: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """`voxels` (uint64, any shape) with each id in `fragments` (ascending) replaced by the one beside it; 0 stays 0.

    Raises BadInput if a voxel holds another id.
    """
    ids = fastremap.unique(voxels)
    ids = ids[ids != 0]
    places, known = find_sorted(ids, fragments)
    if not known.all():
        raise BadInput(
            f"lookup table: has no segment for fragment {ids[~known][0]}; expected the table of these fragments"
        )
    table = dict(zip(ids.tolist(), segments[places].tolist(), strict=True))
    return fastremap.remap(voxels, table | {0: 0}, preserve_missing_labels=False)
