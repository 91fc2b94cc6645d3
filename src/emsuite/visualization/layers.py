"""Volumes as neuroglancer layers, which read their array piece by piece, at its position in nm.

The source of a layer is a neuroglancer.LocalVolume in voxels of the array. A translation by offset / voxel size moves
it to its position in the world. The quotient need not be whole, so an offset between voxels is shown exactly.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import neuroglancer
import numpy as np
from neuroglancer.local_volume import MeshesNotSupportedForVolume

from emsuite.common.errors import BadInput
from emsuite.common.geometry import json_numbers
from emsuite.io.volume import Volume
from emsuite.visualization.shaders import DESCRIPTOR_GROUPS, MASK_SHADER, channel_shader, gray_shader, triples

Kind = Literal["image", "affinities", "descriptors", "segmentation", "mask"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_IDS = ("label", "neuron", "segment", "fragment")
# Meshes come from marching cubes over the whole array in memory. Larger arrays are shown in sections only.
_MESH_VOXELS = 2**25
# Each coarser level is computed from all the voxels it covers, and a browser requests every level around a section.
_DOWNSAMPLING = 8
_SAMPLE = 48


@dataclass(frozen=True)
class Layer:
    """A volume to show under `name`; raises BadInput if its type or its channels do not suit `kind`."""

    name: str
    volume: Volume
    kind: Kind

    def __post_init__(self) -> None:
        channels, number = self.volume.channels, self.volume.dtype.kind
        is_suitable, expected = {
            "image": (number in "biuf", "numbers"),
            "affinities": (channels is not None and number in "uf", "uint8 or float of shape (C, Z, Y, X)"),
            "descriptors": (
                channels in DESCRIPTOR_GROUPS and number in "uf",
                "uint8 or float of shape (10, Z, Y, X) or (6, Y, X)",
            ),
            "segmentation": (channels is None and number in "iu", "integers of shape (Z, Y, X)"),
            "mask": (channels is None and number in "biuf", "numbers of shape (Z, Y, X)"),
        }[self.kind]
        if not is_suitable:
            raise BadInput(
                f"{self.volume.path}: {self.volume.dtype} of shape {self.volume.shape} cannot be shown as {self.kind}, "
                f"expected {expected}"
            )


def kind_of(name: str, volume: Volume) -> Kind:
    """Return how to show an array.

    Its attributes decide: `kind`, if it is one of `Kind`, else `neighborhood`, which affinities have. Without them, its
    name (such as `labels/neuron_ids` or `targets/affs`), its type and its channels decide.
    """
    stated = volume.attributes.get("kind")
    if isinstance(stated, str) and stated in KINDS:
        return stated
    if "neighborhood" in volume.attributes and volume.channels is not None:
        return "affinities"
    *groups, last = name.lower().split("/")
    if {"weights", "gradients"} & set(groups) or "raw" in last:
        return "image"
    if volume.channels is not None:
        if last.startswith("aff"):
            return "affinities"
        return "descriptors" if last.startswith("lsd") and volume.channels in DESCRIPTOR_GROUPS else "image"
    if ("mask" in last and volume.dtype.kind in "iu") or volume.dtype.kind == "b":
        return "mask"
    holds_ids = volume.dtype.itemsize >= 4 or "labels" in groups or any(word in last for word in _IDS)
    return "segmentation" if volume.dtype.kind in "iu" and holds_ids else "image"


def axis_names(volume: Volume) -> list[str]:
    """Return the names of the spatial axes of a volume: z, y, x or y, x."""
    return ["z", "y", "x"][-volume.voxel_size.dims :]


def coordinate_space(volume: Volume) -> neuroglancer.CoordinateSpace:
    """Return the voxel grid of a volume for neuroglancer: axes z, y, x, each with its voxel size in nm."""
    return neuroglancer.CoordinateSpace(names=axis_names(volume), units="nm", scales=json_numbers(volume.voxel_size))


def neuroglancer_layer(layer: Layer) -> neuroglancer.Layer:
    """Return the layer for neuroglancer; pieces of the array are read when a browser requests them."""
    source = _source(layer)
    if layer.kind == "segmentation":
        return neuroglancer.SegmentationLayer(source=source, selected_alpha=0.4, not_selected_alpha=0.1)
    if layer.kind == "mask":
        return neuroglancer.ImageLayer(source=source, shader=MASK_SHADER, opacity=0.35)
    return neuroglancer.ImageLayer(source=source, shader=_shader(layer), opacity=1.0)


def _shader(layer: Layer) -> str:
    channels = layer.volume.channels
    if layer.kind == "descriptors" and channels is not None:
        return channel_shader(DESCRIPTOR_GROUPS[channels], "descriptor", _limits(layer))
    return (
        gray_shader(_limits(layer)) if channels is None else channel_shader(triples(channels), "triple", _limits(layer))
    )


def _limits(layer: Layer) -> tuple[float, float]:
    """Return the values to draw black and white: the range of the type or, if it has none, that of a sample."""
    volume = layer.volume
    if volume.dtype == np.uint8:
        return 0, 255
    if layer.kind in ("affinities", "descriptors") and volume.dtype.kind == "f":
        return 0, 1
    begin = [max(0, (n - _SAMPLE) // 2) for n in volume.spatial_shape]
    index = tuple(slice(b, b + _SAMPLE) for b in begin)
    sample = volume[(..., *index)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    low, high = (float(sample.min()), float(sample.max())) if sample.size else (0.0, 1.0)
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def _source(layer: Layer) -> neuroglancer.LayerDataSource:
    volume, space = layer.volume, coordinate_space(layer.volume)
    if volume.channels is not None:
        space = neuroglancer.CoordinateSpace(
            names=["c^", *space.names],
            units=["", *["nm"] * len(space.names)],
            scales=[1, *json_numbers(volume.voxel_size)],
        )
    rank = len(volume.shape)
    matrix = np.eye(rank, rank + 1)
    matrix[-volume.voxel_size.dims :, -1] = [
        float(o / s) for o, s in zip(volume.offset, volume.voxel_size, strict=True)
    ]
    return neuroglancer.LayerDataSource(
        url=_LocalVolume(
            _Pieces(volume, _shown_dtype(layer)),
            dimensions=space,
            volume_type="segmentation" if layer.kind == "segmentation" else "image",
            max_downsampling=_DOWNSAMPLING,
        ),
        transform=neuroglancer.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix),
    )


def _shown_dtype(layer: Layer) -> np.dtype:
    """Return a type that neuroglancer supports and that holds the values of the array."""
    dtype = layer.volume.dtype
    if dtype.kind == "f" or (layer.kind != "segmentation" and dtype.itemsize == 8):
        return np.dtype(np.float32)
    if dtype.kind == "b" or layer.kind == "segmentation":
        return np.dtype(f"u{dtype.itemsize}")
    return dtype.newbyteorder("=")


class _Pieces:
    """An array for LocalVolume, which reads slices of it; they are converted to `dtype` and not cached."""

    def __init__(self, array: Volume, dtype: np.dtype):
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.ascontiguousarray(self._array[index], dtype=self.dtype)

    def transpose(self) -> np.ndarray:
        """Return the whole array with axes reversed; meshes are made from it."""
        return self[...].T


class _LocalVolume(neuroglancer.LocalVolume):
    def get_object_mesh(self, object_id: int) -> bytes:
        if math.prod(self.shape) > _MESH_VOXELS:
            raise MeshesNotSupportedForVolume
        return super().get_object_mesh(object_id)
