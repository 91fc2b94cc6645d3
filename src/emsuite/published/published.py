"""The weights of the published networks: fetch them from a bucket and convert them to checkpoints of this suite.

    funke/<dataset>/training/checkpoints/<network>/train_net_checkpoint_<iteration>.index    in the bucket
                                                   train_net_checkpoint_<iteration>.data-00000-of-00001
    02_train/<dataset>/<network>/checkpoints/checkpoint_<iteration>.pt                       converted

Source: Sheridan et al. 2022; funkelab/lsd_nm_experiments. The bucket's state files, named `checkpoint`, name wrong
checkpoints, so they are not read.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.files import sha256
from emsuite.common.outputs import is_finished
from emsuite.common.provenance import provenance
from emsuite.config.network import NetworkConfig, load_network, upgraded
from emsuite.download.fetch import WORKERS, fetch_prefix
from emsuite.download.object_store import ObjectStore, StoredObject
from emsuite.published.tensorflow_bundle import Bundle
from emsuite.published.tensorflow_weights import iteration_of, read_optimizer, read_weights
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint import Checkpoint
from emsuite.training.step import NETWORK
from emsuite.training.trained_network import frozen_weights

_FILE = re.compile(r"(?P<prefix>train_net_checkpoint_(?P<iteration>\d+))\.(index|data-\d{5}-of-(?P<shards>\d{5}))")

logger = logging.getLogger(__name__)


def key_prefix(dataset: str, network: str = "") -> str:
    """Return the folder of the bucket with the checkpoints of a data set, or of one of its networks."""
    return f"funke/{dataset}/training/checkpoints/{network}".rstrip("/")


def newest_checkpoint(objects: Iterable[StoredObject], wanted: int | None = None) -> list[StoredObject]:
    """Return the index and data files of the newest complete checkpoint, or an empty list.

    A complete checkpoint of the iteration `wanted` goes before newer ones.
    """
    files, shards = defaultdict[int, list[StoredObject]](list), defaultdict[int, set[int]](set)
    for stored in objects:
        if match := _FILE.fullmatch(stored.name):
            iteration = int(match["iteration"])
            files[iteration].append(stored)
            if match["shards"]:
                shards[iteration].add(int(match["shards"]))
    complete = [i for i, present in files.items() if shards[i] == {len(present) - 1}]
    return files[wanted if wanted in complete else max(complete)] if complete else []


def published_networks(store: ObjectStore, dataset: str, folder: Path) -> list[str]:
    """Return the networks that have a network.yaml in `folder` and a complete checkpoint in the store.

    Raises BadInput if there are none.
    """
    by_network = dict[str, list[StoredObject]]()
    prefix = key_prefix(dataset)
    for stored in store.list(prefix):
        network, _, name = stored.name.partition("/")
        by_network.setdefault(network, []).append(replace(stored, name=name))
    networks = [
        name
        for name, files in by_network.items()
        if newest_checkpoint(files) and (folder / name / "network.yaml").is_file()
    ]
    if not networks:
        raise BadInput(f"{store.url(prefix)}: has no complete checkpoint of a network in {folder}")
    return sorted(networks)


def with_frozen_networks(networks: Sequence[str], folder: Path) -> list[tuple[str, int | None]]:
    """Return the networks and the frozen networks that they read LSDs from, each after its frozen network.

    Networks that read raw alone come first. Each is paired with the iteration to fetch: for a frozen network the one
    that `autocontext.iteration` names. None is the newest.
    """
    plain, reading_lsds = list[tuple[str, int | None]](), list[tuple[str, int | None]]()
    for network in networks:
        autocontext = load_network(folder / network).autocontext
        if autocontext is None:
            plain.append((network, None))
        else:
            reading_lsds += [(autocontext.network, autocontext.iteration), (network, None)]
    return list(dict.fromkeys([*plain, *reading_lsds]))


def fetch_published(
    store: ObjectStore, dataset: str, network: str, data: Path, workers: int = WORKERS, iteration: int | None = None
) -> tuple[Path, dict]:
    """Fetch the newest complete checkpoint of a published network; continue a stopped run.

    Args:
        store: the bucket.
        dataset: its name in the bucket, for example "zebrafinch".
        network: its name in the bucket, for example "mtlsd".
        data: the folder to fetch to; the files get the same path below it as in the bucket.
        workers: the number of threads.
        iteration: fetch the checkpoint of this iteration if the store has it.

    Returns:
        The path of the TensorFlow checkpoint without `.index` and `.data-...`, and its provenance: `source`, and
        `objects` with `key`, `size` and `etag`.

    Raises:
        BadInput: the store has no complete checkpoint of this network.
        RunFailed: fetching failed.
    """
    prefix = key_prefix(dataset, network)

    def choose(listed: list[StoredObject]) -> list[StoredObject]:
        if not (chosen := newest_checkpoint(listed, iteration)):
            raise BadInput(f"{store.url(prefix)}: has no complete train_net_checkpoint_<iteration> (.index and .data)")
        return chosen

    folder = data / prefix
    fetched = fetch_prefix(store, prefix, folder, choose=choose, workers=workers)
    match = _FILE.fullmatch(fetched.stored[0].name)
    assert match is not None
    about = [{key: value for key, value in asdict(stored).items() if key != "name"} for stored in fetched.stored]
    return folder / match["prefix"], {"source": store.url(prefix), "objects": about}


def convert(prefix: Path, folder: Path, optimizer: bool = True, source: dict[str, Any] | None = None) -> Path:
    """Convert a TensorFlow checkpoint to a checkpoint of the network in `folder`.

    A checkpoint that was converted from the same files before is left as it is.

    Args:
        prefix: the path of the TensorFlow checkpoint without `.index` and `.data-...`.
        folder: the folder of the network, with network.yaml.
        optimizer: whether to convert Adam's moments too, with which training continues as it was; without them its
            optimizer begins afresh.
        source: further provenance, see `fetch_published`.

    Returns:
        The path of the converted checkpoint.

    Raises:
        BadInput: the TensorFlow checkpoint is damaged or of another network, or the folder holds a checkpoint of this
            iteration that was trained here. The folder is then unchanged.
    """
    bundle = Bundle(prefix)
    with checkpoints.owned_folder(folder):
        return _convert(bundle, Path(folder), optimizer, source)


def _convert(bundle: Bundle, folder: Path, optimizer: bool, source: dict[str, Any] | None) -> Path:
    config = load_network(folder)
    iteration = _iteration(bundle)
    settings = {"prefix": bundle.prefix.name, "index": f"sha256:{sha256(bundle.index)}", "optimizer": optimizer}
    settings = {"converted": settings | (source or {}), "network": config.model_dump(mode="json")}
    path = checkpoints.checkpoint_path(folder, iteration)
    if is_finished(path, settings, upgraded):
        return path
    _check_owner(path)
    checkpoint = _checkpoint(bundle, folder, config, iteration, optimizer, settings)
    newer = [other for other in checkpoints.iterations(folder) if other > iteration]
    if newer:
        logger.warning("%s: has newer checkpoints; give --iteration %d to predict with this one", folder, iteration)
    return checkpoints.save(folder, checkpoint)


def _checkpoint(
    bundle: Bundle, folder: Path, config: NetworkConfig, iteration: int, optimizer: bool, settings: dict[str, Any]
) -> Checkpoint:
    frozen = frozen_weights(folder, config)
    weights = read_weights(bundle, config)
    state = read_optimizer(bundle, config, iteration) if optimizer else None
    return Checkpoint(
        iteration=iteration,
        architecture=config.architecture(),
        networks={NETWORK: weights},
        optimizers={} if state is None else {NETWORK: state},
        frozen_digest=frozen.digest if frozen else None,
        provenance=provenance(settings) | ({"frozen": frozen.record} if frozen else {}),
    )


def _iteration(bundle: Bundle) -> int:
    """Return the iteration in the file's name, or else the one that gunpowder counted."""
    if match := re.search(r"_(\d+)$", bundle.prefix.name):
        return int(match[1])
    iteration = iteration_of(bundle)
    if not iteration:
        raise BadInput(f"{bundle.prefix}: tells no iteration; rename it to end in one, as train_net_checkpoint_400000")
    return iteration


def _check_owner(path: Path) -> None:
    """Raise BadInput if the checkpoint at `path` was trained here."""
    settings = checkpoints.read(path).provenance.get("settings") if path.exists() else {"converted": True}
    if not isinstance(settings, dict) or "converted" not in settings:
        raise BadInput(f"{path}: exists already, and was trained here; move it away to write the published one")
