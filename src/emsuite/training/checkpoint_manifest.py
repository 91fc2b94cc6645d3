"""The manifest beside a checkpoint: the whole provenance of its training, with times and machine.

    checkpoint_2.pt.manifest.json       tells people and the workflow that the checkpoint is whole
    .checkpoint_2.pt.emsuite            the public part of it, which stays

Snakemake removes the manifest before it runs the rule again, and a training that has nothing to do knows nothing of the
times of the first one: the checkpoint itself holds none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.files import sha256, write_json
from emsuite.common.outputs import manifest_path, written
from emsuite.common.provenance import ordered, published

ONLY_BEST = "is_only_best"
"""The key of a checkpoint that a better one replaces: nobody has asked for its iteration."""


def write_manifest(path: Path, iteration: int, provenance: Mapping[str, Any]) -> None:
    """Write the manifest of the checkpoint at `path`, and what stays of it."""
    manifest = {**provenance, "iteration": iteration, "written": written(path)} | ordered()
    write_json(manifest_path(path), manifest)
    write_json(_kept(path), published(manifest))


def is_only_best(path: Path) -> bool:
    """Return whether the checkpoint at `path` was written for its validation loss alone; False if that is unknown."""
    kept = read_json(_kept(path))
    return isinstance(kept, dict) and kept.get(ONLY_BEST) is True


def remove_manifest(path: Path) -> None:
    """Remove the manifest of the checkpoint at `path`, and what stays of it."""
    manifest_path(path).unlink(missing_ok=True)
    _kept(path).unlink(missing_ok=True)


def renew_manifest(path: Path, iteration: int, provenance: Mapping[str, Any], made_from: Mapping[str, str]) -> None:
    """Write the manifest again, with what stayed of the first one if that is of this checkpoint.

    Args:
        path: of the checkpoint.
        iteration: that it holds.
        provenance: what the checkpoint itself holds of it.
        made_from: which runs made what it was trained on, and the weights of its frozen network.
    """
    kept = read_json(_kept(path))
    files = kept.get("written") if isinstance(kept, dict) else None
    if isinstance(files, dict) and files.get("sha256") == sha256(path):
        provenance = {key: value for key, value in kept.items() if key != "order"}
    known = {"made_from": dict(made_from)} if made_from else {}
    write_manifest(path, iteration, {**provenance, **known})


def _kept(path: Path) -> Path:
    return path.with_name(f".{path.name}.emsuite")
