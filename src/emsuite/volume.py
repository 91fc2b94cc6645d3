"""Volumes: arrays with a voxel size and an offset in nanometres."""

from emsuite.io.volume import Volume, create_volume, open_volume

__all__ = ["Volume", "create_volume", "open_volume"]
