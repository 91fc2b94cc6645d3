"""What is said at the end of a run: the scores of its own parts, and whether the network was trained on them."""

import math
from pathlib import Path

from emsuite.common.documents import read_json
from emsuite.config.parts import VolumePart
from emsuite.evaluation.summary import summary
from emsuite.workflow.plan import WorkflowPlan

HELD_OUT, TRAINED_ON, VALIDATED_ON = "held out", "trained on", "validated on"


def run_summary(plan: WorkflowPlan, viewer: str) -> str:
    """Return a text about the parts that this run has scored, in the order of the plan; empty if there are none.

    Args:
        plan: that of the run. Results of other volumes, or of earlier runs, in the same folder do not count.
        viewer: the command that shows a volume; the folder of its results is appended.
    """
    folders = {plan.results / name: part for name, part in plan.test_parts.items()}
    scored = {folder: part for folder, part in folders.items() if (folder / "scores.json").exists()}
    roles = {folder: role_in_training(plan, part) for folder, part in scored.items()}
    titles = {folder: f"{folder.name}, {role}" if role else folder.name for folder, role in roles.items()}
    return summary(list(scored), viewer, titles) if scored else ""


def role_in_training(plan: WorkflowPlan, part: VolumePart) -> str | None:
    """Return what `part` was to the network: `trained on`, `validated on`, or `held out`; None: unknown.

    The first two share voxels with it. Validation has chosen among the weights, or could have.

    The plan does not know what weights were trained on that it took as they are: converted, or of other data, or that
    were trained on other data before.
    """
    if any(_overlap(part, trained, plan.project) for trained in plan.train_parts):
        return TRAINED_ON
    if any(_overlap(part, held, plan.project) for held in plan.validation_parts(plan.network_name)):
        return VALIDATED_ON
    records = [plan.checkpoint_manifest(network, iterations) for network, iterations in plan.trainings]
    were_trained = all(_was_trained(plan.project / record) for record in records)
    return HELD_OUT if were_trained and plan.config.if_changed == "refuse" else None


def _was_trained(record: Path) -> bool:
    content = read_json(record)
    settings = content.get("settings") if isinstance(content, dict) else None
    is_mixed = isinstance(content, dict) and content.get("continued_with_other_data")
    return isinstance(settings, dict) and "training" in settings and not is_mixed


def _overlap(one: VolumePart, other: VolumePart, project: Path) -> bool:
    if (project / one.volume).resolve() != (project / other.volume).resolve():
        return False
    axes = zip(_ranges(one), _ranges(other), strict=True)
    return all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in axes)


def _ranges(part: VolumePart) -> list[tuple[float, float]]:
    """Return begin and end of each axis, nm; those of the volume count as infinitely far away."""
    ranges = (axis.split(":") for axis in (part.roi or ":,:,:").split(","))
    return [
        (float(low) if low.strip() else -math.inf, float(high) if high.strip() else math.inf) for low, high in ranges
    ]
