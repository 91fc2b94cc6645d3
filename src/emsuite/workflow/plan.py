"""The workflow's settings (config/config.yaml) and where each of its files lies; the Snakefile asks, this answers."""

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
from emsuite.config.dataset import DATASETS, Dataset, load_dataset
from emsuite.config.network import frozen_network_folder, load_network
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.targets.heads import AffinitiesHead
from emsuite.workflow.container_images import fetch_image, find_image


class WorkflowConfig(Settings):
    """Keys of config/config.yaml; see there."""

    dataset: str
    network: str
    iterations: PositiveInt | None = None
    train: tuple[str, ...] | None = Field(None, min_length=1)
    test: tuple[str, ...] | None = Field(None, min_length=1)
    data: Path = Path("data")
    shared: tuple[Path, ...] = ()
    results: Path = Path("results")
    seed: int | None = Field(None, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 8
    segmentation: dict[str, Any] = Field(default_factory=dict)
    container: str = "containers/emsuite.sif"


@dataclass(frozen=True)
class Part:
    """A volume, or a region of one, that is trained or scored on; `roi` in nm as `z0:z1,y0:y1,x0:x1`."""

    volume: Path
    roi: str | None

    @property
    def name(self) -> str:
        """A folder name: the volume's, with the region where there is one, as `trvol-250-2_z1040-1280`."""
        ranges = zip("zyx", (self.roi or ":,:,:").split(","), strict=False)
        return "_".join([self.volume.stem, *(axis + r.replace(":", "-") for axis, r in ranges if r != ":")])

    @property
    def argument(self) -> str:
        """As `VOLUME.zarr[@ROI]`."""
        return f"{self.volume}@{self.roi}" if self.roi else str(self.volume)

    @property
    def roi_option(self) -> list[str]:
        """`--roi ...`, or nothing."""
        return ["--roi", self.roi] if self.roi else []


@dataclass(frozen=True)
class WorkflowPlan:
    """One run of the workflow: settings, data set, and the number of iterations that the network is trained to."""

    config: WorkflowConfig
    dataset: Dataset
    project: Path
    iterations: int

    @property
    def network_folder(self) -> Path:
        """The network's folder, from the project's root."""
        return Path("02_train") / self.config.dataset / self.config.network

    @property
    def segmentation(self) -> SegmentationSettings:
        """How affinities become segments: the data set's settings, the run's own over them."""
        merged = self.dataset.segmentation.model_dump() | self.config.segmentation
        return validate(SegmentationSettings, merged, "config/config.yaml: segmentation")

    @property
    def affinities_head(self) -> str:
        """The name of the head whose affinities are segmented: the first of the network's heads that predicts them."""
        heads = load_network(self.project / self.network_folder).heads
        name = next((name for name, head in heads.items() if isinstance(head, AffinitiesHead)), None)
        if name is None:
            raise BadInput(f"{self.network_folder}: predicts no affinities, which the segmentation needs")
        return name

    @property
    def image(self) -> Image:
        """What --use-singularity runs every step in."""
        return parse_image(self.config.container, Path("containers"))

    @property
    def results(self) -> Path:
        """Where results of this network at this iteration lie; below it, a folder per scored part."""
        return self.config.results / self.config.dataset / self.config.network / str(self.iterations)

    @property
    def train_parts(self) -> list[Part]:
        """What the network is trained on."""
        return self._parts(self.config.train, "train")

    @property
    def test_parts(self) -> dict[str, Part]:
        """What the network is scored on, by name."""
        return {part.name: part for part in self._parts(self.config.test, "test")}

    @property
    def outside_folders(self) -> list[Path]:
        """Folders of data and results that do not lie in the project, which an image shows only if told to."""
        named = [self.config.data, self.config.results, *self.config.shared]
        named += [part.volume.parent for part in (*self.train_parts, *self.test_parts.values())]
        found = {folder.resolve() for folder in named if folder.is_dir()}
        return sorted(folder for folder in found if not folder.is_relative_to(self.project.resolve()))

    @property
    def seed_option(self) -> list[str]:
        """`--seed N`, or nothing."""
        return [] if self.config.seed is None else ["--seed", str(self.config.seed)]

    def source_option(self, volume: str) -> list[str]:
        """`--from FOLDER` if a shared folder has that volume, or nothing."""
        for folder in self.config.shared:
            try:
                self.dataset.find_in(folder, volume)
            except BadInput:
                continue
            return ["--from", str(folder)]
        return []

    def frozen_trained(self, network: str) -> list[str]:
        """The file that says the frozen network which `network` reads is trained; none if it reads raw alone."""
        config = load_network(self.project / "02_train" / self.config.dataset / network)
        first = frozen_network_folder(self.project / "02_train" / self.config.dataset / network, config)
        if first is None or config.autocontext is None:
            return []
        iterations = config.autocontext.iteration or load_network(first).training.iterations
        return [str(self.trained(first.name, iterations))]

    def skeletons_option(self, part: Part) -> list[str]:
        """`--skeletons ...` where they lie beside the volume, or are made with it; else nothing."""
        folder = part.volume.with_suffix(".skeletons")
        made = bool(self.dataset.synthesis) and self.is_managed(part.volume)
        return ["--skeletons", str(folder)] if made or folder.exists() else []

    def edges_option(self, part: Part) -> list[str]:
        """`--edges ...`, which edits are counted on, where there are skeletons to count them by; else nothing."""
        edges = self.results / part.name / "graph" / "edges"
        return ["--edges", str(edges)] if self.skeletons_option(part) else []

    def volume_made(self, volume: Path) -> list[Path]:
        """The file that says a volume is there and whole; none for a volume of the user's own."""
        return [manifest_path(volume)] if self.is_managed(volume) else []

    def is_managed(self, volume: Path) -> bool:
        """Whether the workflow fetches or synthesizes this volume, below the data folder."""
        return volume.parent == self.config.data / self.dataset.prefix and volume.stem in self.dataset.volumes

    def trained(self, network: str | None = None, iterations: int | None = None) -> Path:
        """The file that says a network (default: this run's) is trained up to that iteration."""
        folder = self.network_folder.parent / (network or self.config.network)
        return manifest_path(folder / "checkpoints" / f"checkpoint_{iterations or self.iterations}.pt")

    def _parts(self, given: tuple[str, ...] | None, which: str) -> list[Part]:
        if given is not None:
            pairs = [text.partition("@") for text in given]
            return [Part(Path(path), roi or None) for path, _, roi in pairs]
        split = getattr(self.dataset.split, which)
        if not split:
            raise BadInput(
                f"data set {self.dataset.name}: has no {which} split; name volumes with --config {which}=..."
            )
        return [Part(self.dataset.volume_path(part.volume, self.config.data), part.roi) for part in split]


def load_plan(config: Mapping[str, Any], project: Path) -> WorkflowPlan:
    """Check the workflow's configuration; raises BadInput naming the key at fault."""
    checked = validate(WorkflowConfig, _lists(config), "config/config.yaml")
    dataset = load_dataset(checked.dataset, project / DATASETS)
    folder = project / "02_train" / dataset.name / checked.network
    if not (folder / "network.yaml").exists():
        there = sorted(path.parent.name for path in folder.parent.glob("*/network.yaml"))
        raise BadInput(f"no network '{checked.network}' for {dataset.name}; there are {', '.join(there) or 'none'}")
    flow = WorkflowPlan(checked, dataset, project, checked.iterations or load_network(folder).training.iterations)
    _ = flow.segmentation, flow.image  # checked now, not when they are needed
    return flow


def prepare_image(flow: WorkflowPlan) -> None:
    """Fetch the image if it comes from S3, and see that it can be used.

    Steps are told its digest and the commit by their environment, and see the folders outside the project that the
    configuration names. An image that Apptainer itself fetches from a URI is checked by each step alone. Raises
    BadInput or RunFailed.
    """
    bind = f"{container_program().upper()}_BIND"
    folders = [os.environ.get(bind, ""), *map(str, flow.outside_folders)]
    os.environ[bind] = ",".join(filter(None, folders))
    if commit := git_commit():
        os.environ["EMSUITE_GIT_COMMIT"] = commit
    file = flow.image.file
    if file is None:
        return
    if flow.image.s3 and not file.exists():
        fetch_image(find_image(flow.image.s3, flow.project / "containers/images.yaml"), file)
    os.environ["EMSUITE_IMAGE_DIGEST"] = check_image(file, flow.project)


def run_with_own_python() -> None:
    """Let stage scripts run with the Python that runs Snakemake, whether or not its environment is active."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _lists(config: Mapping[str, Any]) -> dict[str, Any]:
    # on the command line a list of one is written as the value itself: --config test=VOLUME.zarr
    several = ("train", "test", "shared")
    return {key: [value] if key in several and isinstance(value, str) else value for key, value in config.items()}
