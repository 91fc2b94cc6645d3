"""Patches as files: a TIFF of 4 axes, or a folder of PNGs or TIFFs, one patch each, all of one size.

trainA.tif              (n, z, y, x)
trainA/12_block_3.png   (y, x), section 12, block 3: names decide the order, 2 before 10
trainA/12_block_3.tif   (y, x), or (z, y, x)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_whole
from emsuite.data.grey_values import TYPES, GreyRange, is_grey, range_of_type
from emsuite.data.training_volume import CPU
from emsuite.data.transfer.settings import DomainSettings
from emsuite.io.formats.sections.patch_files import open_stack, patch_names, read_patch, write_patch
from emsuite.io.values import in_unit_range

_MEASURED = 64
"""Patches whose grey values are measured."""


@dataclass(frozen=True)
class Patches:
    """Patches of one size and type, read one by one."""

    path: Path
    names: tuple[str, ...]
    """The file of each, or its number in a TIFF of 4 axes."""
    shape: tuple[int, int, int]
    """Voxels of each, z y x."""
    dtype: np.dtype
    _stack: Any = None
    """The array (n, z, y, x) of a TIFF, mapped into memory where it is not compressed."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the voxels of a patch, (Z, Y, X); raise BadInput if it has another size or type than the first."""
        if self._stack is not None:
            return np.array(self._stack[number])
        voxels = read_patch(self.path / self.names[number])
        if voxels.shape != self.shape or voxels.dtype != self.dtype:
            raise BadInput(
                f"{self.path / self.names[number]}: a patch of {voxels.shape} {voxels.dtype}, expected {self.shape} "
                f"{self.dtype} as {self.names[0]}"
            )
        return voxels


def open_patches(path: Path) -> Patches:
    """Open a TIFF of 4 axes or a folder of patches; raise BadInput if it is missing, empty or neither."""
    check_whole(path, is_edited=True)
    if path.is_dir():
        names = patch_names(path)
        first = read_patch(path / names[0])
        return Patches(path, tuple(names), _three(first.shape), first.dtype)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder, expected patches")
    stack = open_stack(path)
    return Patches(path, tuple(map(str, range(len(stack)))), _three(stack.shape[1:]), stack.dtype, stack)


def save_patches(path: Path, names: Sequence[str], patches: Iterable[np.ndarray]) -> None:
    """Write patches (Z, Y, X) of one size into a new folder, or as one TIFF of 4 axes if the path ends in .tif.

    Args:
        path: a folder, or a TIFF.
        names: of the files in a folder, with their endings.
        patches: as many.
    """
    if path.suffix == ".tif":
        write_patch(path, np.stack(list(patches)))
        return
    path.mkdir(parents=True)
    for name, patch in zip(names, patches, strict=True):
        write_patch(path / name, patch)


def check_match(labels: Patches, images: Patches) -> None:
    """Raise BadInput unless there is one patch of labels for each of images, of one size, whole numbers."""
    if labels.dtype.kind not in "uib":
        raise BadInput(f"{labels.path}: holds {labels.dtype}, expected labels, integers")
    for what, own, other in (("patches", len(labels), len(images)), ("voxels", labels.shape, images.shape)):
        if own != other:
            raise BadInput(f"{labels.path}: {own} {what} of labels, expected {other} as {images.path} has")
    if labels._stack is None and images._stack is None:
        for mine, theirs in zip(labels.names, images.names, strict=True):
            if Path(mine).stem != Path(theirs).stem:
                raise BadInput(f"{labels.path / mine}: stands for the image {theirs}, expected labels of its name")


@dataclass(frozen=True)
class StoredPatch:
    """A patch on disk, which yields tensors as one in memory would."""

    patches: Patches
    number: int
    convert: Callable[[np.ndarray], Tensor]
    """Returns the voxels that were read as a tensor of `dtype`."""
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels, z y x."""
        return self.patches.shape

    @property
    def device(self) -> torch.device:
        """The device of the tensors: the CPU."""
        return CPU

    def __getitem__(self, box: tuple[slice, ...]) -> Tensor:
        """Return the voxels of a box."""
        return self.convert(np.array(self.patches[self.number][box], order="C"))


@dataclass(frozen=True)
class GreyReader:
    """Turns patches of grey values of any type into uint8 as stored, or float32 from 0 to 1."""

    path: Path
    grey_range: GreyRange | None
    """The values that become 0 and 1; None: uint8's own, or floats as they are."""
    dtype: torch.dtype

    def __call__(self, voxels: np.ndarray) -> Tensor:
        """Return the voxels of a patch; raise BadInput for floats outside of 0 to 1 that have no range."""
        if self.dtype == torch.uint8:
            return torch.from_numpy(voxels)
        if self.grey_range is not None:
            return torch.from_numpy(self.grey_range.apply(voxels))
        checked = in_unit_range(voxels)
        if checked is None:
            low, high = float(voxels.min()), float(voxels.max())
            raise BadInput(f"{self.path}: floats from {low:g} to {high:g}, expected 0 to 1, or the key grey_range")
        return torch.from_numpy(checked.astype(np.float32))


def grey_reader(patches: Patches, settings: DomainSettings, recorded: GreyRange | None) -> GreyReader:
    """Return what reads the grey values of patches, in the range that was recorded, or that the settings say."""
    if not is_grey(patches.dtype):
        raise BadInput(f"{patches.path}: {patches.dtype}, expected {TYPES}")
    said = settings.grey_range
    if said == "percentiles":
        grey_range: GreyRange | None = recorded or _measured(patches, settings.percentiles)
    else:
        grey_range = range_of_type(patches.dtype) if said == "dtype" else GreyRange(*said)
    if patches.dtype == np.uint8 and grey_range == (0, 255):
        return GreyReader(patches.path, None, torch.uint8)
    return GreyReader(patches.path, grey_range, torch.float32)


def label_patch(voxels: np.ndarray, name: str) -> Tensor:
    """Return the labels of a patch as int32, renumbered from 1; 0 stays. Negative ones raise BadInput with `name`."""
    if voxels.dtype.kind == "i" and voxels.size and voxels.min() < 0:
        raise BadInput(f"{name}: holds the label {voxels.min()}, expected 0 for background and labels above")
    unsigned = np.array(voxels).view(f"u{voxels.dtype.itemsize}")
    return torch.from_numpy(fastremap.renumber(unsigned)[0].astype(np.int32))


def _measured(patches: Patches, percentiles: tuple[float, float]) -> GreyRange:
    some = range(0, len(patches), -(-len(patches) // _MEASURED))
    values = np.concatenate([patches[number].ravel() for number in some])
    low, high = map(float, np.percentile(values, percentiles))
    if not low < high:
        raise BadInput(f"{patches.path}: percentiles {percentiles} are {low:g} and {high:g}, expected two values")
    return GreyRange(low, high)


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    depth, height, width = map(int, shape)
    return depth, height, width
