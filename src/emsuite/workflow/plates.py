"""What plates.smk asks: the folders and files of one run over a plate of light microscopy.

data/microdl/frames, plate.zarr, preprocessed        data/microdl/RUN/... with a run
02_train/microdl/small/checkpoints                   02_train/microdl/small/runs/RUN/checkpoints
results/microdl/small/ITERATIONS/plate.zarr          results/microdl/small/RUN/ITERATIONS/...
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, read_manifest
from emsuite.common.settings import Settings, load, validate
from emsuite.common.state.written import lost
from emsuite.config.layout import CONTAINERS, DATA, NETWORKS, RUNS
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.trained_with import IfChanged, differences, of_earlier_version, record, settings_of_images
from emsuite.plates.preprocess import is_preprocessed
from emsuite.plates.settings import PreprocessSettings
from emsuite.workflow.settings import Folder, Name, Texts

_OLD = 10**18
"""ns: older than any input. 0 would be no time for Snakemake."""


class PlateConfig(Settings):
    """The keys of config/plates.yaml, which explains them."""

    dataset: Name = "microdl"
    network: Name = "small"
    plate: Folder | None = None
    preprocess: Folder = Path("config/preprocess.yaml")
    set: Texts = ()
    iterations: PositiveInt | None = None
    data: Folder = DATA
    results: Folder = Path("results")
    run: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    if_changed: IfChanged = "refuse"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    container: str = str(CONTAINERS / "emsuite.sif")


@dataclass(frozen=True)
class PlatePlan:
    """Where each step of a run reads and writes."""

    config: PlateConfig
    iterations: int
    steps: PreprocessSettings
    network_folder: Path
    network: NetworkConfig

    def look_for_changes(self) -> Iterator[str]:
        """Make the records of outputs old whose files are gone, or whose inputs have changed, so that steps run again.

        Snakemake looks at the time of a folder alone, not at its files.

        Yields:
            a line on each.
        """
        steps = self.steps.model_copy(update={"input": self.plate, "output": self.ready})
        if manifest_path(self.ready).exists() and not is_preprocessed(steps):
            yield f"{self.ready}: is not whole, or its inputs or settings have changed; it is made again"
            _make_old(self.ready)
        made = (self.checkpoint, self.results / "plate.zarr", self.scores)
        for path in (*(() if self.config.plate else (self.plate,)), *made):
            if how := lost(path, read_manifest(path)) or self._other_settings(path):
                yield f"{path}: {how}; it is made again"
                _make_old(path)

    def _other_settings(self, path: Path) -> str | None:
        """Return how the settings of an output's network differ from those of today, by its manifest, in words."""
        made_with = read_manifest(path).get("settings")
        if not isinstance(made_with, Mapping):
            return None
        if path == self.checkpoint and self.config.if_changed == "refuse":  # else the user has chosen
            earlier = of_earlier_version(made_with)
            told = differences(earlier, record(self.network, [], None)) if earlier else []
            return f"other settings ({'; '.join(told)})" if told else None
        network = made_with.get("network")
        is_other = isinstance(network, Mapping) and network != settings_of_images(self.network)
        return "other settings of the network" if is_other else None

    @property
    def scores(self) -> Path:
        """The folder of scores."""
        return self.results / "scores"

    @property
    def _data(self) -> Path:
        return self.config.data / self.config.dataset

    @property
    def frames(self) -> Path:
        """The frames of the synthetic set."""
        return self._data / "frames"

    @property
    def plate(self) -> Path:
        """The plate to preprocess."""
        return self.config.plate or self._data / "plate.zarr"

    @property
    def plate_input(self) -> Path:
        """What Snakemake waits for before preprocessing."""
        return self.config.plate or Path(f"{self.plate}.manifest.json")

    @property
    def ready(self) -> Path:
        """The folder of the preprocessed plate."""
        return self._data / self.config.run / "preprocessed"

    @property
    def folder(self) -> Path:
        """The folder that training writes into."""
        return self.network_folder / RUNS / self.config.run if self.config.run else self.network_folder

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that predicts."""
        return self.folder / f"checkpoints/checkpoint_{self.iterations}.pt"

    @property
    def network_files(self) -> list[Path]:
        """The files that describe the network."""
        files = [self.network_folder.parent / "dataset.yaml", self.network_folder / "network.yaml"]
        return [file for file in files if file.exists()]

    @property
    def results(self) -> Path:
        """The folder of prediction and scores."""
        config = self.config
        return config.results / config.dataset / config.network / config.run / str(self.iterations)

    @property
    def log(self) -> Path:
        """The folder of logs."""
        return self.results / "log"

    @property
    def mask_options(self) -> str:
        """The option that scores the foreground alone, too, if there are masks."""
        return "--masks" if self.steps.masks else ""


def load_plate_plan(config: Mapping[str, Any], project: Path) -> PlatePlan:
    """Return the plan of a run; raise BadInput if a key, the file of preprocessing or the network is wrong."""
    given = {key: value for key, value in config.items() if value is not None}
    settings = validate(PlateConfig, given, "config/plates.yaml or --config")
    folder = NETWORKS / settings.dataset / settings.network
    network = load_network(project / folder)
    if network.plate is None:
        raise BadInput(f"{folder}: reads volumes, expected a network with the key `plate`")
    places = ['input="."', 'output="."'] if settings.plate else []
    steps = load(PreprocessSettings, project / settings.preprocess, overrides=[*settings.set, *places])
    if steps.split is None:
        raise BadInput(f"{settings.preprocess}: has no split, expected one to train and to score on")
    return PlatePlan(settings, settings.iterations or network.training.iterations, steps, folder, network)


def _make_old(path: Path) -> None:
    with suppress(PermissionError):  # of another user, whose steps cannot run here either
        os.utime(manifest_path(path), ns=(_OLD, _OLD))
