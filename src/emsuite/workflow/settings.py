"""The settings of a run of the workflow: the keys of config/config.yaml, which explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from emsuite.common.settings import Region, Settings, validate
from emsuite.config.layout import CONTAINERS, DATA
from emsuite.config.parts import Parts, uncut
from emsuite.config.trained_with import IfChanged
from emsuite.segmentation.settings import SegmentationSettings


def for_snakemake(name: Any) -> Any:
    """Return a name or path that Snakemake can use; raise ValueError for one that it reads as a pattern."""
    name = str(name) if isinstance(name, int) else name  # a network may be called 32
    if isinstance(name, str | Path) and any(c in "{}" or not c.isprintable() for c in str(name)):
        raise ValueError("expected a name without braces and line breaks, which Snakemake cannot use")
    return name


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _no_option(folder: Path) -> Path:
    folder = folder.expanduser()
    return folder.absolute() if str(folder).startswith("-") else folder


Name = Annotated[str, BeforeValidator(for_snakemake)]
Folder = Annotated[Path, BeforeValidator(for_snakemake), AfterValidator(_no_option)]
Listed = BeforeValidator(_listed)
"""Of lists: on the command line, a list of one needs no brackets, `--config shared=FOLDER`."""
Folders = Annotated[tuple[Folder, ...], Listed]
OneRegion = Annotated[Region, BeforeValidator(uncut)]
"""On the command line, yaml takes a colon at the end for a mapping's, `--config test_roi=0:80,:,:`."""
Texts = Annotated[tuple[str, ...], Listed]


def overridden(base: SegmentationSettings, keys: Mapping[str, Any], where: str) -> SegmentationSettings:
    """Return the settings of the segmentation of a data set under the keys of a run, which `where` names."""
    return validate(SegmentationSettings, base.model_dump() | dict(keys), f"{where}: segmentation")


def workers_option(settings: SegmentationSettings, threads: int) -> list[str]:
    """Return `--workers ...` for a stage that works in blocks: this number of processes, or Slurm's jobs."""
    return ["--workers", str(threads)] if settings.slurm is None else settings.slurm.arguments


class WorkflowConfig(Settings):
    """The keys of config/config.yaml, which explains them."""

    dataset: Name
    network: Name
    run: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    iterations: PositiveInt | None = None
    if_changed: IfChanged = "refuse"
    split: str | None = None
    train: Parts | None = Field(None, min_length=1)
    test: Parts | None = Field(None, min_length=1)
    data: Folder = DATA
    shared: Folders = ()
    results: Folder = Path("results")
    seed: int | None = Field(None, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = Field(8, le=1024)
    segmentation: dict[str, Any] = Field(default_factory=dict)
    container: str = str(CONTAINERS / "emsuite.sif")
