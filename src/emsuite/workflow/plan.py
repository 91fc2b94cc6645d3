"""The plan of one run of the workflow: the checked settings of config/config.yaml, and the paths of its files.

The rules in *.smk files ask this plan; it starts nothing itself, except that `prepare_image` fetches the image.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from emsuite.common.container_image import Image, check_image, container_program, parse_image
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.provenance import git_commit
from emsuite.common.settings import Settings, validate
from emsuite.config.dataset import Dataset, load_dataset
from emsuite.config.layout import CONTAINERS, DATA, DATASETS, NETWORKS, RUNS
from emsuite.config.network import NetworkConfig, frozen_network_folder, load_network
from emsuite.config.parts import Parts, VolumePart
from emsuite.config.trained_with import IfChanged, weight_settings
from emsuite.data.labels_mask import masks_path
from emsuite.io.volume import MASK, RAW, holds_array, is_writable, open_volume
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.targets.heads import AffinitiesHead
from emsuite.workflow.container_images import fetch_image, find_image


def _for_snakemake(name: Any) -> Any:
    """Return a name or path that Snakemake can use; raise ValueError for one that it reads as a pattern."""
    name = str(name) if isinstance(name, int) else name  # a network may be called 32
    if isinstance(name, str | Path) and any(c in "{}" or not c.isprintable() for c in str(name)):
        raise ValueError("expected a name without braces and line breaks, which Snakemake cannot use")
    return name


def _no_option(folder: Path) -> Path:
    folder = folder.expanduser()
    return folder.absolute() if str(folder).startswith("-") else folder


Name = Annotated[str, BeforeValidator(_for_snakemake)]
Folder = Annotated[Path, BeforeValidator(_for_snakemake), AfterValidator(_no_option)]


class WorkflowConfig(Settings):
    """The keys of config/config.yaml, which explains them."""

    dataset: Name
    network: Name
    run: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    iterations: PositiveInt | None = None
    if_changed: IfChanged = "refuse"
    train: Parts | None = Field(None, min_length=1)
    test: Parts | None = Field(None, min_length=1)
    data: Folder = DATA
    shared: tuple[Folder, ...] = ()
    results: Folder = Path("results")
    seed: int | None = Field(None, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 8
    segmentation: dict[str, Any] = Field(default_factory=dict)
    container: str = str(CONTAINERS / "emsuite.sif")


@dataclass(frozen=True)
class WorkflowPlan:
    """One run of the workflow. Paths count from the project's root, unless the configuration gives absolute ones."""

    config: WorkflowConfig
    dataset: Dataset
    network: NetworkConfig
    project: Path

    @property
    def iterations(self) -> int:
        """The iteration up to which the network is trained."""
        return self.config.iterations or self.network.training.iterations

    @property
    def networks(self) -> Path:
        """The folder of all networks of the data set."""
        return NETWORKS / self.dataset.name

    @property
    def network_name(self) -> str:
        """The network, as a path below `networks`: its own folder, or a run folder."""
        run = f"/{RUNS}/{self.config.run}" if self.config.run else ""
        return self.config.network + run

    @property
    def network_folder(self) -> Path:
        """The folder of the network, or the run folder."""
        return self.networks / self.network_name

    @property
    def dataset_option(self) -> str:
        """The data set as stage scripts take it: its name, or the path of a file elsewhere."""
        return self.config.dataset

    @property
    def segmentation(self) -> SegmentationSettings:
        """The settings of the segmentation: those of the data set, overridden by those of the run."""
        merged = self.dataset.segmentation.model_dump() | self.config.segmentation
        return validate(SegmentationSettings, merged, "config/config.yaml: segmentation")

    @property
    def affinities_head(self) -> str:
        """The name of the predicted array that is segmented: of the network's first head of affinities.

        `affs` if the network predicts none. Such a network can be trained and can predict; the segmentation then says
        that the array is missing.
        """
        predicted = self.network.prediction.heads or self.network.heads
        heads = ((name, self.network.heads[name]) for name in self.network.heads if name in predicted)
        return next((name for name, head in heads if isinstance(head, AffinitiesHead)), "affs")

    @property
    def image(self) -> Image:
        """The image that every step runs in with --use-singularity."""
        return parse_image(self.config.container, CONTAINERS)

    @property
    def results(self) -> Path:
        """The folder of this network's results at this iteration; it holds a folder for each scored part."""
        return self.config.results / self.dataset.name / self.network_name / str(self.iterations)

    @property
    def train_parts(self) -> list[VolumePart]:
        """The parts that the network is trained on."""
        return self._parts(self.config.train, "train")

    @property
    def test_parts(self) -> dict[str, VolumePart]:
        """The parts that the network is scored on, by name; volumes of one name get that of their folder too."""
        parts = list(dict.fromkeys(self._parts(self.config.test, "test")))
        names = [part.name for part in parts]
        longer = [f"{part.volume.absolute().parent.name}_{name}" if names.count(name) > 1 else name
                  for part, name in zip(parts, names, strict=True)]  # fmt: skip
        if len(set(longer)) < len(longer):
            raise BadInput(
                f"test: several volumes are called {parts[0].volume.name}, in folders of one name; rename one"
            )
        return dict(zip(longer, parts, strict=True))

    @property
    def outside_folders(self) -> list[Path]:
        """The folders of data and results outside the project, which must be made visible inside an image."""
        folders = [self.config.data, self.config.results, *self.config.shared]
        folders += [part.volume.parent for part in (*self.train_parts, *self.test_parts.values())]
        resolved = {folder.resolve() for folder in folders if folder.is_dir()}
        return sorted(folder for folder in resolved if not folder.is_relative_to(self.project.resolve()))

    def source_option(self, volume: str) -> list[str]:
        """Return `--from FOLDER` for the first shared folder that has the volume, or nothing."""
        for folder in self.config.shared:
            try:
                self.dataset.find_in(folder, volume)
            except BadInput:
                continue
            return ["--from", str(folder)]
        return []

    def skeletons_option(self, part: VolumePart) -> list[str]:
        """Return `--skeletons FOLDER` if skeletons lie beside the volume or are synthesized with it, or nothing."""
        folder = part.volume.with_suffix(".skeletons")
        is_synthesized = bool(self.dataset.synthesis) and self.is_managed(part.volume)
        return ["--skeletons", str(folder)] if is_synthesized or folder.exists() else []

    def edges_option(self, name: str) -> list[str]:
        """Return `--edges FOLDER`, to count edits by, if the part has skeletons, which this needs; or nothing."""
        edges = self.results / name / "graph" / "edges"
        return ["--edges", str(edges)] if self.skeletons_option(self.test_parts[name]) else []

    def mask_option(self, part: VolumePart) -> list[str]:
        """Return `--mask ARRAY`, or nothing for a volume that masks are not written into, and that has none."""
        has_mask = is_writable(part.volume) or holds_array(part.volume / MASK)
        return ["--mask", str(part.volume / MASK)] if has_mask else []

    @property
    def masked_volumes(self) -> list[Path]:
        """The volumes that masks are written into."""
        parts = (*self.train_parts, *self.test_parts.values())
        return sorted({part.volume for part in parts if is_writable(part.volume)})

    def masks(self, parts: Iterable[VolumePart]) -> list[str]:
        """Return the files whose presence says that the volumes of these parts exist and are masked."""
        return sorted({str(masks_path(part.volume)) for part in parts if is_writable(part.volume)})

    def training_settings(self, network: str) -> str:
        """Return the settings that influence the weights of a network, `small` or `small/runs/NAME`, as text."""
        return json.dumps(weight_settings(load_network(self.project / self.networks / network)), sort_keys=True)

    @property
    def prediction_settings(self) -> str:
        """The settings of the prediction, as text."""
        return self.network.prediction.model_dump_json()

    def workers_option(self, threads: int) -> list[str]:
        """Return `--workers ...` for a stage that works in blocks: this number of processes, or Slurm's jobs."""
        slurm = self.segmentation.slurm
        return ["--workers", str(threads)] if slurm is None else slurm.arguments

    def volume_manifest(self, volume: Path) -> list[Path]:
        """Return the file whose presence says that a volume is complete; nothing for a volume of the user's own."""
        return [manifest_path(volume)] if self.is_managed(volume) else []

    def is_managed(self, volume: Path) -> bool:
        """Return whether the workflow fetches or synthesizes this volume, below the data folder."""
        return volume.parent == self.config.data / self.dataset.prefix and volume.stem in self.dataset.volumes

    def checkpoint_manifest(self, network: str | None = None, iterations: int | None = None) -> Path:
        """Return the file whose presence says that a network (default: this run's) is trained up to an iteration."""
        folder = self.networks / (network or self.network_name)
        return manifest_path(folder / "checkpoints" / f"checkpoint_{iterations or self.iterations}.pt")

    def frozen_manifest(self, network: str) -> list[str]:
        """Return the `checkpoint_manifest` of the frozen network that `network` reads; nothing if it reads raw only."""
        folder = self.project / self.networks / network
        config = load_network(folder)
        frozen = frozen_network_folder(folder, config)
        if frozen is None or config.autocontext is None:
            return []
        iterations = config.autocontext.iteration or load_network(frozen).training.iterations
        return [str(self.checkpoint_manifest(frozen.name, iterations))]

    def _parts(self, chosen: tuple[VolumePart, ...] | None, which: str) -> list[VolumePart]:
        if chosen is not None:
            return list(chosen)
        split = getattr(self.dataset.split, which)
        if not split:
            raise BadInput(
                f"data set {self.dataset.name}: has no {which} split; name volumes with --config {which}=..."
            )
        return [
            VolumePart(volume=self.dataset.volume_path(part.volume, self.config.data), roi=part.roi) for part in split
        ]


