"""Whether an output without an order is what the plan asks for: one of an earlier version, or of a stage run by hand.

Its manifest records settings and inputs. Where these do not decide, as on the region that a network was trained in, the
answer is no, and the step runs again. Scores and segmentations are always made again: they take little time.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsuite.common.errors import EmsuiteError
from emsuite.common.provenance import public_path, recorded_checksum, without_paths
from emsuite.common.settings import Settings
from emsuite.config.network import upgraded
from emsuite.config.parts import VolumePart
from emsuite.config.trained_with import of_earlier_version
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.volume import RAW, fingerprint, open_volume
from emsuite.segmentation.settings import BlockSettings, SweepSettings, parse_thresholds
from emsuite.workflow.plan import WorkflowPlan

_BY_DEFAULT = {"tiles": "stride", "mask": None, "constant": "skip"}
"""Settings of a prediction that the workflow does not change; earlier versions may not have recorded them."""

_IN_SECTIONS = {"segments_in_sections": False}
"""A setting of the segmentation that is recorded where it is set."""


def training(record: Mapping[str, Any], plan: WorkflowPlan, network: str) -> bool:
    """Return whether a checkpoint was trained with the settings of the plan and on its parts."""
    settings = record.get("settings")
    trained = of_earlier_version(settings)
    if trained is None or not isinstance(settings, Mapping):
        return False
    asked = json.loads(plan.training_settings(network))
    if plan.config.seed is not None:
        asked["training"]["sampling"]["seed"] = plan.config.seed
    for compared in (asked, trained["settings"]):
        compared["training"]["sampling"].pop("probabilities", None)  # those of the split
    return bool(asked == trained["settings"]) and _is_same_data(record, plan)


def _is_same_data(record: Mapping[str, Any], plan: WorkflowPlan) -> bool:
    inputs = record.get("inputs")
    paths = [part.get("path") for part in inputs.values() if isinstance(part, dict)] if isinstance(inputs, dict) else []
    if paths != [public_path(part.volume) for part in plan.train_parts]:
        return False
    words = record.get("command")
    given = _after("--data", words if isinstance(words, list) else [])
    if given:
        return given == without_paths(_after("--data", plan.training_data_options))
    recorded = record["settings"].get("training", {}).get("split")
    return plan.config.train is None and recorded == (plan.config.split or plan.network.training.split)


def _after(option: str, words: list[Any]) -> list[Any]:
    return [value for word, value in itertools.pairwise(words) if word == option]


def prediction(record: Mapping[str, Any], plan: WorkflowPlan, part: VolumePart, checkpoint: Path) -> bool:
    """Return whether a prediction is that of a checkpoint, for a scored part, with the settings of the plan."""
    settings = record.get("settings")
    if not isinstance(settings, Mapping):
        return False
    network = upgraded({"network": settings.get("network") or {}})["network"]
    fits = (
        network.get("prediction") == plan.network.prediction.model_dump(mode="json")
        and settings.get("iteration") == plan.iterations
        and all(settings.get(key, default) == default for key, default in _BY_DEFAULT.items())
    )
    try:
        raw = open_volume(part.volume / RAW)
        region = raw.roi if part.roi is None else parse_roi(part.roi, raw)
        inputs = {"raw": raw.path, "checkpoint": checkpoint}
        same = all(recorded_checksum(record, name) == fingerprint(path) for name, path in inputs.items())
    except EmsuiteError:
        return False
    return fits and same and settings.get("roi") == format_roi(region)


def segmentation(
    record: Mapping[str, Any], settings: Settings, kinds: tuple[type[Settings], ...], affinities: str
) -> bool:
    """Return whether a stage of the segmentation was run with these kinds of settings, on an array of affinities."""
    recorded = record.get("settings")
    if not isinstance(recorded, Mapping) or recorded.get("mask") is not None:
        return False
    if "affs" in recorded and Path(str(recorded["affs"])).name != affinities:
        return False
    asked: dict[str, Any] = {}
    for kind in kinds:
        asked |= {key: getattr(settings, key) for key in kind.model_fields}
    if SweepSettings in kinds:
        asked["thresholds"] = parse_thresholds(asked["thresholds"])
    if record.get("blocks") == 1:  # whatever their size, and what is read around them
        asked = {key: value for key, value in asked.items() if key not in BlockSettings.model_fields}
    return bool(json.loads(json.dumps(asked)) == {key: recorded.get(key, _IN_SECTIONS.get(key)) for key in asked})
