"""What transfer.smk asks: the folders and files of a chain from labelled images to instances in another look.

Runs are named MODEL__DATA__CONFIGURATION__HYPER, as EM2ExM names them:

    cyclegan__fib25_second_look__ccgan_vanilla__600I              domain transfer; with _300DI, as many of decay
    cyclegan__fib25_second_look__ccgan_vanilla__600I__transferred  a segmenter, its predictions and scores
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from emsuite.common.errors import BadInput
from emsuite.common.files import is_there
from emsuite.common.outputs import manifest_path
from emsuite.common.settings import Settings, as_options, load, validate
from emsuite.config.dataset import load_dataset
from emsuite.config.layout import CONTAINERS, DATASETS, NETWORKS, RUNS
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.trained_with import IfChanged
from emsuite.data.derived.degradations import DEGRADATIONS
from emsuite.io.regions import check_volume
from emsuite.io.volume import LABELS, MASK, RAW, holds_array
from emsuite.segmentation.instances.settings import InstanceSettings
from emsuite.segmentation.settings import ScoringSettings, SegmentationSettings
from emsuite.targets.heads import instance_heads
from emsuite.workflow.settings import Folder, Listed, Name, OneRegion, Texts, overridden, workers_option

Arm = Literal["transferred", "as_it_is", "own"]


class TransferConfig(Settings):
    """The keys of config/transfer.yaml, which explains them."""

    data_name: Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    labelled: Folder
    labelled_roi: OneRegion = ":,:,:"
    other: Folder
    other_roi: OneRegion = ":,:,:"
    test: Folder
    test_roi: OneRegion = ":,:,:"
    look: Literal["second_look", "box_and_holes"] | None = None
    set: Texts = ()
    transfer: Name
    segmenter: Name
    transfer_iterations: PositiveInt | None = None
    segmenter_iterations: PositiveInt | None = None
    arms: Annotated[tuple[Arm, ...], Listed, Field(min_length=1)] = ("transferred",)
    data: Folder = Path("data/transfer")
    results: Folder = Path("results/transfer")
    if_changed: IfChanged = "refuse"
    segmentation: dict[str, Any] = Field(default_factory=dict)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    container: str = str(CONTAINERS / "emsuite.sif")


@dataclass(frozen=True)
class TransferPlan:
    """Where each step of the chain reads and writes."""

    config: TransferConfig
    transfer: NetworkConfig
    segmenter: NetworkConfig
    segmentation: SegmentationSettings
    """Of the data set of the segmenter, whose file says how its instances are decoded, under the keys of the run."""

    @property
    def transfer_iterations(self) -> int:
        """The iterations of domain transfer."""
        return self.config.transfer_iterations or self.transfer.training.iterations

    @property
    def segmenter_iterations(self) -> int:
        """The iterations of each segmenter."""
        return self.config.segmenter_iterations or self.segmenter.training.iterations

    @property
    def run(self) -> str:
        """The name of the run of domain transfer."""
        settings, iterations = self.transfer.transfer, self.transfer_iterations
        assert settings is not None
        constant = settings.constant_iterations
        decay = f"_{iterations - constant}DI" if constant is not None and constant < iterations else ""
        return f"cyclegan__{self.config.data_name}__{self.transfer.network}__{iterations}I{decay}"

    def arm_run(self, arm: str) -> str:
        """Return the name of a segmenter's run."""
        return f"{self.run}__{arm}" if arm == "transferred" else f"segmenter__{self.config.data_name}__{arm}"

    @property
    def transfer_folder(self) -> Path:
        """The folder that domain transfer trains in."""
        return NETWORKS / self.config.transfer / RUNS / self.run

    @property
    def transfer_checkpoint(self) -> Path:
        """The checkpoint that labelled images are transferred with."""
        return self.transfer_folder / "checkpoints" / f"checkpoint_{self.transfer_iterations}.pt"

    def segmenter_checkpoint(self, run: str) -> Path:
        """Return the checkpoint that a segmenter's run predicts with."""
        return self.segmenter_folder(run) / "checkpoints" / f"checkpoint_{self.segmenter_iterations}.pt"

    def segmenter_folder(self, run: str) -> Path:
        """Return the folder that a segmenter's run trains in."""
        return NETWORKS / self.config.segmenter / RUNS / run

    @property
    def results(self) -> Path:
        """The folder of transferred images."""
        return self.config.results / self.run

    def segmenter_results(self, run: str) -> Path:
        """Return the folder of the prediction and the scores of a segmenter's run."""
        return self.config.results / run / f"{self.segmenter_iterations}"

    @property
    def looks(self) -> dict[str, tuple[Path, str]]:
        """The volumes that are changed into look B, with their regions: `own` is the labelled one."""
        config = self.config
        sources = {"b": (config.other, config.other_roi), "test": (config.test, config.test_roi)}
        return (sources | {"own": (config.labelled, config.labelled_roi)}) if config.look else {}

    def volume(self, name: str) -> Path:
        """Return the volume `b`, `test` or `own` of look B."""
        if self.config.look:
            return self.config.data / self.config.data_name / f"{name}.zarr"
        return {"b": self.config.other, "test": self.config.test}[name]

    def waited_for(self, name: str) -> list[Path]:
        """Return what Snakemake waits for before it reads a volume of look B: nothing for a user's own."""
        return [manifest_path(self.volume(name))] if self.config.look else []

    @property
    def mask_option(self) -> list[str]:
        """The option of the voxels of the test volume that are scored, if it says which. A look keeps its mask."""
        has_mask = self.config.test.exists() and holds_array(self.config.test / MASK)
        return ["--mask", str(self.volume("test") / MASK)] if has_mask else []

    def training_volume(self, arm: str) -> str:
        """Return what a segmenter is trained on, as --data takes it."""
        if arm == "transferred":
            return str(self.results / "pairs.zarr")
        return str(self.volume("own")) if arm == "own" else f"{self.config.labelled}@{self.config.labelled_roi}"

    def training_input(self, arm: str) -> list[Path]:
        """Return what Snakemake waits for before a segmenter is trained."""
        if arm == "transferred":
            return [manifest_path(self.results / "pairs.zarr")]
        return self.waited_for("own") if arm == "own" else []

    @property
    def domains(self) -> list[str]:
        """The options of domain transfer that name the images of both domains."""
        config = self.config
        b_roi = ":,:,:" if config.look else config.other_roi  # a changed volume holds its region alone
        labels = f', labels: "{config.labelled / LABELS}"' if self.reads_labels else ""
        a = f'{{volumes: [{{raw: "{config.labelled / RAW}"{labels}, boxes: ["{config.labelled_roi}"]}}]}}'
        b = f'{{volumes: [{{raw: "{self.volume("b") / RAW}", boxes: ["{b_roi}"]}}]}}'
        return [f"--set=transfer.domains.a={a}", f"--set=transfer.domains.b={b}"]

    @property
    def reads_labels(self) -> bool:
        """Whether generators learn from the labels of A."""
        return len(self.transfer.heads) > 1

    @property
    def instance_heads(self) -> dict[str, str]:
        """The predicted arrays that instances are decoded from, by target."""
        return instance_heads(self.segmenter.heads)

    @property
    def decoding_options(self) -> list[str]:
        """The options of decoding."""
        instances = as_options(self.segmentation.instances, InstanceSettings)
        return [*instances, *as_options(self.segmentation, ["block_size"])]

    @property
    def scoring_options(self) -> list[str]:
        """The options of scoring."""
        return as_options(self.segmentation, ScoringSettings)

    def workers_option(self, threads: int) -> list[str]:
        """See `emsuite.workflow.settings.workers_option`."""
        return workers_option(self.segmentation, threads)


