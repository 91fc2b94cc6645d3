"""The plan of one run of the workflow: the checked settings of config/config.yaml, and the paths of its files.

The rules in *.smk files ask this plan; it starts nothing itself, except that `prepare_image` fetches the image.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from emsuite.common.container_image import Image, check_image, container_program, parse_image
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.provenance import git_commit
from emsuite.common.settings import Settings, validate
from emsuite.config.dataset import Dataset, Split, load_dataset
from emsuite.config.layout import CONTAINERS, DATA, DATASETS, NETWORKS
from emsuite.config.network import NetworkConfig, frozen_network_folder, load_network
from emsuite.io.volume import LABELS, MASK, holds_array
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.targets.heads import AffinitiesHead
from emsuite.workflow.container_images import fetch_image, find_image


class WorkflowConfig(Settings):
    """The keys of config/config.yaml, which explains them."""

    dataset: str
    network: str
    iterations: PositiveInt | None = None
    split: str | None = None
    train: tuple[str, ...] | None = Field(None, min_length=1)
    test: tuple[str, ...] | None = Field(None, min_length=1)
    data: Path = DATA
    shared: tuple[Path, ...] = ()
    results: Path = Path("results")
    seed: int | None = Field(None, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = Field(8, le=1024)
    segmentation: dict[str, Any] = Field(default_factory=dict)
    container: str = str(CONTAINERS / "emsuite.sif")


@dataclass(frozen=True)
class VolumePart:
    """A volume to train or to score on, or the region `roi` of it (nm, `z0:z1,y0:y1,x0:x1`)."""

    volume: Path
    roi: str | None

    @property
    def name(self) -> str:
        """A name for folders: that of the volume, with the region if there is one, as `trvol-250-2_z1040-1280`."""
        ranges = zip("zyx", (self.roi or ":,:,:").split(","), strict=False)
        return "_".join([self.volume.stem, *(axis + r.replace(":", "-") for axis, r in ranges if r != ":")])

    @property
    def argument(self) -> str:
        """The part as `VOLUME.zarr[@ROI]`, for the option `--data` of training scripts."""
        return f"{self.volume}@{self.roi}" if self.roi else str(self.volume)


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
    def network_folder(self) -> Path:
        """The folder of the network."""
        return NETWORKS / self.config.dataset / self.config.network

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
        return self.config.results / self.config.dataset / self.config.network / str(self.iterations)

    @property
    def train_parts(self) -> list[VolumePart]:
        """The parts that the network is trained on."""
        return self._parts(self.config.train, "train")

    @property
    def test_parts(self) -> dict[str, VolumePart]:
        """The parts that the network is scored on, by name."""
        return {part.name: part for part in self._parts(self.config.test, "test")}

    @property
    def split(self) -> Split:
        """The parts of the data set that the run trains and scores on, unless the configuration names volumes."""
        return self.dataset.named_split(self.config.split or self.network.training.split)

    @property
    def training_data_options(self) -> list[str]:
        """The options of training scripts that name the parts to train on, their split, and how often each is drawn."""
        words = [word for part in self.train_parts for word in ("--data", part.argument)]
        if self.config.train is not None:
            return [*words, "--set", "training.split=null"] if self.network.training.split else words
        if self.config.split is not None:
            words += ["--set", f"training.split='{self.config.split}'"]
        if self.split.probabilities is not None:
            words += ["--set", f"training.sampling.probabilities={list(self.split.probabilities)}"]
        return words

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

    def has_labels(self, part: VolumePart) -> bool:
        """Return whether labels are the ground truth; if not, the skeletons beside a volume without labels are.

        A volume that is still to be fetched or synthesized counts as one with labels.
        """
        is_complete = part.volume.exists() and all(path.exists() for path in self.volume_manifest(part.volume))
        return not (is_complete and self.skeletons_option(part) and not holds_array(part.volume / LABELS))

    def truth_option(self, part: VolumePart) -> list[str]:
        """Return `--labels` and `--mask` to score by; without labels at most `--mask`."""
        if self.has_labels(part):
            return ["--labels", str(part.volume / LABELS), "--mask", str(part.volume / MASK)]
        return ["--mask", str(part.volume / MASK)] if holds_array(part.volume / MASK) else []

    def masks_manifest(self, part: VolumePart) -> list[Path]:
        """Return the files whose presence says that a volume exists and, if it has labels, is masked."""
        has_mask = self.has_labels(part)
        return [Path(f"{part.volume}.masks.json")] if has_mask else self.volume_manifest(part.volume)

    def edges_option(self, part: VolumePart) -> list[str]:
        """Return `--edges FOLDER`, to count edits by, if there are skeletons, which this needs; or nothing."""
        edges = self.results / part.name / "graph" / "edges"
        return ["--edges", str(edges)] if self.skeletons_option(part) else []

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
        folder = self.network_folder.parent / (network or self.config.network)
        return manifest_path(folder / "checkpoints" / f"checkpoint_{iterations or self.iterations}.pt")

    def frozen_manifest(self, network: str) -> list[str]:
        """Return the `checkpoint_manifest` of the frozen network that `network` reads; nothing if it reads raw only."""
        folder = self.project / NETWORKS / self.config.dataset / network
        config = load_network(folder)
        frozen = frozen_network_folder(folder, config)
        if frozen is None or config.autocontext is None:
            return []
        iterations = config.autocontext.iteration or load_network(frozen).training.iterations
        return [str(self.checkpoint_manifest(frozen.name, iterations))]

    def _parts(self, volumes: tuple[str, ...] | None, which: str) -> list[VolumePart]:
        if volumes is not None:
            pairs = [text.partition("@") for text in volumes]
            return [VolumePart(Path(path), roi or None) for path, _, roi in pairs]
        parts = getattr(self.split, which)
        if not parts:
            named = self.config.split or self.network.training.split
            where = f"split '{named}'" if named else "split"
            others = ", ".join(name for name in self.dataset.splits if name != named)
            raise BadInput(
                f"data set {self.dataset.name}: its {where} has no part to {which} on; name volumes with "
                f"--config {which}=..." + (f", or another split with --config split=..., of {others}" if others else "")
            )
        return [VolumePart(self.dataset.volume_path(part.volume, self.config.data), part.roi) for part in parts]


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
    _ = plan.segmentation, plan.image, plan.train_parts, plan.test_parts
    return plan


def prepare_image(plan: WorkflowPlan) -> None:
    """Fetch the image if it comes from S3, and check that it can be used.

    Steps learn its digest and the git commit from environment variables, and see the folders outside the project that
    the configuration names. An image that Apptainer fetches from a URI is checked by the steps alone.

    Raises:
        BadInput: the image is missing, or is of another version than the project.
        RunFailed: fetching failed.
    """
    bind = f"{container_program().upper()}_BIND"
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
    lists = ("train", "test", "shared")
    return {key: [value] if key in lists and isinstance(value, str) else value for key, value in config.items()}