def load_plan(config: Mapping[str, Any], project: Path) -> WorkflowPlan:
    """Check the configuration of the workflow and return the plan of the run.

    Args:
        config: the keys of config/config.yaml, overridden by those of the command line.
        project: the root of the project.

    Raises:
        BadInput: a key is unknown or holds a wrong value; the message names it.
    """
    checked = validate(WorkflowConfig, _with_lists(config), "config/config.yaml")
    dataset = load_dataset(checked.dataset, project / DATASETS)
    folder = project / NETWORKS / dataset.name / checked.network
    if not (folder / "network.yaml").exists():
        names = sorted(path.parent.name for path in folder.parent.glob("*/network.yaml"))
        raise BadInput(f"no network '{checked.network}' for {dataset.name}; there are {', '.join(names) or 'none'}")
    plan = WorkflowPlan(checked, dataset, load_network(folder), project)
    # errors in these keys show at the start, not hours later
    _ = plan.segmentation, plan.image, plan.frozen_manifest(plan.network_name)
    for part in (*plan.train_parts, *plan.test_parts.values()):
        _check_part(plan, part)
    return plan


def _check_part(plan: WorkflowPlan, part: VolumePart) -> None:
    try:
        _for_snakemake(part.volume)
    except ValueError as error:
        raise BadInput(f"{part.volume}: {error}") from None
    if is_writable(part.volume):
        return
    open_volume(part.volume / RAW)
    if plan.dataset.mask.unlabelled and not holds_array(part.volume / MASK):
        raise BadInput(
            f"{part.volume}: has no {MASK}, which the data set {plan.dataset.name} needs; masks are written into zarr "
            "volumes alone: convert it"
        )


