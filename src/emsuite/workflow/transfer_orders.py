"""The order of each step of transfer.smk, see `orders`: what decides on its output, and which steps it follows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.outputs import manifest_path
from emsuite.common.state.origins import identity
from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import weight_settings
from emsuite.io.volume import LABELS, MASK, RAW
from emsuite.training.trained_network import weights_read
from emsuite.workflow.inputs import AS_WRITTEN, changed_since, input_state, note, states_named_by
from emsuite.workflow.orders import Order, order_of
from emsuite.workflow.transfer import TransferPlan


@dataclass(frozen=True)
class TransferOrders:
    """The orders of one chain of domain transfer, for its `plan`."""

    plan: TransferPlan

    def write_all(self) -> None:
        """Bring the files of all orders of the plan up to date, before Snakemake looks at any file."""
        steps = (self.train_segmenter, self.predict, self.decode_instances, self.evaluate)
        orders = [step(arm) for arm in self.plan.config.arms for step in steps]
        every = dict[Path, Order]()
        for order in orders:
            every |= {each.path: each for each in (*_before(order), order)}
        for order in every.values():
            order.write()

    def look(self, name: str) -> Order:
        """Return the order to change the volume `b`, `test` or `own` into look B."""
        source, roi = self.plan.looks[name]
        config = self.plan.config
        asked = {"look": config.look, "set": config.set, "source": str(source), "roi": roi}
        arrays = (RAW,) if name == "b" else (RAW, LABELS, MASK)
        return order_of(asked | self._inputs(source, *arrays), self.plan.volume(name))

    def train_transfer(self) -> Order:
        """Return the order to train domain transfer."""
        plan = self.plan
        arrays = (RAW, LABELS, MASK) if plan.reads_labels else (RAW,)
        asked = {"settings": weight_settings(plan.transfer), "domains": plan.domains}
        asked |= _named(plan.transfer)
        asked |= self._inputs(plan.config.labelled, *arrays)
        weights, log = weights_read(plan.transfer_folder, plan.transfer), plan.results / "log/train_transfer.tsv"
        return self._training(asked, "b", (RAW,), plan.transfer_checkpoint, reads=weights, beside=(log,))

    def transfer(self) -> Order:
        """Return the order to give the labelled images look B."""
        plan = self.plan
        asked = _prediction(plan.transfer) | {"roi": plan.config.labelled_roi}
        return order_of(
            asked | self._inputs(plan.config.labelled, RAW),
            plan.results / "transferred.zarr",
            after=(self.train_transfer(),),
            reads=(plan.transfer_checkpoint,),
        )

    def pair(self) -> Order:
        """Return the order to pair the images with their labels."""
        transferred, pairs = (self.plan.results / name for name in ("transferred.zarr", "pairs.zarr"))
        asked = self._inputs(self.plan.config.labelled, LABELS, MASK)
        return order_of(asked, pairs, after=(self.transfer(),), reads=(transferred,))

    def train_segmenter(self, arm: str) -> Order:
        """Return the order to train the segmenter of an arm."""
        plan = self.plan
        asked = {"settings": weight_settings(plan.segmenter), "data": plan.training_volume(arm)}
        asked |= _named(plan.segmenter)
        checkpoint, benchmark = plan.segmenter_checkpoint(plan.arm_run(arm)), self._result(arm, "log/train.tsv")
        weights = weights_read(plan.segmenter_folder(plan.arm_run(arm)), plan.segmenter)
        if arm == "transferred":
            pairs = self.pair()
            return order_of(asked, checkpoint, after=(pairs,), reads=(*pairs.outputs, *weights), beside=(benchmark,))
        if arm == "own":
            return self._training(asked, "own", (), checkpoint, reads=weights, beside=(benchmark,))
        asked |= self._inputs(plan.config.labelled, RAW, LABELS, MASK)
        return order_of(asked, checkpoint, reads=weights, beside=(benchmark,))

    def predict(self, arm: str) -> Order:
        """Return the order to predict the images to score on."""
        asked, after = self._of_look("test", RAW)
        return order_of(
            asked | _prediction(self.plan.segmenter) | {"roi": self.plan.config.test_roi},
            self._result(arm, "prediction.zarr"),
            after=(self.train_segmenter(arm), *after),
            reads=(self.plan.segmenter_checkpoint(self.plan.arm_run(arm)),),
        )

    def decode_instances(self, arm: str) -> Order:
        """Return the order to decode instances."""
        return order_of(
            {"options": self.plan.decoding_options, "heads": self.plan.instance_heads},
            self._result(arm, "segmentation.zarr"),
            after=(self.predict(arm),),
            reads=(self._result(arm, "prediction.zarr"),),
        )

    def evaluate(self, arm: str) -> Order:
        """Return the order to score the instances."""
        asked, after = self._of_look("test", RAW, LABELS, MASK)
        asked |= {"roi": self.plan.config.test_roi, "scoring": self.plan.scoring_options, "mask": self.plan.mask_option}
        written = ("scores.csv", "errors.csv", "report.html", "curves", "sections")
        return order_of(
            asked,
            self._result(arm, "scores.json"),
            after=(self.decode_instances(arm), *after),
            reads=(self._result(arm, "segmentation.zarr"),),
            beside=tuple(self._result(arm, name) for name in written),
        )

    def changed_inputs(self) -> list[str]:
        """Return the paths of the arrays that have changed since the last run of this plan that ended well."""
        return changed_since(self._seen, self._all_states())

    def note_inputs(self, only_if_new: bool = False) -> None:
        """Write the states of all arrays, as this process has seen them, for the next run."""
        note(self._seen, self._all_states(), only_if_new)

    @property
    def _seen(self) -> Path:
        return self.plan.results / "log/inputs.json"

    def _all_states(self) -> dict[str, str]:
        config = self.plan.config
        arrays = {config.other: {RAW}, config.labelled: {RAW, LABELS, MASK}}
        arrays[config.test] = arrays.get(config.test, set()) | {RAW, LABELS, MASK}
        return {path: told for volume, names in arrays.items() for path, told in _states(volume, sorted(names)).items()}

    def _training(self, asked: Mapping[str, Any], name: str, arrays: tuple[str, ...], to: Path, **more: Any) -> Order:
        """Return the order of a training that reads a volume of look B too; further arguments are those of `Order`."""
        inputs, after = self._of_look(name, *arrays)
        joined = dict(asked) | {"inputs": asked.get("inputs", {}) | inputs.get("inputs", {})}
        return order_of(joined, to, after=after, **more)

    def _of_look(self, name: str, *arrays: str) -> tuple[dict[str, Any], tuple[Order, ...]]:
        """Return what is asked of a volume of look B, and the order that makes it, if the chain does."""
        if self.plan.config.look:
            return {}, (self.look(name),)
        return self._inputs(self.plan.volume(name), *arrays), ()

    def _inputs(self, volume: Path, *arrays: str) -> dict[str, Any]:
        return {"inputs": _states(volume, arrays)}

    def _result(self, arm: str, name: str) -> Path:
        return self.plan.segmenter_results(self.plan.arm_run(arm)) / name


def _states(volume: Path, arrays: Iterable[str]) -> dict[str, str]:
    """Return the states of arrays of a user's volume, by path; those that a stage wrote, with the run of the stage."""
    record = manifest_path(volume)
    known = record if record.exists() else None
    told = {str(volume / array): input_state(volume / array, known, array) for array in arrays}
    return {path: f"{state} by {identity(record)}" if state == AS_WRITTEN else state for path, state in told.items()}


def _named(network: NetworkConfig) -> dict[str, Any]:
    """Return what is asked of arrays that a network's file names beside the chain's volumes, if there are some."""
    named = states_named_by(network)
    return {"named": named} if named else {}


def _prediction(network: NetworkConfig) -> dict[str, Any]:
    return {"settings": network.prediction.model_dump(mode="json", exclude={"original_margin"})}


def _before(order: Order) -> list[Order]:
    """Return all orders that must be written before this one, in this order."""
    return [each for earlier in order.after for each in (*_before(earlier), earlier)]
