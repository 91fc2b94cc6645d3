"""The settings that decide the bytes of a prediction, and their comparison with those of an earlier run or version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput, without_secrets
from emsuite.common.geometry import Roi
from emsuite.common.outputs import Upgrade, read_manifest, unfinished_settings
from emsuite.common.provenance import recorded_settings
from emsuite.config.network import NetworkConfig, upgraded
from emsuite.config.trained_with import Record
from emsuite.data.grey_values import reopened
from emsuite.io.fingerprint import voxels_or_times
from emsuite.io.regions import format_roi
from emsuite.io.volume import Volume, is_url
from emsuite.prediction.predictor import Predictor
from emsuite.prediction.region import in_nm, in_voxels
from emsuite.prediction.request import Request
from emsuite.prediction.tiling import Tiling

_VOXELS = "raw_voxels"


def prediction_settings(
    config: NetworkConfig,
    iteration: int,
    weights: str,
    raw: Volume,
    roi: Roi,
    tiling: Tiling,
    trained_with: Record | None = None,
) -> dict[str, Any]:
    """Return the settings of a prediction that are known before its tiles.

    See `Predictor.settings` and `voxels_read` for the others.

    Args:
        config: the configuration of the network.
        iteration: of the checkpoint.
        weights: their digest.
        raw: the volume.
        roi: the region that is predicted, nm.
        tiling: where tiles lie and how their outputs are put together.
        trained_with: what the checkpoint was trained with, which may differ from `config` of today; None: unknown.
    """
    network = config.model_dump(mode="json")
    if trained_with is not None:
        network["training"] |= trained_with["settings"].get("training", {})
    rest = {"weights": weights, "raw": str(raw.path), "roi": format_roi(roi), "tiles": tiling.name}
    return {"network": network, "iteration": iteration} | rest


def voxels_read(predictor: Predictor, raw: Volume, roi: Roi) -> dict[str, str]:
    """Return the setting that changes with the voxels of raw that tiles of `roi` (nm) read, and with no others."""
    reader, region = predictor, in_voxels(raw, roi)
    if predictor.lsds:
        region = predictor.reads(predictor.grid(raw, region)).intersect(predictor.whole(raw))
        reader = predictor.lsds
    read = reader.reads(reader.grid(raw, region)).intersect(in_voxels(raw, raw.roi))
    return {_VOXELS: voxels_or_times(raw, in_nm(raw, read))}


def check_unchanged(settings: Mapping[str, Any], predictor: Predictor, raw: Volume, roi: Roi) -> None:
    """Raise BadInput if the voxels of a server are not those of `settings` any more: nothing else tells of a change."""
    if not is_url(raw.path) or _VOXELS not in settings:
        return
    if voxels_read(predictor, reopened(raw), roi)[_VOXELS] != settings[_VOXELS]:
        raise BadInput(f"{without_secrets(str(raw.path))}: was replaced or edited while it was read; run this again")


def decided_settings(settings: Mapping[str, Any], predictor: Predictor, raw: Volume, roi: Roi) -> dict[str, Any]:
    """Return all settings that decide the bytes: those given, the predictor's, and the voxels that are read."""
    return {**settings, **predictor.settings, **voxels_read(predictor, raw, roi)}


def same_weights(settings: Mapping[str, Any]) -> Upgrade:
    """Return a function that puts earlier settings in today's words and, for the same weights, in today's `training`.

    How weights were trained is recorded. What decides the bytes of a prediction are the weights, by their digest.
    """

    def upgrade(earlier: dict[str, Any]) -> dict[str, Any]:
        earlier = _with_times(_with_later_keys(upgraded(earlier), settings), settings)
        before, now = earlier.get("network"), settings.get("network")
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            return earlier
        if earlier.get("weights") != settings.get("weights"):
            return earlier
        return earlier | {"network": {**before, "training": now.get("training")}}

    return upgrade


def _with_later_keys(earlier: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return earlier settings with the keys that earlier versions did not know.

    They had no mask and one compression. That they computed tiles of constant raw is no reason to predict once more.
    The voxels of raw, which they did not record, count as today's.
    """
    defaults = Request().settings | {key: settings.get(key) for key in ("constant", _VOXELS)}
    return {key: default for key, default in defaults.items() if key in settings} | earlier


def _with_times(earlier: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return earlier settings with today's times of files, where an earlier version recorded names and sizes alone."""
    today = {key: str(settings.get(key)) for key in (_VOXELS, "mask_voxels")}
    return earlier | {key: told for key, told in today.items() if told.rpartition(" ")[0] == earlier.get(key)}


def earlier_input_shape(out: Path, settings: Mapping[str, Any]) -> Shape | None:
    """Return the input shape that an earlier run with the same `settings` used for `out`, or None.

    Reusing it keeps earlier tiles valid even if less memory is free now. Original tiles have one shape alone.
    """
    if settings["tiles"].startswith("original"):
        return None
    today, upgrade = json.loads(json.dumps(settings)), same_weights(settings)
    for earlier in (recorded_settings(read_manifest(out)), unfinished_settings(out)):
        if not isinstance(earlier, dict) or not isinstance(earlier.get("input_shape"), list):
            continue
        if upgrade(earlier) | today == upgrade(earlier):
            return tuple(earlier["input_shape"])
    return None
