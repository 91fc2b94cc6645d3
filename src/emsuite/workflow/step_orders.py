"""The order of each step of the plan, see `orders`: what decides on its output, besides those of earlier steps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.settings import as_options
from emsuite.config.parts import VolumePart
from emsuite.data.labels_mask import masks_path
from emsuite.io.volume import LABELS, MASK, RAW
from emsuite.segmentation.settings import (
    AgglomerationSettings,
    BlockSettings,
    ContextSettings,
    FragmentSettings,
    SweepSettings,
)
from emsuite.workflow.inputs import states
from emsuite.workflow.orders import Order
from emsuite.workflow.plan import WorkflowPlan


@dataclass(frozen=True)
class StepOrders:
    """The orders of one run of the workflow, for its `plan`."""

    plan: WorkflowPlan

    def write_all(self) -> None:
        """Bring the files of all orders of the plan up to date, before Snakemake looks at any file.

        Steps that the plan does not need have no file: other iterations, other volumes of the data set.
        """
        plan = self.plan
        volumes = {part.volume for part in (*plan.train_parts, *plan.test_parts.values())}
        orders = [self.volume(volume.stem) for volume in sorted(volumes) if plan.is_managed(volume)]
        orders += [self.masks(volume) for volume in plan.masked_volumes]
        orders += [self.train(network, iterations) for network, iterations in plan.trainings]
        steps = self.predict, self.extract_fragments, self.agglomerate, self.find_segments, self.evaluate
        orders += [step(part) for part in plan.test_parts for step in (*steps, self.extract_segmentation)]
        for order in orders:
            order.write()

    def volume(self, name: str) -> Order:
        """Return the order to fetch or synthesize a volume."""
        dataset, plan = self.plan.dataset, self.plan
        source = dataset.synthesis_options(name) if dataset.synthesis else [str(dataset.bucket), dataset.prefix]
        return _order({"source": source}, dataset.volume_path(name, plan.config.data), is_volume=True)

    def masks(self, volume: Path) -> Order:
        """Return the order to write the mask of a volume."""
        asked = {"rule": self.plan.dataset.mask.model_dump(mode="json")}
        return _order(asked | self._inputs([VolumePart(volume=volume)], LABELS), masks_path(volume), is_volume=True)

    def train(self, network: str, iterations: int) -> Order:
        """Return the order to train a network, `small` or `small/runs/NAME`, up to an iteration."""
        plan = self.plan
        asked = {
            "settings": json.loads(plan.training_settings(network)),
            "data": plan.training_data_options,
            "seed": as_options(plan.config, ["seed"]),
        } | self._inputs(plan.train_parts, RAW, LABELS, MASK)
        return _order(asked, plan.networks / network / "checkpoints" / f"checkpoint_{iterations}.pt")

    def predict(self, part: str) -> Order:
        """Return the order to predict a scored part."""
        tested = self.plan.test_parts[part]
        asked = {
            "settings": json.loads(self.plan.prediction_settings),
            "raw": str(tested.volume),
            "roi": as_options(tested, ["roi"]),
        } | self._inputs([tested], RAW)
        return _order(asked, self._result(part, "prediction.zarr"))

    def extract_fragments(self, part: str) -> Order:
        """Return the order to find the fragments of a part."""
        return self._segmentation(part, "fragments.zarr", FragmentSettings, BlockSettings, also="graph/nodes")

    def agglomerate(self, part: str) -> Order:
        """Return the order to score the edges between the fragments of a part."""
        return self._segmentation(part, "graph/edges", AgglomerationSettings, ContextSettings)

    def find_segments(self, part: str) -> Order:
        """Return the order to merge fragments at every threshold."""
        return self._segmentation(part, "lookup", SweepSettings)

    def evaluate(self, part: str) -> Order:
        """Return the order to score the segments of a part."""
        plan, tested = self.plan, self.plan.test_parts[part]
        asked = {
            "truth": plan.truth_option(tested),
            "skeletons": plan.skeletons_option(tested),
            "edges": plan.edges_option(part),
            "roi": as_options(tested, ["roi"]),
        } | self._inputs([tested], RAW, LABELS, MASK, with_skeletons=True)
        return _order(asked, self._result(part, "scores.json"))

    def extract_segmentation(self, part: str) -> Order:
        """Return the order to write the segmentation at the best threshold."""
        return _order({"threshold": "best"}, self._result(part, "segmentation.zarr"))

    def _segmentation(self, part: str, output: str, *settings: Any, also: str | None = None) -> Order:
        asked = {"options": [as_options(self.plan.segmentation, kind) for kind in settings]}
        asked["affinities"] = [[self.plan.affinities_head]]
        return _order(asked, *(self._result(part, name) for name in (output, also) if name))

    def _inputs(self, parts: list[VolumePart], *arrays: str, with_skeletons: bool = False) -> dict[str, Any]:
        return {"inputs": states(self.plan, parts, *arrays, with_skeletons=with_skeletons)}

    def _result(self, part: str, name: str) -> Path:
        return self.plan.results / part / name


def _order(asked: Mapping[str, Any], *outputs: Path, is_volume: bool = False) -> Order:
    return Order(json.dumps(asked, sort_keys=True, default=str), outputs, is_volume)
