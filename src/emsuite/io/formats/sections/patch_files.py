"""Patches in files: PNG (y, x), TIFF (y, x) or (z, y, x), and TIFFs of 4 axes that hold many of them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.io.formats.sections.image_folder import read_image
from emsuite.io.formats.sections.lazy_array import natural_order

ENDINGS = (".png", ".tif", ".tiff")


def patch_names(folder: Path) -> list[str]:
    """Return the names of the patches in a folder, 2 before 10; raise BadInput if it holds none."""
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    names = sorted((name for name in names if Path(name).suffix.lower() in ENDINGS), key=natural_order)
    if not names:
        raise BadInput(f"{folder}: holds no PNG or TIFF, expected patches")
    return names


def read_patch(path: Path) -> np.ndarray:
    """Return a patch (Z, Y, X) in the type of its file; raise BadInput if it is damaged or no grey patch."""
    if path.suffix.lower() == ".png":
        return read_image(path)[None]
    try:
        voxels = np.asarray(tifffile.imread(path))
    except Exception as error:  # a damaged file: errors of any kind
        raise BadInput(f"{path}: cannot be read: {error}") from None
    if voxels.ndim not in (2, 3):
        raise BadInput(f"{path}: {voxels.ndim} axes {voxels.shape}, expected a patch (y, x) or (z, y, x)")
    return voxels.reshape((-1, *voxels.shape[-2:]))


def open_stack(path: Path) -> Any:
    """Open a TIFF of many patches, (N, Z, Y, X), mapped into memory unless it is compressed; BadInput for others."""
    for read in (partial(tifffile.memmap, mode="r"), tifffile.imread):
        try:
            stack: Any = read(path)
        except ValueError:  # compressed: it cannot be mapped
            continue
        except Exception as error:  # a damaged file: errors of any kind
            raise BadInput(f"{path}: cannot be read: {error}") from None
        if stack.ndim != 4 or not stack.size:
            raise BadInput(f"{path}: {stack.ndim} axes {stack.shape}, expected 4: patches, z, y, x")
        return stack
    raise BadInput(f"{path}: cannot be read, expected a TIFF")


def write_patch(path: Path, voxels: np.ndarray) -> None:
    """Write a patch (Z, Y, X); a PNG holds a single section, uint8, and a TIFF integers. A stack has 4 axes."""
    if path.suffix == ".png":
        Image.fromarray(voxels.reshape(voxels.shape[-2:])).save(path)
    else:
        tifffile.imwrite(path, voxels, photometric="minisblack", compression="zlib")
