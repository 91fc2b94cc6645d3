"""What there is to look at: the arrays of volumes, of training snapshots and of a results folder, as layers."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished, manifest_path, read_json, unfinished_path
from emsuite.io.volume import array_names, open_volume
from emsuite.visualization.layers import Kind, Layer, kind_of

# What a results folder may hold, in the order in which it is shown, and the kind of each.
_RESULTS: dict[str, tuple[str | None, Kind]] = {
    "raw": (None, "image"),
    "affs": ("prediction.zarr/affs", "affinities"),
    "lsds": ("prediction.zarr/lsds", "descriptors"),
    "segmentation": ("segmentation.zarr/segmentation", "segmentation"),
    "fragments": ("fragments.zarr/fragments", "segmentation"),
    "labels": (None, "segmentation"),
}
_COLUMNS = {"targets": "targets", "weights": "targets", "predictions": "predictions"}
_log = logging.getLogger(__name__)


def data_layers(containers: Sequence[Path]) -> list[Layer]:
    """Every array of some zarr or HDF5 containers, named by its place below `volumes/`, after its volume if several.

    Arrays without a place in the world are named in the log and left out; raises BadInput where a container has none.
    """
    if len(containers) == 1:
        return _container_layers(containers[0], "")
    stems = [container.stem for container in containers]
    prefixes = [str(path) if stems.count(path.stem) > 1 else path.stem for path in containers]
    return [
        layer
        for path, prefix in dict(zip(containers, prefixes, strict=True)).items()
        for layer in _container_layers(path, f"{prefix}/")
    ]


def snapshot_columns(snapshot: Path) -> list[list[Layer]]:
    """The arrays of a training snapshot side by side: the batch; its targets and weights; the predictions."""
    columns: dict[str, list[Layer]] = {"batch": [], "targets": [], "predictions": []}
    for layer in data_layers([snapshot]):
        columns[_COLUMNS.get(layer.name.split("/")[0], "batch")].append(layer)
    return [column for column in columns.values() if column]


def newest_snapshot(network: Path) -> Path:
    """The finished snapshot of the highest iteration in a network's folder; raises BadInput if there is none."""
    found = {
        int(match[1]): path
        for path in (network / "snapshots").glob("batch_*.zarr")
        if (match := re.fullmatch(r"batch_(\d+)\.zarr", path.name)) and not unfinished_path(path).exists()
    }
    if not found:
        raise BadInput(
            f"{network / 'snapshots'}: no snapshot batch_<iteration>.zarr; expected a network's folder that was "
            "trained, or a snapshot given with -f"
        )
    return found[max(found)]


def result_layers(folder: Path | None, given: Mapping[str, Path | None]) -> list[Layer]:
    """The results in `folder`, as far as they are there and finished, and the arrays named in `given`.

    Keys of `given` are raw, affs, lsds, segmentation, fragments and labels; each replaces that of the folder. The raw
    that a prediction was made from is found by its manifest. Raises BadInput where there is nothing, or a given array
    cannot be shown.
    """
    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected one that holds prediction.zarr or segmentation.zarr")
    layers: list[Layer] = []
    for name, (inside, kind) in _RESULTS.items():
        if path := given.get(name):
            layers.append(Layer(name, open_volume(path), kind))
        elif folder is not None and (path := folder / inside if inside else _input_of(folder, name)) and path.exists():
            layers += _if_it_can_be_shown(name, path, kind)
    if not layers:
        raise BadInput(
            f"{folder}: holds no finished prediction.zarr, fragments.zarr or segmentation.zarr"
            if folder
            else "nothing to show; expected a results folder or an array, as --raw VOLUME.zarr/volumes/raw"
        )
    return layers


def _container_layers(container: Path, prefix: str) -> list[Layer]:
    check_finished(container)
    layers = [
        layer
        for name in array_names(container)
        for layer in _if_it_can_be_shown(prefix + name.removeprefix("volumes/"), container / name)
    ]
    if not layers:
        raise BadInput(f"{container}: holds no array that can be shown; expected one with 'resolution', as volumes/raw")
    return sorted(layers, key=lambda layer: not layer.name.endswith("raw"))


def _if_it_can_be_shown(name: str, path: Path, kind: Kind | None = None) -> list[Layer]:
    try:
        volume = open_volume(path)
        return [Layer(name, volume, kind or kind_of(name, volume))]
    except BadInput as error:
        _log.warning("not shown: %s", error)
        return []


def _input_of(folder: Path, name: str) -> Path | None:
    """Where the prediction's manifest says that it was made from, for the input `name`."""
    manifest = read_json(manifest_path(folder / "prediction.zarr")) or {}
    path = manifest.get("inputs", {}).get(name, {}).get("path")
    return Path(path) if path else None
