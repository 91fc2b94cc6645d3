"""Data sets: where their volumes lie, how their labels are masked, what to cite; one yaml file each.

    data/funke/<dataset>/training/<volume>.zarr      where a volume lies below the data folder, as in the public bucket

A volume's name is written without `.zarr`; with it, the same volume is meant.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, load
from emsuite.data.labels_mask import MaskRule
from emsuite.segmentation.settings import SegmentationSettings

DATASETS = Path("01_data/datasets")
"""The folder of the data sets' files, from the root of the project."""

_RANGE = re.compile(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def volume_name(text: str) -> str:
    """A volume's name without `.zarr`; raises ValueError where it is no plain file name."""
    name = text.rstrip("/").removesuffix(".zarr")
    if not _WORD.fullmatch(name):
        raise ValueError("expected a volume's name of letters, digits, '.', '_' and '-', as trvol-250-1")
    return name


def _prefix(text: str) -> str:
    if text and not all(_WORD.fullmatch(part) for part in text.split("/")):
        raise ValueError("expected folders below the bucket, as funke/fib25/training")
    return text


def _roi(text: str) -> str:
    ranges = [_RANGE.fullmatch(part) for part in text.split(",")]
    if len(ranges) != 3 or not all(ranges):
        raise ValueError("expected three ranges in nm, as 0:1040,:,:")
    return text


VolumeName = Annotated[str, AfterValidator(volume_name)]
Nanometres = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Part(Settings):
    """A volume, or the region `roi` of it (nm, `z0:z1,y0:y1,x0:x1`)."""

    volume: VolumeName
    roi: Annotated[str, AfterValidator(_roi)] | None = None


class Split(Settings):
    """What networks are trained on, and what they are scored on; no region may serve both."""

    train: tuple[Part, ...] = ()
    test: tuple[Part, ...] = ()


class Citation(Settings):
    """What to cite for a data set."""

    text: str
    doi: str


class Contents(Settings):
    """What a volume consists of at its source, to notice when the source has changed."""

    objects: Count
    bytes: Count
    listing: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class Dataset(Settings):
    """One data set. `voxel_size` is nm, z y x; without a `bucket` it is synthesized or lies on this machine.

    `folder` says where the volumes of a data set of one's own lie; without it they lie below the data folder.
    `synthesis` holds, per volume, the settings of `emsuite.phantom.synthesize.PhantomSettings` but for the voxel size.
    """

    name: Annotated[str, Field(pattern=_WORD.pattern)]
    title: str = ""
    voxel_size: tuple[Nanometres, Nanometres, Nanometres]
    bucket: str | None = None
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    folder: Path | None = None
    volumes: Annotated[tuple[VolumeName, ...], Field(min_length=1)]
    default_volumes: tuple[VolumeName, ...] = ()
    split: Split = Split()
    mask: MaskRule = MaskRule()
    segmentation: SegmentationSettings = SegmentationSettings()
    licence: str = "see source"
    citations: tuple[Citation, ...] = ()
    synthesis: dict[VolumeName, dict[str, Any]] = Field(default_factory=dict)
    contents: dict[VolumeName, Contents] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            given = {"prefix": f"funke/{given['name']}/training"} | given
            volumes = given.get("volumes")
            if volumes and isinstance(volumes, list):
                given = {"default_volumes": volumes[:1]} | given
        return given

    @model_validator(mode="after")
    def _consistent(self) -> "Dataset":
        if len(set(self.volumes)) < len(self.volumes):
            raise ValueError("volumes: a name is there twice")
        parts = (*self.split.train, *self.split.test)
        used = {
            "default_volumes": self.default_volumes,
            "split": [part.volume for part in parts],
            "synthesis": self.synthesis,
            "contents": self.contents,
        }
        for key, names in used.items():
            for name in names:
                if name not in self.volumes:
                    raise ValueError(f"{key}: {name} is none of the data set's volumes")
        both = {part for part in self.split.train if part in self.split.test}
        if both:
            raise ValueError(f"split: {next(iter(both)).volume} is in train and in test")
        if self.bucket and (self.folder or self.synthesis):
            raise ValueError("a data set lies in a bucket, or in a folder, or is synthesized: only one of the three")
        return self

    @model_validator(mode="after")
    def _can_be_synthesized(self) -> "Dataset":
        if self.synthesis:
            # Imported here because few data sets are synthesized, and the mathematics takes long to load.
            from emsuite.phantom.settings import PhantomSettings
        for volume, recipe in self.synthesis.items():
            if "voxel_size" in recipe:
                raise ValueError(f"synthesis: {volume}: voxel_size is the data set's own")
            try:
                PhantomSettings(voxel_size=self.voxel_size, **recipe)
            except ValidationError as error:
                problem = error.errors()[0]
                key = ".".join(map(str, ("synthesis", volume, *problem["loc"])))
                raise ValueError(f"{key}: {problem['msg'].removeprefix('Value error, ')}") from None
        return self

    def choose(self, volumes: tuple[str, ...] = (), everything: bool = False) -> tuple[str, ...]:
        """The named volumes, or all, or the default ones; raises BadInput where a name is not known."""
        if volumes and everything:
            raise BadInput("some volumes and all of them were asked for; expected one of the two")
        names = tuple(dict.fromkeys(name.rstrip("/").removesuffix(".zarr") for name in volumes))
        for name in names:
            if name not in self.volumes:
                raise BadInput(f"{self.name} has no volume '{name}'; it has {', '.join(self.volumes)}")
        return names or (self.volumes if everything else self.default_volumes)

    def volume_path(self, volume: str, data: Path) -> Path:
        """Where `volume` lies, with `data` as the data folder."""
        name = self.choose((volume,))[0]
        return (self.folder or data / self.prefix) / f"{name}.zarr"

    def find_in(self, shared: Path, volume: str) -> Path:
        """Where `volume` lies in somebody's shared folder; raises BadInput that names the places looked at."""
        places = [shared / self.prefix / f"{volume}.zarr", shared / self.name / "training" / f"{volume}.zarr"]
        for place in places:
            if place.is_dir():
                return place
        raise BadInput(f"{shared}: has no {volume}.zarr; looked at {places[0]} and {places[1]}")

    def synthesis_arguments(self, volume: str) -> list[str]:
        """The options that make 01_data/synthesize.py write `volume`, but for `--out`."""
        if volume not in self.synthesis:
            raise BadInput(f"{self.name}: {volume} is not synthesized")
        words: list[str] = []
        for key, value in ({"voxel_size": self.voxel_size} | self.synthesis[volume]).items():
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += [f"--{key.replace('_', '-')}", text]
        return words


def dataset_names(folder: Path) -> list[str]:
    """The data sets that have a yaml file in `folder`."""
    return sorted(path.stem for path in Path(folder).glob("*.yaml"))


def load_dataset(name_or_path: str | Path, folder: Path) -> Dataset:
    """A data set by its name in `folder`, or by the path of its yaml file (one's own, anywhere).

    A relative `folder` in the file counts from the file. Raises BadInput with the file, line and key named.
    """
    text = str(name_or_path)
    path = Path(text) if text.endswith((".yaml", ".yml")) else Path(folder) / f"{text}.yaml"
    if not path.is_file():
        raise BadInput(f"no data set '{text}'; there are {', '.join(dataset_names(folder))}, or give a yaml file")
    dataset = load(Dataset, path)
    if dataset.name != path.stem:
        raise BadInput(f"{path}: name: holds '{dataset.name}', expected the file's own, '{path.stem}'")
    if dataset.folder is not None:
        dataset = dataset.model_copy(update={"folder": path.absolute().parent / dataset.folder.expanduser()})
    return dataset


def dataset_of(volume: Path, folder: Path) -> Dataset:
    """The data set that a volume's path tells, `.../<dataset>/training/<volume>.zarr`; else raises BadInput."""
    above = Path(os.path.abspath(volume)).parent
    if above.name == "training" and above.parent.name in dataset_names(folder):
        return load_dataset(above.parent.name, folder)
    raise BadInput(
        f"{volume}: its path does not tell the data set (expected .../<dataset>/training/<volume>.zarr, "
        f"with one of {', '.join(dataset_names(folder))}); give it with --dataset"
    )
