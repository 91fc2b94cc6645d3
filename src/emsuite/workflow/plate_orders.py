"""The order of each step of plates.smk, see `orders`: what decides on its output, and which steps it follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emsuite.config.trained_with import differences, of_earlier_version, record, settings_of_images, weight_settings
from emsuite.plates.preprocess import inputs_of, is_preprocessed
from emsuite.training.trained_network import weights_read
from emsuite.workflow.inputs import input_state, states_named_by
from emsuite.workflow.orders import Order, order_of
from emsuite.workflow.plates import PlatePlan


@dataclass(frozen=True)
class PlateOrders:
    """The orders of one run over a plate, for its `plan`."""

    plan: PlatePlan

    def write_all(self) -> None:
        """Bring the files of all orders up to date, before Snakemake looks at any file."""
        made_here = () if self.plan.config.plate else (self.synthesize(), self.index())
        for order in (*made_here, self.preprocess(), self.train(), self.predict(), self.evaluate()):
            order.write()

    def synthesize(self) -> Order:
        """Return the order to make the frames of the synthetic set."""
        return order_of({"set": "label-free"}, self.plan.frames, is_asked=lambda _: True)

    def index(self) -> Order:
        """Return the order to write these frames as a plate."""
        return order_of(
            {}, self.plan.plate, after=(self.synthesize(),), reads=(self.plan.frames,), is_asked=lambda _: True
        )

    def preprocess(self) -> Order:
        """Return the order to preprocess the plate."""
        plan, after = self.plan, () if self.plan.config.plate else (self.index(),)
        given = {name: path for name, path in inputs_of(plan.preprocessing).items() if path != plan.plate or not after}
        asked = {"steps": plan.steps.model_dump(mode="json", exclude={"input", "output"})}
        return order_of(
            asked | {"inputs": {f"{name} {path}": input_state(path) for name, path in given.items()}},
            plan.ready,
            after=after,
            reads=(plan.plate,) if after else (),
            is_asked=lambda _: is_preprocessed(plan.preprocessing),
        )

    def train(self) -> Order:
        """Return the order to train the network."""
        return order_of(
            {"settings": weight_settings(self.plan.network), "named": states_named_by(self.plan.network)},
            self.plan.checkpoint,
            after=(self.preprocess(),),
            reads=(self.plan.ready, *weights_read(self.plan.folder, self.plan.network)),
            beside=(self.plan.log / "train.tsv",),
            is_asked=self._trained_so,
        )

    def predict(self) -> Order:
        """Return the order to predict all positions."""
        return order_of(
            {"settings": settings_of_images(self.plan.network)},
            self.plan.results / "plate.zarr",
            after=(self.train(),),
            reads=(self.plan.checkpoint, self.plan.ready),
            beside=(self.plan.log / "predict.tsv",),
        )

    def evaluate(self) -> Order:
        """Return the order to score the test positions."""
        return order_of(
            {"masks": self.plan.mask_options},
            self.plan.scores,
            after=(self.predict(),),
            reads=(self.plan.results / "plate.zarr", self.plan.ready),
        )

    def _trained_so(self, about: Mapping[str, Any]) -> bool:
        earlier = of_earlier_version(about.get("settings"))
        return earlier is not None and not differences(earlier, record(self.plan.network, [], None))
