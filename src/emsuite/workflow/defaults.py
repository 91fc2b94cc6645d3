"""What a prediction takes by default: the raw of its data set's test split, and the folder that the workflow writes.

    data/funke/fib25/training/trvol-250-2.zarr/volumes/raw, 1040:1280,:,:      read
    results/fib25/small/4500/trvol-250-2_z1040-1280/prediction.zarr            written

The workflow predicts the same region with the same checkpoint to the same folder, and then finds it done.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from emsuite.common.errors import BadInput
from emsuite.config.dataset import load_dataset
from emsuite.config.layout import DATA, DATASETS
from emsuite.config.network import NetworkConfig
from emsuite.config.parts import VolumePart
from emsuite.io.volume import RAW, split_path
from emsuite.training import checkpoint as checkpoints
from emsuite.workflow.settings import WorkflowConfig

logger = logging.getLogger(__name__)


class PredictionPaths(NamedTuple):
    """The array `raw`, the region `roi` of it (nm, or None: all of it), and the zarr `out`."""

    raw: Path
    roi: str | None
    out: Path


def prediction_paths(
    project: Path, folder: Path, config: NetworkConfig, iteration: int | None,
    raw: Path | None, roi: str | None, out: Path | None, direction: str | None = None,
) -> PredictionPaths:  # fmt: skip
    """Return what a prediction reads and writes; take defaults where the user named nothing, and say which.

    Args:
        project: The root of the project, with `data` and `results`.
        folder: That of the network.
        config: Its configuration.
        iteration: The checkpoint; None: the newest.
        raw: The raw array; None: that of the first part of the test split. A region of it is taken too.
        roi: The region, as the user wrote it.
        out: The zarr to write; None: `results/DATASET/NETWORK/ITERATION/PART/prediction.zarr`.
        direction: Of domain transfer: `PART_DIRECTION` is written by default. From B to A, raw must be named.

    Raises:
        BadInput: The data set has no test split, its volume is not on this machine, or there is no checkpoint.
    """
    words = []
    if raw is None and direction == "B2A":
        raise BadInput("--raw: missing, expected an array with the look of domain b")
    if raw is None:
        part = _test_part(project, config)
        raw, roi = part.volume / RAW, roi or part.roi
        words += ["--raw", str(raw), *(["--roi", roi] if roi else [])]
    if out is None:
        number = iteration or (checkpoints.iterations(folder) or [0])[-1]
        if not number:
            raise BadInput(f"{folder}: no checkpoint; train it, or fetch its published weights")
        name = VolumePart(volume=split_path(raw)[0], roi=roi).name + (f"_{direction}" if direction else "")
        results = project / WorkflowConfig.model_fields["results"].default
        out = results / config.dataset / config.network / str(number) / name / "prediction.zarr"
        words += ["--out", str(out)]
    if words:
        logger.info("by default: %s", " ".join(words))
    return PredictionPaths(raw, roi, out)


def predicted_plate(project: Path, config: NetworkConfig, iteration: int, kind: str) -> Path:
    """Return where a predicted plate goes by default: `results/DATASET/NETWORK/ITERATION/plate.zarr`, or a folder."""
    results = project / WorkflowConfig.model_fields["results"].default
    name = {"zarr": "plate.zarr", "csv": "plate.csv"}.get(kind, f"plate_{kind}")
    return Path(results / config.dataset / config.network / str(iteration) / name)


def _test_part(project: Path, config: NetworkConfig) -> VolumePart:
    dataset = load_dataset(config.dataset, project / DATASETS)
    if not dataset.named_split().test:
        raise BadInput(f"data set {dataset.name}: has no test split to predict; name an array with --raw")
    part = dataset.named_split().test[0]
    path = dataset.volume_path(part.volume, project / DATA)
    if not path.exists():
        raise BadInput(f"{path}: no such volume; fetch it, or name an array with --raw")
    return VolumePart(volume=path, roi=part.roi)
