"""Data sets: where their volumes are, how their labels are masked, whom to cite. A yaml file describes each.

    data/funke/<dataset>/training/<volume>.zarr      a volume below the data folder, at the same path as in the bucket

    data/funke/cremi/training/<volume>.hdf           the same in a data set of HDF5 files, by its key `suffix`

The name of a volume may be written with or without the suffix.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from emsuite.common.errors import BadInput
from emsuite.common.settings import Lengths, NonNegative, Region, Settings, as_options, load
from emsuite.data.labels_mask import MaskRule, check_mask_rule
from emsuite.data.membranes import LabelsRule
from emsuite.segmentation.settings import SegmentationSettings

_DEFAULT = "fib25"  # the smallest published volume: enough to train `small` and to score it
_SUFFIXES = (".zarr", ".hdf", ".h5", ".hdf5")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def volume_name(text: str) -> str:
    """Return a volume's name without its suffix; raise ValueError if it is no plain file name."""
    name = _without_suffix(text)
    if not _WORD.fullmatch(name):
        raise ValueError("expected a volume's name of letters, digits, '.', '_' and '-', as trvol-250-1")
    return name


def _without_suffix(text: str) -> str:
    name = text.rstrip("/")
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def _prefix(text: str) -> str:
    if text and not all(_WORD.fullmatch(part) for part in text.split("/")):
        raise ValueError("expected folders below the bucket, as funke/fib25/training")
    return text


VolumeName = Annotated[str, AfterValidator(volume_name)]
Count = Annotated[int, Field(ge=0)]


class Part(Settings):
    """A volume, or the region `roi` of it (nm, `z0:z1,y0:y1,x0:x1`).

    `probability` says how often training draws from it; without, all parts are drawn alike.
    """

    volume: VolumeName
    roi: Region | None = None
    probability: NonNegative | None = None

    def shares_voxels(self, other: "Part") -> bool:
        """Return whether both are the same region, or one of them is the whole volume of the other."""
        return self.volume == other.volume and (self.roi == other.roi or None in (self.roi, other.roi))


class Split(Settings):
    """The parts that networks are trained on, and those that they are validated and scored on; none may be both."""

    train: tuple[Part, ...] = ()
    validation: tuple[Part, ...] = ()
    """For `training.validation`; without any, the parts of `test`."""
    test: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Split":
        for part in self.train:
            for name in ("validation", "test"):
                if any(part.shares_voxels(other) for other in getattr(self, name)):
                    raise ValueError(f"{part.volume} is in train and in {name}")
        for name in ("validation", "test"):
            if any(part.probability is not None for part in getattr(self, name)):
                raise ValueError(f"{name}: a probability is one of training; expected none")
        given = [part.probability for part in self.train if part.probability is not None]
        if given and (len(given) < len(self.train) or not sum(given) > 0):
            raise ValueError("train: expected a probability for each part, one of them above 0, or for none")
        return self

    @property
    def probabilities(self) -> tuple[float, ...] | None:
        """How often training draws from each part; None: from all alike."""
        given = tuple(part.probability for part in self.train if part.probability is not None)
        return given or None


class Citation(Settings):
    """A publication to cite for a data set."""

    prose: ClassVar[frozenset[str]] = frozenset({"text"})
    text: str
    doi: str


