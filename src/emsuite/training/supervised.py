"""Supervised training: one network learns the targets of labelled samples.

sample -> targets -> forward -> loss of each head -> backward -> Adam -> running average
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.device import computing_in, tensor_float_32
from emsuite.config.network import NetworkConfig
from emsuite.data.normalization import GreyScale, stack_scales
from emsuite.data.sampler import Sample, Sampler
from emsuite.data.training_volume import TrainingVolume
from emsuite.losses.registry import LOSSES
from emsuite.losses.target import HeadOutput
from emsuite.models.network import AnyNetwork, trained_part
from emsuite.training.batches import Batch, Batches, BatchShare, make_batch, prepared_targets
from emsuite.training.optimizer import learning_rate, make_optimizer, update_average
from emsuite.training.step import NETWORK, StepResult, TrainingState
from emsuite.training.trained_network import build_with_frozen


class Supervised:
    """See `emsuite.training.step.TrainingStep`."""

    def build(self, folder: Path, config: NetworkConfig) -> tuple[dict[str, AnyNetwork], str | None]:
        """See `TrainingStep.build`: one network, behind its frozen network if it has one."""
        network, frozen_digest = build_with_frozen(folder, config)
        return {NETWORK: network}, frozen_digest

    def make_optimizers(
        self, networks: Mapping[str, AnyNetwork], config: NetworkConfig
    ) -> dict[str, torch.optim.Optimizer]:
        """See `TrainingStep.make_optimizers`: Adam for the weights of the network."""
        return {NETWORK: make_optimizer(list(trained_part(networks[NETWORK]).parameters()), config.training.optimizer)}

    def make_batches(
        self,
        state: TrainingState,
        config: NetworkConfig,
        volumes: Sequence[TrainingVolume],
        share: BatchShare,
        iterations: range,
        device: torch.device,
    ) -> Batches:
        """See `TrainingStep.make_batches`: labelled samples with the targets of all heads."""
        training, maker = config.training, config.target_maker
        shape = state.network.output_shape(training.input_shape)
        context = maker.label_context
        sampler = Sampler(volumes, training.input_shape, shape, context, training.augment, training.sampling)
        scales, targets = _measure(state, config, volumes), prepared_targets(maker, sampler)

        def make(sample: Sample, iteration: int) -> Batch:
            batch = make_batch(targets, sample, iteration, device)
            if scales is None:
                return batch
            scale = stack_scales([scales[number] for number in sample.volumes], batch.raw)
            return batch.with_arrays(gain=torch.as_tensor(scale.gain), shift=torch.as_tensor(scale.shift))

        return Batches(make, sampler, share, iterations, device)

    def run(self, state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int) -> StepResult:
        """See `TrainingStep.run`: forward and backward for each part of the batch, then one update."""
        training = config.training
        heads = config.heads.values()
        if any(head.settings_at(iteration) != head.settings_at(iteration - 1) for head in heads):
            # Adam's moments belong to the old loss.
            state.optimizers = self.make_optimizers(state.networks, config)
        rate = learning_rate(training.optimizer, iteration, training.iterations)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        parts = training.accumulate
        total: dict[str, Tensor] = {}
        for part, batch in enumerate(islice(batches, parts), start=1):
            # Processes exchange gradients once, with the last part.
            with _without_exchange(state, part < parts), tensor_float_32(training.precision == "tf32"):
                losses, outputs = _losses(state, config, batch)
                (losses["loss"] / parts).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach() / parts
        if training.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(state.trained, training.optimizer.clip_norm)
        state.optimizer.step()
        state.iteration = iteration
        if training.average is not None:
            weights = trained_part(state.network).state_dict()
            update_average(state.averages[NETWORK], weights, training.average, iteration)
        return StepResult(total, batch, outputs)


def _losses(
    state: TrainingState, config: NetworkConfig, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, HeadOutput]]:
    raw = _grey_scale(state, config, batch).apply(batch.raw).to(memory_format=torch.channels_last_3d)
    with computing_in(raw.device, config.training.precision):
        logits = state.forward(raw)
    # Losses are computed in float32, whatever the convolutions are computed in.
    outputs = {name: HeadOutput(logits[name].float(), head.activate) for name, head in config.heads.items()}
    losses = {
        name: LOSSES[head.settings_at(batch.iteration).loss](outputs[name], batch.targets[name])
        for name, head in config.heads.items()
    }
    weighted = [losses[name] * head.loss_weight for name, head in config.heads.items()]
    return {"loss": torch.stack(weighted).sum()} | losses, outputs


def _measure(state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume]) -> list[GreyScale] | None:
    """Measure the grey scale of all volumes together into `state`; return those of single volumes, or None."""
    state.grey_range = state.grey_range or volumes[0].grey_range
    normalization = config.normalization
    if normalization.fixed or normalization.scope == "tile":
        return None
    if normalization.scope == "volume":
        return [normalization.measure_volumes([volume.raw]) for volume in volumes]
    if state.grey_scale is None:
        state.grey_scale = normalization.measure_volumes([volume.raw for volume in volumes])
    return None


def _grey_scale(state: TrainingState, config: NetworkConfig, batch: Batch) -> GreyScale:
    if "gain" in batch.arrays:
        return GreyScale(batch.arrays["gain"], batch.arrays["shift"])
    return state.grey_scale or config.normalization.measure_samples(batch.raw)


def _without_exchange(state: TrainingState, wait: bool) -> AbstractContextManager[None]:
    shared = isinstance(state.forward, DistributedDataParallel)
    return state.forward.no_sync() if wait and shared else nullcontext()  # type: ignore[operator]
