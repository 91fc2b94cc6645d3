"""Settings of a phantom: its size, its tissue, its microscope and its damaged sections."""

from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings

_FINE = 10.0  # nm, the largest voxel size that still resolves membranes
_MOST_VOXELS = 2**28  # fine voxels, each takes about 40 bytes

Voxels = Annotated[int, Field(ge=8, le=100_000)]
Border = Annotated[int, Field(ge=0, le=50_000)]
Nanometres = Annotated[int, Field(ge=1, le=200)]


class PhantomSettings(Settings):
    """All settings that decide the bytes of a phantom. Grey values are those of uint8, 0 to 255."""

    shape: tuple[Voxels, Voxels, Voxels] = Field((160, 200, 200), description="Voxels of raw along z, y, x.")
    voxel_size: tuple[Nanometres, Nanometres, Nanometres] = Field((8, 8, 8), description="nm along z, y, x.")
    padding: tuple[Border, Border, Border] = Field(
        (0, 0, 0), description="Voxels of raw around the labels on each side of z, y, x."
    )
    unlabelled: float = Field(0.0, ge=0, lt=1, description="Fraction of the labels with special ids, no ground truth.")
    seed: int = Field(0, ge=0, description="Another seed gives another piece of tissue.")
    missing_sections: float = Field(0.0, ge=0, lt=1, description="Fraction of sections without an image (raw is 0).")
    shifted_sections: float = Field(0.0, ge=0, le=1, description="Fraction of sections moved in y and x.")
    max_shift: int = Field(0, ge=0, le=10_000, description="Largest shift of a section along y and along x, nm.")
    thickest: float = Field(260.0, ge=20, le=2000, description="Radius of the thickest class of neurites, nm.")
    mitochondria: float = Field(0.12, ge=0, le=0.4, description="Fraction of the tissue that is mitochondria.")
    vesicles: float = Field(1500.0, ge=0, le=20_000, description="Vesicles per cubic micrometre.")
    unevenness: float = Field(1.0, ge=0, le=10, description="Drift of the staining; 1 is that of FIB-25.")
    section_jitter: float = Field(
        0.3, ge=0, le=60, description="Standard deviation of section brightness, grey values."
    )
    blur: float = Field(10.0, ge=0, le=100, description="Standard deviation of the blur, nm.")
    noise: float = Field(6.3, ge=0, le=100, description="Standard deviation of the shot noise, grey values.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shifted_sections > 0 and self.max_shift < max(self.voxel_size[1:]):
            raise ValueError(f"--max-shift {self.max_shift}: moves no section, expected at least a voxel's width in nm")
        if min(self.labels_shape) < 1:
            raise ValueError(f"--padding {self.padding}: leaves no voxel for labels in --shape {self.shape}")
        if (count := int(np.prod(self.fine_shape))) > _MOST_VOXELS:
            raise ValueError(f"--shape {self.shape}: {count} voxels of about 10 nm, expected at most {_MOST_VOXELS}")
        return self

    @classmethod
    def completed(cls, earlier: dict[str, Any]) -> dict[str, Any]:
        """Return the recorded settings of an earlier version, whose phantoms had the defaults of the keys it lacks."""
        return cls().model_dump() | earlier

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return settings from command-line options. Raise BadInput that names the option if one is wrong."""
        try:
            return cls(**options)
        except ValidationError as error:
            problem = error.errors()[0]
            key = str(problem["loc"][0]) if problem["loc"] else ""
            option = f"--{key.replace('_', '-')} {options.get(key)}: " if key else ""
            raise BadInput(option + problem["msg"].removeprefix("Value error, ")) from None

    @property
    def labels_shape(self) -> tuple[int, ...]:
        """Voxels of the labels along z, y, x."""
        return tuple(n - 2 * border for n, border in zip(self.shape, self.padding, strict=True))

    @property
    def subvoxels(self) -> np.ndarray:
        """Fine voxels per voxel, along z, y, x."""
        return np.maximum(1, np.rint(np.array(self.voxel_size) / _FINE)).astype(int)

    @property
    def fine_voxel_size(self) -> np.ndarray:
        """Fine voxel size, (3,) float64 nm, z y x."""
        return np.array(self.voxel_size) / self.subvoxels

    @property
    def margin(self) -> np.ndarray:
        """Extra voxels beyond each face along z, y, x, from which shifted sections are cut."""
        farthest = self.max_shift // np.array(self.voxel_size) if self.shifted_sections else np.zeros(3, int)
        return farthest * [0, 1, 1]

    @property
    def fine_shape(self) -> tuple[int, ...]:
        """Fine voxels along z, y, x, with the margin."""
        return tuple(int(n) for n in (np.array(self.shape) + 2 * self.margin) * self.subvoxels)
