"""What a file of preprocessing may say: the steps, in the order in which they are done.

select -> flat_field -> resize -> masks -> border_weights -> clip -> clahe -> normalize (statistics) -> tiles -> split
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from emsuite.common.settings import Probability, Settings

Number = Annotated[int, Field(ge=0, le=1_000_000)]
Numbers = tuple[Number, ...]
Percent = Annotated[float, Field(ge=0, le=100)]


def _ascending(percentiles: tuple[float, float]) -> tuple[float, float]:
    if not percentiles[0] < percentiles[1]:
        raise ValueError("expected the lower one first")
    return percentiles


Percentiles = Annotated[tuple[Percent, Percent], AfterValidator(_ascending)]
Pixels = Annotated[int, Field(ge=1, le=100_000)]
Scale = Annotated[float, Field(gt=0, le=16)]
Channel = Annotated[int, Field(ge=0, le=1_000)] | str
"""The number of a channel in the input, or its name."""
Scope = Literal["dataset", "position", "volume"]
Some = tuple[Channel, ...] | Literal["all"]


class FlatField(Settings):
    """Divides each image by the light that reaches each pixel."""

    folder: Path | None = Field(None, description="flat-field_channel-N.npy of an earlier run; none: estimated")
    block_size: Pixels = Field(32, description="pixels of the blocks whose medians are fitted")
    channels: Some = Field("all", description="the channels to correct, by number or name")
    times: Numbers | Literal["all"] = Field(
        "all", description="the times to estimate from, by their place in the input"
    )
    slices: Numbers | Literal["all"] = Field(
        "all", description="the slices to estimate from, by their place in the input"
    )


class Resize(Settings):
    """Changes the number of pixels."""

    scale: Scale | tuple[Scale, Scale, Scale] = Field(
        description="one factor for y and x (bilinear), or three for z, y, x (cubic splines)"
    )


class Masks(Settings):
    """Foreground, written as labels/foreground of each position."""

    channels: tuple[Channel, ...] = Field(
        (), description="thresholded one by one and OR-ed; with folder: those of the folder, none: all"
    )
    method: Literal["otsu", "unimodal"] = Field("otsu", description="two peaks, or one (Rosin)")
    radius: Annotated[int, Field(ge=0, le=1000)] = Field(5, description="pixels of the opening")
    whole_volume: bool = Field(False, description="one threshold for all slices, and a ball; else each slice alone")
    folder: Path | None = Field(None, description="masks from elsewhere, a plate or frames: above 0 is foreground")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if not self.channels and self.folder is None:
            raise ValueError("expected channels to threshold, or the folder of masks")
        return self


class BorderWeights(Settings):
    """Weights between neighbours, written as border_weights of each position."""

    w0: Annotated[float, Field(ge=0, le=1e6)] = Field(10.0, description="weight of the border of touching components")
    sigma: Annotated[float, Field(gt=0, le=1000)] = Field(5.0, description="pixels by which it falls")


class Clip(Settings):
    """Cuts grey values at two percentiles, without rescaling."""

    percentiles: Percentiles = Field((2.0, 98.0), description="lower and upper")
    scope: Scope = Field("dataset", description="measured on the whole data set, each position or each volume")
    channels: Some = Field("all", description="the channels to clip")


class Clahe(Settings):
    """Contrast-limited adaptive histogram equalization of each slice (scikit-image); values become 0 to 1."""

    kernel_size: Pixels | None = Field(None, description="pixels of a region; none: an eighth of the image")
    clip_limit: Probability = Field(0.01, description="higher: more contrast")
    channels: Some = Field("all", description="the channels to equalize")


class Normalize(Settings):
    """How readers of the plate normalize it: voxels keep their grey values, every scope has its statistics."""

    method: Literal["z_score", "percentile", "none"] = Field(
        "z_score", description="mean 0 and deviation 1; or -1 and 1 at two percentiles"
    )
    scope: Literal["dataset", "position", "volume", "tile"] = Field("dataset", description="whose statistics count")
    percentiles: Percentiles = Field((1.0, 99.0), description="lower and upper, stored and used")


class Tiles(Settings):
    """Where tiles lie; none is written, their statistics and foreground are listed in tiles.csv."""

    size: tuple[Pixels, Pixels] | tuple[Pixels, Pixels, Pixels] = Field(description="y, x of each slice, or z, y, x")
    step: tuple[Pixels, ...] | None = Field(None, description="from tile to tile; none: the size")
    min_fraction: Probability = Field(0.0, description="of foreground; tiles with less are left out")

    @model_validator(mode="after")
    def _same_axes(self) -> Self:
        if self.step is not None and len(self.step) != len(self.size):
            raise ValueError(f"step: {list(self.step)}, expected {len(self.size)} lengths as size")
        return self


class Split(Settings):
    """Which part of the data trains, validates and tests; written as split.json."""

    by: Literal["position", "slice", "time", "channel", "index"] = Field(
        "position", description="whose values are dealt out; index: each slice of each time and position"
    )
    train: Probability = 0.7
    val: Probability = 0.15
    test: Probability = 0.15
    seed: Number = Field(0, description="another seed, another choice")
    file: Path | None = Field(None, description="a split.json of an earlier run, to be used again")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train, val and test sum to {self.train + self.val + self.test:g}, expected 1")
        return self


class PreprocessSettings(Settings):
    """All that a file of preprocessing may say. A step that is not named is not done, and recorded as such."""

    input: Path = Field(description="a plate of OME-Zarr, a folder of frames, or microDL's folder with frames_meta.csv")
    output: Path = Field(description="the folder to write")
    positions: tuple[str, ...] | Literal["all"] = Field("all", description="names such as A/1/0, or numbers as texts")
    channels: Some = Field("all", description="the channels to keep, by number or name")
    times: Numbers | Literal["all"] = Field("all", description="the times to keep, by their place, from 0")
    slices: Numbers | Literal["all"] = Field("all", description="the slices to keep, by their place, from 0")
    flat_field: FlatField | None = None
    resize: Resize | None = None
    masks: Masks | None = None
    border_weights: BorderWeights | None = None
    clip: Clip | None = None
    clahe: Clahe | None = None
    normalize: Normalize = Normalize()
    tiles: Tiles | None = None
    split: Split | None = None

    @model_validator(mode="after")
    def _steps_that_need_others(self) -> Self:
        if self.border_weights and not self.masks:
            raise ValueError("border_weights are those of masks, expected masks")
        if self.tiles and self.tiles.min_fraction > 0 and not self.masks:
            raise ValueError("tiles.min_fraction is the foreground of masks, expected masks")
        if self.normalize.scope == "tile" and not self.tiles:
            raise ValueError("normalize.scope: tile measures tiles, expected tiles")
        return self
