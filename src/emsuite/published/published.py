"""The published networks' weights: found in a bucket, fetched, and converted to checkpoints of this suite.

    funke/<dataset>/training/checkpoints/<network>/train_net_checkpoint_<iteration>.index    in the bucket
                                                   train_net_checkpoint_<iteration>.data-00000-of-00001
    02_train/<dataset>/<network>/checkpoints/checkpoint_<iteration>.pt                       what becomes of them

Source: Sheridan et al. 2022; funkelab/lsd_nm_experiments. The file `checkpoint` there names a wrong one.
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
from emsuite.config.network import NetworkConfig, frozen_network_folder, load_network, upgraded
from emsuite.download.fetch import WORKERS, fetch_prefix
from emsuite.download.object_store import Store, StoredObject
from emsuite.published.tensorflow_bundle import Bundle
from emsuite.published.tensorflow_weights import iteration_of, read_optimizer, read_weights
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint import Checkpoint
from emsuite.training.state import NETWORK

_FILE = re.compile(r"(?P<prefix>train_net_checkpoint_(?P<iteration>\d+))\.(index|data-\d{5}-of-(?P<shards>\d{5}))")

logger = logging.getLogger(__name__)


def key_prefix(dataset: str, network: str = "") -> str:
    """Where the checkpoints of a data set, or of one of its networks, lie in the bucket."""
    return f"funke/{dataset}/training/checkpoints/{network}".rstrip("/")


def newest(objects: Iterable[StoredObject]) -> list[StoredObject]:
    """The index and data of the newest checkpoint of which all files are there; empty if there is none."""
    files, shards = defaultdict[int, list[StoredObject]](list), defaultdict[int, set[int]](set)
    for stored in objects:
        if found := _FILE.fullmatch(stored.name):
            iteration = int(found["iteration"])
            files[iteration].append(stored)
            if found["shards"]:
                shards[iteration].add(int(found["shards"]))
    complete = [i for i, held in files.items() if shards[i] == {len(held) - 1}]
    return files[max(complete)] if complete else []


def published_networks(store: Store, dataset: str, folder: Path) -> list[str]:
    """The networks of a data set's `folder` of which the store has a complete checkpoint; BadInput if there is none."""
    by_network = dict[str, list[StoredObject]]()
    prefix = key_prefix(dataset)
    for stored in store.list(prefix):
        network, _, name = stored.name.partition("/")
        by_network.setdefault(network, []).append(replace(stored, name=name))
    found = [n for n, files in by_network.items() if newest(files) and (folder / n / "network.yaml").is_file()]
    if not found:
        raise BadInput(f"{store.url(prefix)}: has no complete checkpoint of a network in {folder}")
    return sorted(found)


def with_frozen(networks: Sequence[str], folder: Path) -> list[str]:
    """The networks of a data set's `folder`, each behind the frozen one whose LSDs it reads."""
    ordered = list[str]()
    for network in networks:
        frozen = frozen_network_folder(folder / network, load_network(folder / network))
        ordered += [*([frozen.name] if frozen else []), network]
    return list(dict.fromkeys(ordered))


def fetch_published(store: Store, dataset: str, network: str, data: Path, workers: int = WORKERS) -> tuple[Path, dict]:
    """Fetch the newest complete checkpoint of a published network below `data`; verified, and continued if stopped.

    Returns the bundle's path without endings, and what it is: `source`, and per object `key`, `size`, `etag`. Raises
    BadInput where the store has none, RunFailed where fetching failed.
    """
    prefix = key_prefix(dataset, network)

    def choose(listed: list[StoredObject]) -> list[StoredObject]:
        if not (chosen := newest(listed)):
            raise BadInput(f"{store.url(prefix)}: has no complete train_net_checkpoint_<iteration> (.index and .data)")
        return chosen

    folder = data / prefix
    fetched = fetch_prefix(store, prefix, folder, choose=choose, workers=workers)
    found = _FILE.fullmatch(fetched.stored[0].name)
    assert found is not None
    about = [{key: value for key, value in asdict(stored).items() if key != "name"} for stored in fetched.stored]
    return folder / found["prefix"], {"source": store.url(prefix), "objects": about}


def convert(prefix: Path, folder: Path, optimizer: bool = False, source: dict[str, Any] | None = None) -> Path:
    """Write the TensorFlow checkpoint at `prefix` as checkpoint of the network in `folder`; returns its path.

    With `optimizer`, Adam's moments come along. What is there already and came from the same bundle is left as it is.
    Raises BadInput, with the folder untouched, for a bundle that is damaged or of another network.
    """
    folder, config = Path(folder), load_network(folder)
    bundle = Bundle(prefix)
    iteration = _iteration(bundle)
    settings = {"prefix": bundle.prefix.name, "index": f"sha256:{sha256(bundle.index)}", "optimizer": optimizer}
    settings = {"converted": settings | (source or {}), "network": config.model_dump(mode="json")}
    path = checkpoints.checkpoint_path(folder, iteration)
    if is_finished(path, settings, upgraded):
        return path
    _check_owner(path)
    made = _checkpoint(bundle, folder, config, iteration, optimizer, settings)
    newer = [other for other in checkpoints.iterations(folder) if other > iteration]
    if newer:
        logger.warning("%s: has newer checkpoints; give --iteration %d to predict with this one", folder, iteration)
    return checkpoints.save(folder, made)


def _checkpoint(
    bundle: Bundle, folder: Path, config: NetworkConfig, iteration: int, optimizer: bool, settings: dict[str, Any]
) -> Checkpoint:
    frozen = checkpoints.load_frozen(folder, config)
    weights = read_weights(bundle, config)
    state = read_optimizer(bundle, config, iteration) if optimizer else None
    digest = checkpoints.digest(frozen[1].best_weights) if frozen else None
    return Checkpoint(
        iteration=iteration,
        architecture=config.architecture(),
        networks={NETWORK: weights},
        optimizers={} if state is None else {NETWORK: state},
        frozen_digest=digest,
        provenance=provenance(settings),
    )


def _iteration(bundle: Bundle) -> int:
    """As the file's name says, or else as was counted in training."""
    if found := re.search(r"_(\d+)$", bundle.prefix.name):
        return int(found[1])
    iteration = iteration_of(bundle)
    if not iteration:
        raise BadInput(f"{bundle.prefix}: tells no iteration; rename it to end in one, as train_net_checkpoint_400000")
    return iteration


def _check_owner(path: Path) -> None:
    """Refuse to replace a checkpoint that was trained here."""
    if path.exists() and "converted" not in checkpoints.read(path).provenance.get("settings", {}):
        raise BadInput(f"{path}: is there already, and was trained here; move it away to put the published one there")
