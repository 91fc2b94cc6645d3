"""The order of each step of the plan, see `orders`: what decides on its output, and which steps it follows."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.settings import Settings, as_options
from emsuite.config.parts import VolumePart
from emsuite.data.labels_mask import masks_path
from emsuite.data.membranes import labels_path
from emsuite.io.volume import LABELS, MASK, RAW
from emsuite.segmentation.instances.settings import InstanceSettings
from emsuite.segmentation.settings import (
    AgglomerationSettings,
    BlockSettings,
    ContextSettings,
    FragmentSettings,
    ScoringSettings,
    SweepSettings,
)
from emsuite.training.trained_network import start_path
from emsuite.workflow import made_by_hand
from emsuite.workflow.inputs import log_name, states, states_named_by
from emsuite.workflow.orders import Order, order_of
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
        orders = [order for part in plan.parts for order in self._fetched(part)]
        orders += [self.labels(volume) for volume in plan.labelled_volumes]
        orders += [self.masks(volume) for volume in plan.masked_volumes]
        orders += [self.train(network, iterations) for network, iterations in reversed(plan.trainings)]
        orders += [step(part) for part in plan.test_parts for step in (self.predict, *self._segmentation_steps)]
        for order in {order.path: order for order in orders}.values():
            order.write()

    @property
    def _segmentation_steps(self) -> tuple[Callable[[str], Order], ...]:
        if self.plan.instance_heads:
            return self.decode_instances, self.evaluate
        of_affinities = self.extract_fragments, self.agglomerate, self.find_segments
        return *of_affinities, self.evaluate, self.extract_segmentation

    def volume(self, name: str) -> Order:
        """Return the order to fetch or synthesize a volume."""
        dataset, plan = self.plan.dataset, self.plan
        source = dataset.synthesis_options(name) if dataset.synthesis else [str(dataset.bucket), dataset.prefix]
        if dataset.files:
            source = [dataset.files[name].url, dataset.files[name].sha256]
        benchmark = ("synthesize_" if dataset.synthesis else "fetch_") + f"{name}.tsv"
        path = dataset.volume_path(name, plan.config.data)
        return order_of({"source": source}, path, is_volume=True, beside=(self._log(benchmark),))

    def labels(self, volume: Path) -> Order:
        """Return the order to make the labels of a volume from membranes."""
        part, rule = VolumePart(volume=volume), self.plan.dataset.labels
        assert rule is not None, volume
        asked = {"rule": rule.model_dump(mode="json")} | self._inputs([part], rule.membranes)
        benchmark = self._log(f"labels/{log_name(self.plan, volume)}.tsv")
        return order_of(asked, labels_path(volume), is_volume=True, after=self._fetched(part), beside=(benchmark,))

    def masks(self, volume: Path) -> Order:
        """Return the order to write the mask of a volume."""
        part = VolumePart(volume=volume)
        asked = {"rule": self.plan.dataset.mask.model_dump(mode="json")} | self._inputs([part], LABELS)
        benchmark = self._log(f"masks/{log_name(self.plan, volume)}.tsv")
        after = (self.labels(volume),) if volume in self.plan.labelled_volumes else self._fetched(part)
        return order_of(asked, masks_path(volume), is_volume=True, after=after, beside=(benchmark,))

    def train(self, network: str, iterations: int) -> Order:
        """Return the order to train a network, `small` or `small/runs/NAME`, up to an iteration."""
        plan = self.plan
        asked = {
            "settings": json.loads(plan.training_settings(network)),
            "data": plan.training_data_options,
            "seed": as_options(plan.config, ["seed"]),
        } | self._inputs(plan.train_parts, RAW, LABELS, MASK)
        held_out = plan.validation_parts(network)
        if held_out:
            asked |= {"validation": self._inputs(held_out, RAW, LABELS, MASK)}
        if named := states_named_by(plan.config_of(network)):
            asked |= {"named": named}
        frozen = [self.train(*training) for training in plan.frozen_training(network)]
        begun = [path for path in [start_path(plan.networks / network, plan.config_of(network))] if path is not None]
        after = (*self._masked([*plan.train_parts, *held_out]), *frozen)
        return order_of(
            asked,
            self._checkpoint(network, iterations),
            after=after,
            reads=(*(self._checkpoint(*training) for training in plan.frozen_training(network)), *begun),
            beside=(self._log(f"train_{network}_{iterations}.tsv"),),
            is_asked=lambda record: made_by_hand.training(record, plan, network),
        )

    def predict(self, part: str) -> Order:
        """Return the order to predict a scored part."""
        plan, tested = self.plan, self.plan.test_parts[part]
        asked = {
            "settings": json.loads(plan.prediction_settings),
            "raw": str(tested.volume),
            "roi": as_options(tested, ["roi"]),
        } | self._inputs([tested], RAW)
        checkpoint = self._checkpoint(plan.network_name, plan.iterations)
        return order_of(
            asked,
            self._result(part, "prediction.zarr"),
            after=(self.train(plan.network_name, plan.iterations), *self._fetched(tested)),
            reads=(checkpoint,),
            beside=self._benchmark(part, "predict"),
            is_asked=lambda record: made_by_hand.prediction(record, plan, tested, checkpoint),
        )

    def extract_fragments(self, part: str) -> Order:
        """Return the order to find the fragments of a part."""
        return self._segmentation(
            part,
            "extract_fragments",
            ("fragments.zarr", "graph/nodes"),
            (FragmentSettings, BlockSettings),
            after=(self.predict(part),),
            reads=("prediction.zarr",),
        )

    def agglomerate(self, part: str) -> Order:
        """Return the order to score the edges between the fragments of a part."""
        return self._segmentation(
            part,
            "agglomerate",
            ("graph/edges",),
            (AgglomerationSettings, ContextSettings),
            after=(self.predict(part), self.extract_fragments(part)),
            reads=("prediction.zarr", "fragments.zarr"),
        )

    def find_segments(self, part: str) -> Order:
        """Return the order to merge fragments at every threshold."""
        return self._segmentation(
            part,
            "find_segments",
            ("lookup",),
            (SweepSettings,),
            after=(self.extract_fragments(part), self.agglomerate(part)),
            reads=("graph/nodes", "graph/edges"),
        )

    def evaluate(self, part: str) -> Order:
        """Return the order to score the segments of a part."""
        plan, tested = self.plan, self.plan.test_parts[part]
        edges = self._edges_option(part)
        asked = {
            "truth": plan.volumes.truth_option(tested.volume, plan.dataset_option),
            "skeletons": plan.volumes.skeletons_option(tested.volume),
            "edges": edges,
            "roi": as_options(tested, ["roi"]),
        } | self._inputs([tested], RAW, LABELS, MASK, with_skeletons=True)
        scoring = as_options(plan.segmentation, ScoringSettings)
        if scoring != as_options(ScoringSettings(), ScoringSettings):  # orders of earlier versions knew none
            asked["scoring"] = scoring
        read = [name for name in self.scored if edges or name != "graph/edges"]
        written = ("scores.csv", "errors.csv", "report.html", "curves", "sections", "log/evaluate.tsv")
        return order_of(
            asked,
            self._result(part, "scores.json"),
            after=(self._segmented(part), *self._masked([tested])),
            reads=tuple(self._result(part, name) for name in read),
            beside=tuple(self._result(part, name) for name in written),
        )

    @property
    def scored(self) -> tuple[str, ...]:
        """The outputs that evaluation reads or waits for, below the folder of a part."""
        of_affinities = ("prediction.zarr", "fragments.zarr", "lookup", "graph/edges")
        return ("segmentation.zarr",) if self.plan.instance_heads else of_affinities

    def scored_options(self, part: str) -> list[str]:
        """Return the options that name what is scored: fragments at every threshold, or instances."""
        if self.plan.instance_heads:
            return ["--segmentation", str(self._result(part, "segmentation.zarr/segmentation"))]
        names = {"fragments": "fragments.zarr/fragments", "lookup": "lookup"}
        names["affs"] = f"prediction.zarr/{self.plan.affinities_head}"
        words = [word for key, name in names.items() for word in (f"--{key}", str(self._result(part, name)))]
        return [*words, *self._edges_option(part)]

    def _edges_option(self, part: str) -> list[str]:
        return [] if self.plan.instance_heads else self.plan.edges_option(part)

    def decode_instances(self, part: str) -> Order:
        """Return the order to decode the instances of a part."""
        settings = self.plan.segmentation
        options = [as_options(settings.instances, InstanceSettings), as_options(settings, ["block_size"])]
        return order_of(
            {"options": options, "heads": self.plan.instance_heads},
            self._result(part, "segmentation.zarr"),
            after=(self.predict(part),),
            reads=(self._result(part, "prediction.zarr"),),
            beside=self._benchmark(part, "decode_instances"),
        )

    def _segmented(self, part: str) -> Order:
        """Return the order of what is scored."""
        return self.decode_instances(part) if self.plan.instance_heads else self.find_segments(part)

    def extract_segmentation(self, part: str) -> Order:
        """Return the order to write the segmentation at the best threshold."""
        return order_of(
            {"threshold": "best"},
            self._result(part, "segmentation.zarr"),
            after=(self.evaluate(part),),
            reads=tuple(self._result(part, name) for name in ("fragments.zarr", "lookup", "scores.json")),
            beside=self._benchmark(part, "extract_segmentation"),
        )

    def _segmentation(
        self,
        part: str,
        step: str,
        outputs: tuple[str, ...],
        kinds: tuple[type[Settings], ...],
        after: tuple[Order, ...],
        reads: tuple[str, ...],
    ) -> Order:
        settings = self.plan.segmentation
        asked = {"options": [as_options(settings, kind) for kind in kinds]}
        asked["affinities"] = [[self.plan.affinities_head]]
        paths = [[self._result(part, name) for name in names] for names in (outputs, reads)]
        return order_of(
            asked,
            *paths[0],
            after=after,
            reads=tuple(paths[1]),
            beside=self._benchmark(part, step),
            is_asked=lambda record: made_by_hand.segmentation(record, settings, kinds, self.plan.affinities_head),
        )

    def _fetched(self, part: VolumePart) -> tuple[Order, ...]:
        """Return the order of the volume of a part, if the workflow makes it."""
        return (self.volume(part.volume.stem),) if self.plan.volumes.is_managed(part.volume) else ()

    def _masked(self, parts: Iterable[VolumePart]) -> tuple[Order, ...]:
        """Return the orders of the masks of parts, or of the volumes of those that get none."""
        masked, orders = self.plan.masked_volumes, dict[Path, Order]()
        for part in parts:
            for order in (self.masks(part.volume),) if part.volume in masked else self._fetched(part):
                orders[order.path] = order
        return tuple(orders.values())

    def _inputs(self, parts: list[VolumePart], *arrays: str, with_skeletons: bool = False) -> dict[str, Any]:
        return {"inputs": states(self.plan, parts, *arrays, with_skeletons=with_skeletons)}

    def _checkpoint(self, network: str, iterations: int) -> Path:
        return self.plan.networks / network / "checkpoints" / f"checkpoint_{iterations}.pt"

    def _benchmark(self, part: str, step: str) -> tuple[Path, ...]:
        return (self._result(part, f"log/{step}.tsv"),)

    def _log(self, name: str) -> Path:
        return self.plan.results / "log" / name

    def _result(self, part: str, name: str) -> Path:
        return self.plan.results / part / name
