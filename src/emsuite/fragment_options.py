"""What is to be known about fragments before any are made."""

from dataclasses import asdict, dataclass
from typing import Any

NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets in voxels of the three affinities that there always are, to the voxels before in z, y and x."""


@dataclass(frozen=True)
class FragmentOptions:
    """How fragments are made; the defaults are the paper's.

    `min_seed_distance` (voxels): width of the maximum filter that seeds are the maxima of. `filter_fragments` (0 to
    1): fragments of a lower mean affinity become background. `epsilon` (0 to 1): fragments are agglomerated up to
    this threshold at once. `in_sections`: each z-section alone, by the affinities in y and x. `flood`: what the
    watershed floods, `distance` to the boundary, or the `affinity` itself. `seeds`: where it begins, at the maxima of
    the `distance`, or from the pieces of a `mutex` watershed, for which `bias` and `debris` are (see `mutex_pieces`).
    """

    min_seed_distance: int = 10
    filter_fragments: float = 0.0
    epsilon: float = 0.0
    in_sections: bool = False
    flood: str = "distance"
    seeds: str = "distance"
    bias: tuple[float, float] = (0.5, 0.5)
    debris: int = 64

    def as_settings(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)