def load_transfer_plan(config: Mapping[str, Any], project: Path, reads_volumes: bool = True) -> TransferPlan:
    """Return the plan of a chain; raise BadInput if a key or a network is wrong.

    Args:
        config: the keys of config/transfer.yaml.
        project: the folder of the project.
        reads_volumes: whether to raise BadInput if a volume is not there, too.
    """
    given = {key: value for key, value in config.items() if value is not None}
    where = "config/transfer.yaml or --config"
    settings = validate(TransferConfig, given, where)
    transfer, segmenter = (load_network(project / NETWORKS / name) for name in (settings.transfer, settings.segmenter))
    if transfer.transfer is None:
        raise BadInput(f"{where}: transfer: {settings.transfer} is a segmenter, expected a network with step: cyclegan")
    if not instance_heads(segmenter.heads):
        raise BadInput(
            f"{where}: segmenter: {settings.segmenter} predicts {', '.join(segmenter.heads)}, expected foreground and "
            "contour"
        )
    if "own" in settings.arms and settings.look is None:
        raise BadInput(f"{where}: arms: own needs the labelled volume in look B, expected `look`, which makes it")
    for key in ("labelled", "other", "test") if reads_volumes else ():
        volume = Path(getattr(settings, key))
        if not is_there(volume):
            raise BadInput(f"{where}: {key}: {volume} is not there; fetch it, or name another volume")
        check_volume(volume, getattr(settings, f"{key}_roi"), key != "other")
    if settings.look:
        load(DEGRADATIONS[settings.look], overrides=settings.set)
    elif settings.set:
        raise BadInput(f"{where}: set: are keys of `look`, expected one beside them")
    described = (project / DATASETS / f"{segmenter.dataset}.yaml").is_file()
    of_data_set = load_dataset(segmenter.dataset, project / DATASETS).segmentation if described else None
    segmentation = overridden(of_data_set or SegmentationSettings(), settings.segmentation, "config/transfer.yaml")
    return TransferPlan(settings, transfer, segmenter, segmentation)
