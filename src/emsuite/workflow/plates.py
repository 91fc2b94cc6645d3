"""What plates.smk asks: the folders and files of one run over a plate of light microscopy, and the order of each step.

data/microdl/frames, plate.zarr, preprocessed        data/microdl/RUN/... with a run
02_train/microdl/small/checkpoints                   02_train/microdl/small/runs/RUN/checkpoints
results/microdl/small/ITERATIONS/plate.zarr          results/microdl/small/RUN/ITERATIONS/...
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.settings import Settings, load, validate
from emsuite.config.layout import CONTAINERS, DATA, NETWORKS, RUNS
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.trained_with import (
    IfChanged,
    differences,
    of_earlier_version,
    record,
    settings_of_images,
    weight_settings,
)
from emsuite.plates.preprocess import inputs_of, is_preprocessed
from emsuite.plates.settings import PreprocessSettings
from emsuite.training.trained_network import weights_read
from emsuite.workflow.inputs import input_state, states_named_by
from emsuite.workflow.orders import Order, order_of
from emsuite.workflow.settings import Folder, Name, Texts


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

    @property
    def preprocessing(self) -> PreprocessSettings:
        """The steps with the plate that they read, and the folder that they write."""
        return self.steps.model_copy(update={"input": self.plate, "output": self.ready})

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
    def plate_input(self) -> list[Path]:
        """What Snakemake waits for before preprocessing; of a user's own plate, orders know the content."""
        return [] if self.config.plate else [manifest_path(self.plate)]

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


@dataclass(frozen=True)
class PlateOrders:
    """The order of each step, see `orders`: what decides on its output, and which steps it follows."""

    plan: PlatePlan

    def write_all(self) -> None:
        """Bring the files of all orders up to date, before Snakemake looks at any file."""
        made_here = () if self.plan.config.plate else (self.synthesize(), self.index())
        for order in (*made_here, self.preprocess(), self.train(), self.predict(), self.evaluate()):
            order.write()

    def synthesize(self) -> Order:
        """Return the order to make the frames of the synthetic set."""
        return order_of({"set": "label-free"}, self.plan.frames, is_asked=lambda _: True)

    def index(self) -> Order:
        """Return the order to write these frames as a plate."""
        return order_of(
            {}, self.plan.plate, after=(self.synthesize(),), reads=(self.plan.frames,), is_asked=lambda _: True
        )

    def preprocess(self) -> Order:
        """Return the order to preprocess the plate."""
        plan, after = self.plan, () if self.plan.config.plate else (self.index(),)
        given = {name: path for name, path in inputs_of(plan.preprocessing).items() if path != plan.plate or not after}
        asked = {"steps": plan.steps.model_dump(mode="json", exclude={"input", "output"})}
        return order_of(
            asked | {"inputs": {f"{name} {path}": input_state(path) for name, path in given.items()}},
            plan.ready,
            after=after,
            reads=(plan.plate,) if after else (),
            is_asked=lambda _: is_preprocessed(plan.preprocessing),
        )

    def train(self) -> Order:
        """Return the order to train the network."""
        return order_of(
            {"settings": weight_settings(self.plan.network), "named": states_named_by(self.plan.network)},
            self.plan.checkpoint,
            after=(self.preprocess(),),
            reads=(self.plan.ready, *weights_read(self.plan.folder, self.plan.network)),
            beside=(self.plan.log / "train.tsv",),
            is_asked=self._trained_so,
        )

    def predict(self) -> Order:
        """Return the order to predict all positions."""
        return order_of(
            {"settings": settings_of_images(self.plan.network)},
            self.plan.results / "plate.zarr",
            after=(self.train(),),
            reads=(self.plan.checkpoint, self.plan.ready),
            beside=(self.plan.log / "predict.tsv",),
        )

    def evaluate(self) -> Order:
        """Return the order to score the test positions."""
        return order_of(
            {"masks": self.plan.mask_options},
            self.plan.scores,
            after=(self.predict(),),
            reads=(self.plan.results / "plate.zarr", self.plan.ready),
        )

    def _trained_so(self, about: Mapping[str, Any]) -> bool:
        earlier = of_earlier_version(about.get("settings"))
        return earlier is not None and not differences(earlier, record(self.plan.network, [], None))


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
