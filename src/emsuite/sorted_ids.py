"""Looking ids up among sorted ones."""

import numpy as np


def find_sorted(ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `ids` (any shape) stands in `known` (N,), ascending and of the same type.

    Returns places (int64) and whether the id is there (bool), both of the shape of `ids`; the place of one that is not
    there is where it would stand, up to N.
    """
    places = np.searchsorted(known, ids)
    found = places < known.size
    found[found] = known[places[found]] == ids[found]
    return places, found
