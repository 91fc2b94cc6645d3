"""What a domain of images is: volumes and boxes in them, or patches; the scale of its values; how it is sampled."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from emsuite.common.settings import Lengths, Range, Region, Settings
from emsuite.data.normalization import Normalization

_Grey = Annotated[float, Field(allow_inf_nan=False)]
_Percent = Annotated[float, Field(ge=0, le=100)]
_Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
_Deviation = Annotated[float, Field(gt=0, le=1e6)]


class Box(Settings):
    """A region of a volume that samples are taken from. A text stands for a region alone."""

    roi: Region = Field(":,:,:", description="nm, `z0:z1,y0:y1,x0:x1`")
    class_name: str | None = Field(
        None, description="boxes of one class share their draws; a box without one is of the class of all others"
    )


def _box(given: Any) -> Any:
    return {"roi": given} if isinstance(given, str) else given


class DomainVolume(Settings):
    """A volume of a domain, in any format that can be read, read where it lies."""

    raw: Path = Field(description="array or URL of the images")
    labels: Path | None = Field(None, description="array of their labels, one id per object; of domain `a` alone")
    boxes: tuple[Annotated[Box, BeforeValidator(_box)], ...] = Field(
        (), description="regions to take samples from (default: the whole volume)"
    )
    boxes_file: Path | None = Field(None, description="json or yaml file with `boxes`, as the patch filter writes it")

    @model_validator(mode="after")
    def _consistent(self) -> "DomainVolume":
        if self.boxes and self.boxes_file:
            raise ValueError("boxes and boxes_file: expected one of the two")
        return self


class DomainSettings(Settings):
    """The images of one of the two domains: volumes, or patches."""

    volumes: tuple[DomainVolume, ...] = Field((), description="volumes to take samples from")
    patches: Path | None = Field(
        None, description="patches in place of volumes: a TIFF of 4 axes (n, z, y, x), or a folder of PNGs or TIFFs"
    )
    patch_labels: Path | None = Field(None, description="their labels, in the same order; of domain `a` alone")
    voxel_size: Lengths | None = Field(None, description="nm, z y x (default: the network's)")
    scaling: Literal["standardized", "signed_unit_range"] = Field(
        "standardized",
        description="signed_unit_range: -1 to 1, as CCGAN; standardized: then minus the mean, through the standard "
        "deviation, as transfer_em",
    )
    statistics: Literal["voxels", "samples"] | tuple[_Mean, _Deviation] = Field(
        "voxels",
        description="of `standardized`, measured once: voxels: of all of them; samples: mean of their means, root of "
        "their mean variance, as transfer_em; or [mean, standard deviation] of values from -1 to 1",
    )
    grey_range: Literal["dtype", "percentiles"] | tuple[_Grey, _Grey] = Field(
        "dtype", description="grey values that become -1 and 1, as `normalization.grey_range`"
    )
    percentiles: tuple[_Percent, _Percent] = Field((1.0, 99.0), description="lower and upper, of `grey_range`")
    reflect: bool = Field(
        False, description="boxes go on by reflection, half a sample on each side; else samples end where boxes end"
    )
    stream: bool | None = Field(
        None, description="read samples from disk as they are needed (default: if they take over half the free memory)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DomainSettings":
        if bool(self.volumes) == bool(self.patches):
            held = "both" if self.patches else "neither"
            raise ValueError(f"volumes and patches: holds {held}, expected one of the two")
        if self.patch_labels and not self.patches:
            raise ValueError("patch_labels: labels of patches, expected `patches` beside them")
        labelled = [volume.labels is not None for volume in self.volumes]
        if any(labelled) and not all(labelled):
            raise ValueError("volumes: some have labels and some have none, expected labels of all or of none")
        self.normalization  # noqa: B018 (its own checks)
        return self

    @property
    def has_labels(self) -> bool:
        """Whether labels are named."""
        return self.patch_labels is not None or any(volume.labels is not None for volume in self.volumes)

    @property
    def normalization(self) -> Normalization:
        """How grey values become 0 to 1, before the scale of the domain."""
        return Normalization(
            method="signed_unit_range", grey_range=self.grey_range, percentiles=self.percentiles, scope="dataset"
        )


class NormalizedChange(Settings):
    """x * scale + shift of the normalized values of a sample, as transfer_em changes them."""

    scale: Range = Field((1.0, 1.05), description="[lowest, highest] factor, drawn uniformly")
    shift: Range = Field((-0.05, 0.05), description="[lowest, highest] summand, drawn uniformly")


class UnpairedSettings(Settings):
    """How pairs of samples that do not belong together are drawn."""

    change: NormalizedChange | None = Field(
        None, description="changes of normalized values, after all augmentations (default: none)"
    )