class Contents(Settings):
    """The number and size of a volume's objects at its source, to notice when the source has changed."""

    objects: Count
    bytes: Count
    listing: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class WebFile(Settings):
    """A volume that is one file on a web server: its address, and the SHA-256 that it must have."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S+$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Dataset(Settings):
    """One data set. Without a `bucket` or `files` its volumes are synthesized, or are on this machine already.

    `voxel_size` is in nm, z y x. `folder` holds the volumes of a user's own data set; without it they are below the
    data folder. `suffix` is that of every volume: a zarr container, or an HDF5 file. `split` is the only split; or
    `splits` holds several by name, and the first is that of networks that name none. `synthesis` holds, for each
    volume, the keys of `emsuite.phantom.settings.PhantomSettings` except the voxel size.
    """

    prose: ClassVar[frozenset[str]] = frozenset({"title", "licence"})

    name: Annotated[str, Field(pattern=f"^{_WORD.pattern}$")]
    title: str = ""
    voxel_size: Lengths
    bucket: str | None = None
    files: dict[VolumeName, WebFile] = Field(default_factory=dict)
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    folder: Path | None = None
    suffix: Literal[".zarr", ".hdf", ".h5", ".hdf5"] = ".zarr"
    volumes: Annotated[tuple[VolumeName, ...], Field(min_length=1)]
    default_volumes: tuple[VolumeName, ...] = ()
    split: Split = Split()
    splits: dict[Annotated[str, Field(pattern=f"^{_WORD.pattern}$")], Split] = Field(default_factory=dict)
    labels: LabelsRule | None = None
    mask: MaskRule = MaskRule()
    segmentation: SegmentationSettings = SegmentationSettings()
    licence: str = "see source"
    citations: tuple[Citation, ...] = ()
    synthesis: dict[VolumeName, dict[str, Any]] = Field(default_factory=dict)
    contents: dict[VolumeName, Contents] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("name"), str):
            content = {"prefix": f"funke/{content['name']}/training"} | content
            volumes = content.get("volumes")
            if volumes and isinstance(volumes, list):
                content = {"default_volumes": volumes[:1]} | content
        return content

    @model_validator(mode="after")
    def _consistent(self) -> "Dataset":
        if len(set(self.volumes)) < len(self.volumes):
            raise ValueError("volumes: a name is there twice")
        used = {
            "default_volumes": self.default_volumes,
            "split": _volumes_of(self.split),
            "splits": [volume for split in self.splits.values() for volume in _volumes_of(split)],
            "files": self.files,
            "synthesis": self.synthesis,
            "contents": self.contents,
        }
        for key, names in used.items():
            for name in names:
                if name not in self.volumes:
                    raise ValueError(f"{key}: {name} is none of the data set's volumes")
        if self.splits and self.split != Split():
            raise ValueError("split and splits: expected one of the two, a single split or several by name")
        if sum(map(bool, (self.bucket, self.files, self.folder, self.synthesis))) > 1:
            raise ValueError(
                "a data set lies in a bucket, behind URLs (files), in a folder, or is synthesized: only one of the four"
            )
        if self.files and (missing := set(self.volumes) - self.files.keys()):
            raise ValueError(f"files: has no address of {min(missing)}")
        if self.files and self.suffix == ".zarr":
            raise ValueError("files: volumes behind URLs are single files; expected a suffix as .hdf")
        return self

    @model_validator(mode="after")
    def _can_be_synthesized(self) -> "Dataset":
        if self.synthesis:
            # imported here because few data sets are synthesized, and the module loads NumPy
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

    def named_split(self, name: str | None = None) -> Split:
        """Return the split of this name, or the data set's first or only one; raise BadInput for an unknown name."""
        if name is None:
            return next(iter(self.splits.values()), self.split)
        if name not in self.splits:
            names = ", ".join(self.splits) or "one without a name"
            raise BadInput(
                f"data set {self.name}: no split '{name}'; it has {names}: see training.split, --config split"
            )
        return self.splits[name]

    def choose(self, volumes: tuple[str, ...] = (), everything: bool = False) -> tuple[str, ...]:
        """Return the named volumes, or all, or `quick_volumes`; raise BadInput for an unknown name."""
        if volumes and everything:
            raise BadInput("some volumes and all of them were asked for; expected one of the two")
        names = tuple(dict.fromkeys(map(_without_suffix, volumes)))
        for name in names:
            if name not in self.volumes:
                raise BadInput(f"{self.name} has no volume '{name}'; it has {', '.join(self.volumes)}")
        return names or (self.volumes if everything else self.quick_volumes)

    @property
    def quick_volumes(self) -> tuple[str, ...]:
        """The volumes that are fetched unless others are named: the default ones, and those of the test split."""
        return tuple(dict.fromkeys((*self.default_volumes, *(part.volume for part in self.named_split().test))))

    def volume_path(self, volume: str, data: Path) -> Path:
        """Return the path of `volume` below the data folder `data`, or in the data set's own folder."""
        name = self.choose((volume,))[0]
        return (self.folder or data / self.prefix) / f"{name}{self.suffix}"

    def find_in(self, shared: Path, volume: str) -> Path:
        """Return the path of `volume` in a shared folder; raise BadInput that names the paths tried."""
        file = f"{volume}{self.suffix}"
        paths = [shared / self.prefix / file, shared / self.name / "training" / file]
        for path in paths:
            if path.is_dir() if self.suffix == ".zarr" else path.is_file():
                return path
        raise BadInput(f"{shared}: has no {file}; looked at {paths[0]} and {paths[1]}")

    def synthesis_options(self, volume: str) -> list[str]:
        """Return the command-line options that synthesize `volume`; raise BadInput if it is not synthesized."""
        from emsuite.phantom.settings import PhantomSettings

        if volume not in self.synthesis:
            raise BadInput(f"{self.name}: {volume} is not synthesized")
        recipe = self.synthesis[volume]
        return as_options(PhantomSettings(voxel_size=self.voxel_size, **recipe), ["voxel_size", *recipe])


def _volumes_of(split: Split) -> list[str]:
    return [part.volume for part in (*split.train, *split.validation, *split.test)]


def dataset_names(folder: Path) -> list[str]:
    """Return the names of the data sets that have a yaml file in `folder`."""
    return sorted(path.stem for path in Path(folder).glob("*.yaml"))


def load_dataset(name_or_path: str | Path, folder: Path) -> Dataset:
    """Read a data set.

    Args:
        name_or_path: the name of a data set in `folder`, or the path of a yaml file anywhere. A relative `folder` in
            the file counts from the file.
        folder: holds a yaml file for each data set.

    Raises:
        BadInput: there is no such file, or a key is wrong; the message names file, line and key.
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


def default_dataset(here: Path) -> str:
    """Return the name of the data set whose folder `here` is (as 02_train/NAME), or a network's in it; or fib25."""
    if (here / "network.yaml").exists():
        return here.parent.name
    return here.name if (here / "dataset.yaml").exists() else _DEFAULT


def dataset_of(volume: Path, folder: Path) -> Dataset:
    """Return the data set that the path of a volume names, `.../<dataset>/training/<volume>.zarr`.

    Args:
        volume: need not exist.
        folder: holds a yaml file for each data set.

    Raises:
        BadInput: the path names no data set in `folder`.
    """
    above = Path(os.path.abspath(volume)).parent
    if above.name == "training" and above.parent.name in dataset_names(folder):
        return load_dataset(above.parent.name, folder)
    raise BadInput(
        f"{volume}: its path does not tell the data set (expected .../<dataset>/training/<volume>.zarr, "
        f"with one of {', '.join(dataset_names(folder))}); give it with --dataset"
    )


def check_mask(mask: Path | None, dataset: str | None, folder: Path) -> None:
    """Raise BadInput if a mask was written by another rule than that of a data set, both given."""
    if mask is not None and dataset is not None:
        check_mask_rule(mask, load_dataset(dataset, folder).mask)
