"""Local shape descriptors (Sheridan et al. 2022)."""

from emsuite.targets.lsds import local_shape_descriptors

__all__ = ["local_shape_descriptors"]
