"""The layers to show: the arrays of volumes, of training snapshots and of a results folder."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import is_there
from emsuite.common.outputs import check_finished, read_manifest, unfinished_path
from emsuite.common.provenance import input_path
from emsuite.io.levels import is_coarser_level
from emsuite.io.volume import array_names, open_volume
from emsuite.visualization.layers import Kind, Layer, kind_of

# The arrays of a results folder in the order of their layers: by name, the path in the folder and the kind.
_RESULTS: dict[str, tuple[str | None, Kind]] = {
    "raw": (None, "image"),
    "affs": ("prediction.zarr/affs", "affinities"),
    "lsds": ("prediction.zarr/lsds", "descriptors"),
    "segmentation": ("segmentation.zarr/segmentation", "segmentation"),
    "fragments": ("fragments.zarr/fragments", "segmentation"),
    "labels": (None, "segmentation"),
}
_COLUMNS = {"targets": "targets", "weights": "targets", "predictions": "predictions", "gradients": "gradients"}
_COLUMNS |= {"a": "a", "b": "b"}  # the domains of transfer
_SNAPSHOT = r"batch_(\d+)\.(?:zarr|hdf)"
_log = logging.getLogger(__name__)


def data_layers(containers: Sequence[Path]) -> list[Layer]:
    """Return a layer for every array of some containers.

    The name of a layer is that of its array, without `volumes/`. If there are several containers, the name begins with
    that of the container. Arrays without a voxel size are left out, and the log names them.

    Args:
        containers: Paths of containers, in any format.

    Raises:
        BadInput: A container is missing, unfinished or damaged, or holds no array that can be shown.
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
    """Return the layers of a training snapshot in columns: the batch; its targets and weights; predictions; gradients.

    Those of domain transfer are the images of a and those of b, each with what generators make of them.

    Raises:
        BadInput: the snapshot is missing (the message names those that exist), unfinished or damaged.
    """
    network = snapshot.absolute().parents[1]
    if not snapshot.exists() and (others := _snapshots(network)):
        raise BadInput(f"{snapshot}: no such snapshot; expected that of iteration {_listed(others)}")
    columns: dict[str, list[Layer]] = {name: [] for name in ("batch", *dict.fromkeys(_COLUMNS.values()))}
    for layer in data_layers([snapshot]):
        columns[_COLUMNS.get(layer.name.split("/")[0], "batch")].append(layer)
    return [column for column in columns.values() if column]


def newest_snapshot(network: Path) -> Path:
    """Return the finished snapshot of the highest iteration in a network's folder; raise BadInput if there is none."""
    snapshots = _snapshots(network)
    if snapshots:
        return snapshots[max(snapshots)]
    trained = _iterations(network / "checkpoints", r"checkpoint_(\d+)\.\w+")
    if trained:
        raise BadInput(
            f"{network / 'snapshots'}: no snapshot yet, the newest checkpoint is of iteration {max(trained)}; training "
            "writes one at every multiple of training.snapshot_every in network.yaml"
        )
    if (network / "network.yaml").exists():
        raise BadInput(f"{network / 'snapshots'}: no snapshot, the network was not trained yet")
    raise BadInput(
        f"{network}: is no folder of a network (it has no network.yaml) and holds no snapshots/batch_<iteration>.zarr "
        "or .hdf; expected to be run inside one, or a snapshot given with -f"
    )


def _snapshots(network: Path) -> dict[int, Path]:
    """Return the finished snapshots of a network by iteration."""
    found = _iterations(network / "snapshots", _SNAPSHOT)
    return {iteration: path for iteration, path in found.items() if not unfinished_path(path).exists()}


def _iterations(folder: Path, pattern: str) -> dict[int, Path]:
    names = [(path, re.fullmatch(pattern, path.name)) for path in folder.glob("*")]
    return {int(match[1]): path for path, match in names if match}


def _listed(iterations: Iterable[int]) -> str:
    numbers = sorted(iterations)
    return ", ".join(map(str, numbers)) if len(numbers) < 8 else f"{numbers[0]} to {numbers[-1]} ({len(numbers)})"


def result_layers(folder: Path | None, arrays: Mapping[str, Path | None]) -> list[Layer]:
    """Return the layers of a results folder, as far as they exist and are finished, and those of further arrays.

    The manifest of a prediction names the raw volume that it was made from, scores.json the labels.

    Args:
        folder: Holds `prediction.zarr`, `fragments.zarr` or `segmentation.zarr`, or lies above such folders: the newest
            is shown, and the log names the others. None: only `arrays` are shown.
        arrays: Paths of arrays by raw, affs, lsds, segmentation, fragments or labels. Each replaces that of the folder.

    Raises:
        BadInput: The folder is missing, there is no layer, or an array of `arrays` cannot be shown.
    """
    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected one that holds prediction.zarr or segmentation.zarr")
    folder = folder and _newest_results(folder)
    layers: list[Layer] = []
    for name, (inside, kind) in _RESULTS.items():
        if path := arrays.get(name):
            layers.append(Layer(name, open_volume(path), kind))
        elif folder is not None and (path := folder / inside if inside else _input_of(folder, name)) and is_there(path):
            layers += _layer_if_showable(name, path, kind)
    if not layers:
        raise BadInput(
            f"{folder}: holds no finished prediction.zarr, fragments.zarr or segmentation.zarr"
            if folder
            else "nothing to show; expected a results folder or an array, as --raw VOLUME.zarr/volumes/raw"
        )
    return layers


def _newest_results(folder: Path) -> Path:
    """Return the folder of results that is `folder` or lies below it, by the newest of its containers."""
    names = {inside.split("/")[0] for inside, _ in _RESULTS.values() if inside}
    ages: dict[Path, int] = {}
    for path, below, _ in os.walk(folder):
        if here := names.intersection(below):
            ages[Path(path)] = max((Path(path) / name).stat().st_mtime_ns for name in here)
        below[:] = [name for name in below if not name.endswith(".zarr")]
    if not ages or folder in ages:
        return folder
    newest, *others = sorted(ages, key=lambda path: ages[path], reverse=True)
    more = f"; older: {', '.join(map(str, others[:8]))}" if others else ""
    _log.info("%s%s", newest, more)
    return newest


def _container_layers(container: Path, prefix: str) -> list[Layer]:
    check_finished(container)
    layers = [
        layer
        for name in array_names(container)
        if not is_coarser_level(container / name)
        for layer in _layer_if_showable(prefix + (name.removeprefix("volumes/") or container.stem), container / name)
    ]
    if not layers:
        raise BadInput(f"{container}: holds no array that can be shown; expected one with 'resolution', as volumes/raw")
    return sorted(layers, key=lambda layer: not layer.name.endswith("raw"))


def _layer_if_showable(name: str, path: Path, kind: Kind | None = None) -> list[Layer]:
    try:
        volume = open_volume(path)
        return [Layer(name, volume, kind or kind_of(name, volume))]
    except BadInput as error:
        _log.warning("not shown: %s", error)
        return []


def _input_of(folder: Path, name: str) -> Path | None:
    """Return the path of the input `name` of the prediction, from its manifest, or else of the scores."""
    scores = read_json(folder / "scores.json")
    records = read_manifest(folder / "prediction.zarr"), scores.get("provenance") if isinstance(scores, dict) else None
    known = (input_path(record, name) for record in records if isinstance(record, dict))
    return next((path for path in known if path is not None), None)
