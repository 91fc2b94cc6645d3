"""Affinities of a segmentation (Turaga et al. 2010)."""

from emsuite.targets.affinities import affinities

__all__ = ["affinities"]