def prepare_image(plan: WorkflowPlan) -> None:
    """Fetch the image if it comes from S3, and check that it can be used.

    Steps learn its digest and the git commit from environment variables, and see the folders outside the project that
    the configuration names. An image that Apptainer fetches from a URI is checked by the steps alone.

    Raises:
        BadInput: the image is missing, or is of another version than the project.
        RunFailed: fetching failed.
    """
    bind = f"{container_program().upper()}_BIND"
    for folder in plan.outside_folders:
        if {",", ":"} & set(str(folder)):
            raise BadInput(f"{folder}: cannot be shown inside an image, expected a folder without commas and colons")
    folders = [os.environ.get(bind, ""), *map(str, plan.outside_folders)]
    os.environ[bind] = ",".join(filter(None, folders))
    if commit := git_commit():
        os.environ["EMSUITE_GIT_COMMIT"] = commit
    file = plan.image.file
    if file is None:
        return
    if plan.image.s3 and not file.exists():
        fetch_image(find_image(plan.image.s3, plan.project / CONTAINERS / "images.yaml"), file)
    os.environ["EMSUITE_IMAGE_DIGEST"] = check_image(file, plan.project)


def run_with_own_python() -> None:
    """Make stage scripts run with the Python that runs Snakemake, even if its environment is not active."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _with_lists(config: Mapping[str, Any]) -> dict[str, Any]:
    # on the command line a list of one can be written without brackets: --config test=VOLUME.zarr
    lists = ("shared",)
    return {key: [value] if key in lists and isinstance(value, str) else value for key, value in config.items()}
