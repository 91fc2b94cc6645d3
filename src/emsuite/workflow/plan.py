"""The plan of one run of the workflow: the checked settings of config/config.yaml, and the paths of its files.

The rules in *.smk files ask this plan; it starts nothing itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.container_image import Image, parse_image
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.settings import validate
from emsuite.config.dataset import Dataset, Split, load_dataset
from emsuite.config.layout import CONTAINERS, DATASETS, NETWORKS, RUNS
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.parts import VolumePart
from emsuite.config.trained_with import weight_settings
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.targets.head import Head
from emsuite.targets.heads import AffinitiesHead, instance_heads
from emsuite.workflow.settings import WorkflowConfig, overridden, workers_option
from emsuite.workflow.volumes import Volumes


@dataclass(frozen=True)
class WorkflowPlan:
    """One run of the workflow. Paths count from the project's root, unless the configuration gives absolute ones."""

    config: WorkflowConfig
    dataset: Dataset
    network: NetworkConfig
    project: Path

    @property
    def volumes(self) -> Volumes:
        """The volumes of the data set, and those of the user's own."""
        return Volumes(self.dataset, self.config.data)

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
        return overridden(self.dataset.segmentation, self.config.segmentation, "config/config.yaml")

    @property
    def affinities_head(self) -> str:
        """The name of the predicted array that is segmented: of the network's first head of affinities.

        `affs` if the network predicts none. Such a network can be trained and can predict; the segmentation then says
        that the array is missing.
        """
        return next((name for name, head in self._predicted.items() if isinstance(head, AffinitiesHead)), "affs")

    @property
    def instance_heads(self) -> dict[str, str]:
        """The predicted arrays that instances are decoded from, by target; none if affinities are segmented."""
        return instance_heads(self._predicted)

    @property
    def _predicted(self) -> dict[str, Head]:
        chosen = self.network.prediction.heads or self.network.heads
        return {name: head for name, head in self.network.heads.items() if name in chosen}

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
        if shared := next((name for name in longer if longer.count(name) > 1), None):
            alike = [part.argument for part, name in zip(parts, longer, strict=True) if name == shared]
            raise BadInput(f"test: the results of {' and '.join(alike)} would all be called {shared}; rename one")
        return dict(zip(longer, parts, strict=True))

    @property
    def split(self) -> Split:
        """The parts of the data set to train and to score on, unless the configuration names volumes."""
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

    def config_of(self, network: str) -> NetworkConfig:
        """Return the configuration of a network of the data set."""
        return self.network if network == self.network_name else load_network(self.project / self.networks / network)

    def validation_parts(self, network: str) -> list[VolumePart]:
        """Return the held-out parts that the training of a network validates on; none without validation."""
        validation = self.config_of(network).training.validation
        if validation is None:
            return []
        return list(validation.data) or self.volumes.parts(self.split.validation or self.split.test)

    def validation_options(self, network: str) -> list[str]:
        """Return the options of training scripts that name these parts."""
        parts = self.validation_parts(network)
        return ["--set", f"training.validation.data={json.dumps([part.argument for part in parts])}"] if parts else []

    @property
    def parts(self) -> list[VolumePart]:
        """All parts of the run: to train on, to validate on, to score on."""
        held_out = [part for network, _ in self.trainings for part in self.validation_parts(network)]
        return [*self.train_parts, *held_out, *self.test_parts.values()]

    @property
    def outside_folders(self) -> list[Path]:
        """The folders of data and results outside the project, which must be made visible inside an image."""
        parents, config = (part.volume.parent for part in self.parts), self.config
        resolved = {path.resolve() for path in (config.data, config.results, *config.shared, *parents) if path.is_dir()}
        return sorted(folder for folder in resolved if not folder.is_relative_to(self.project.resolve()))

    def edges_option(self, name: str) -> list[str]:
        """Return `--edges FOLDER`, to count edits by, if the part has skeletons, which this needs; or nothing."""
        has_skeletons = self.volumes.skeletons_option(self.test_parts[name].volume)
        return ["--edges", str(self.results / name / "graph" / "edges")] if has_skeletons else []

    @property
    def masked_volumes(self) -> list[Path]:
        """The volumes that masks are written into."""
        return sorted({part.volume for part in self.parts if self.volumes.is_masked(part.volume)})

    @property
    def labelled_volumes(self) -> list[Path]:
        """The volumes that labels are written into, made from membranes."""
        return self.masked_volumes if self.dataset.labels else []

    def training_settings(self, network: str) -> str:
        """Return the settings that influence the weights of a network, `small` or `small/runs/NAME`, as text."""
        return json.dumps(weight_settings(self.config_of(network)), sort_keys=True)

    @property
    def prediction_settings(self) -> str:
        """The settings of the prediction, as text."""
        return self.network.prediction.model_dump_json(exclude={"original_margin"})  # it predicts by the stride

    def workers_option(self, threads: int) -> list[str]:
        """Return `--workers ...` for a stage that works in blocks: this number of processes, or Slurm's jobs."""
        return workers_option(self.segmentation, threads)

    def checkpoint_manifest(self, network: str | None = None, iterations: int | None = None) -> Path:
        """Return the file whose presence says that a network (default: this run's) is trained up to an iteration."""
        folder = self.networks / (network or self.network_name)
        return manifest_path(folder / "checkpoints" / f"checkpoint_{iterations or self.iterations}.pt")

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """The networks that are trained, with their iterations: this run's, and the frozen network that it reads."""
        return [(self.network_name, self.iterations), *self.frozen_training(self.network_name)]

    def frozen_training(self, network: str) -> list[tuple[str, int]]:
        """Return the frozen network that `network` reads, and its iteration; nothing if it reads raw only."""
        frozen = self.config_of(network).autocontext
        return [(frozen.network, frozen.iteration)] if frozen and frozen.iteration is not None else []

    def frozen_manifest(self, network: str) -> list[str]:
        """Return the `checkpoint_manifest` of the frozen network that `network` reads; nothing if it reads raw only."""
        return [str(self.checkpoint_manifest(*training)) for training in self.frozen_training(network)]

    def _parts(self, chosen: tuple[VolumePart, ...] | None, which: str) -> list[VolumePart]:
        if chosen is not None:
            return list(chosen)
        parts = getattr(self.split, which)
        if not parts:
            named = self.config.split or self.network.training.split
            where = f"split '{named}'" if named else "split"
            others = ", ".join(name for name in self.dataset.splits if name != named)
            raise BadInput(
                f"data set {self.dataset.name}: its {where} has no part to {which} on; name volumes with "
                f"--config {which}=..." + (f", or another split with --config split=..., of {others}" if others else "")
            )
        return self.volumes.parts(parts)


def load_plan(config: Mapping[str, Any], project: Path) -> WorkflowPlan:
    """Check the configuration of the workflow and return the plan of the run.

    Args:
        config: the keys of config/config.yaml, overridden by those of the command line.
        project: the root of the project.

    Raises:
        BadInput: a key is unknown or holds a wrong value; the message names it.
    """
    checked = validate(WorkflowConfig, dict(config), "config/config.yaml")
    dataset = load_dataset(checked.dataset, project / DATASETS)
    folder = project / NETWORKS / dataset.name / checked.network
    if not (folder / "network.yaml").exists():
        names = sorted(path.parent.name for path in folder.parent.glob("*/network.yaml"))
        raise BadInput(f"no network '{checked.network}' for {dataset.name}; there are {', '.join(names) or 'none'}")
    plan = WorkflowPlan(checked, dataset, load_network(folder), project)
    # errors in these keys show at the start, not hours later
    _ = plan.segmentation, plan.image, plan.frozen_manifest(plan.network_name)
    named, trained = {*(checked.train or ()), *(checked.test or ())}, plan.train_parts
    for part in plan.parts:
        plan.volumes.check(part, part in named, part in trained)
    return plan
