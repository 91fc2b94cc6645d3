"""Supervised training: one network learns the targets of labelled samples.

sample -> targets -> forward -> loss of each head -> backward -> Adam -> running average
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from emsuite.augment.registry import Augmentations
from emsuite.common.device import computing_in, tensor_float_32
from emsuite.common.profile import timed
from emsuite.config.network import NetworkConfig
from emsuite.data.artifact_sections import with_artifacts
from emsuite.data.images.image_volume import ImageVolume
from emsuite.data.normalization import GreyScale, stack_scales
from emsuite.data.sampler import Sample, Sampler, SamplingSettings
from emsuite.data.training_volume import TrainingVolume
from emsuite.losses.registry import ON_HOST
from emsuite.losses.target import HeadOutput
from emsuite.models.network import AutocontextNetwork, trained_part
from emsuite.training.batches import Batch, Batches, BatchShare, make_batch, prepared_targets
from emsuite.training.distributed import seed_iteration
from emsuite.training.optimizer import learning_rate, make_optimizer, set_rate, update_average
from emsuite.training.step import NETWORK, FrozenWeights, StepResult, TrainingState
from emsuite.training.trained_network import build_with_frozen, frozen_weights
from emsuite.training.transfer.image_pool import ImagePool


class Supervised:
    """See `emsuite.training.step.TrainingStep`."""

    def loss_names(self, config: NetworkConfig) -> list[str]:
        """See `TrainingStep.loss_names`: the heads."""
        return list(config.heads)

    def build(self, folder: Path, config: NetworkConfig) -> tuple[dict[str, nn.Module], FrozenWeights | None]:
        """See `TrainingStep.build`: one network, behind its frozen network if it has one."""
        network, frozen = build_with_frozen(folder, config)
        return {NETWORK: network}, frozen

    def frozen_weights(self, folder: Path, config: NetworkConfig) -> FrozenWeights | None:
        """See `TrainingStep.frozen_weights`: those that LSDs are read from."""
        return frozen_weights(folder, config)

    def make_optimizers(
        self, networks: Mapping[str, nn.Module], config: NetworkConfig
    ) -> dict[str, torch.optim.Optimizer]:
        """See `TrainingStep.make_optimizers`: Adam for the weights of the network."""
        return {NETWORK: make_optimizer(list(trained_part(networks[NETWORK]).parameters()), config.training.optimizer)}

    def make_pools(self, config: NetworkConfig) -> dict[str, ImagePool]:
        """See `TrainingStep.make_pools`: none."""
        return {}

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
        training, made_on = config.training, volumes[0].raw.device
        augment = with_artifacts(training.augment, training.input_shape, config.voxel_size, made_on)
        sampler = self._sampler(state, config, volumes, augment, training.sampling)
        return Batches(self._maker(state, config, volumes, sampler, device), sampler, share, iterations, device)

    def _sampler(self, state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume],
                 augment: Augmentations, sampling: SamplingSettings) -> Sampler:  # fmt: skip
        shape, given = config.training.input_shape, config.target_maker.label_context
        output = shape if config.supervised_unet.output == "vector" else state.network.output_shape(shape)
        return Sampler(volumes, shape, output, given, augment, sampling)

    def _maker(self, state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume], sampler: Sampler,
               device: torch.device) -> Callable[[Sample, int], Batch]:  # fmt: skip
        """Return what makes the batch of samples and an iteration."""
        maker = config.target_maker
        scales, targets = _measure(state, config, volumes), prepared_targets(maker, sampler)

        def make(sample: Sample, iteration: int) -> Batch:
            batch = make_batch(targets, sample, iteration, device)
            if scales is None:
                return batch
            scale = stack_scales([scales[number] for number in sample.volumes], batch.raw)
            return batch.with_arrays(gain=torch.as_tensor(scale.gain), shift=torch.as_tensor(scale.shift))

        return make

    def held_out(
        self, state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume], device: torch.device
    ) -> Callable[[TrainingState, int], dict[str, Tensor]]:
        """See `TrainingStep.held_out`: labelled samples as they are, without augmentation."""
        sampling = config.training.sampling.model_copy(update={"probabilities": None})
        sampler = self._sampler(state, config, volumes, (), sampling)
        make = self._maker(state, config, volumes, sampler, device)

        def losses(state: TrainingState, index: int) -> dict[str, Tensor]:
            batch = make(sampler.batch(0, 1, index), state.iteration)
            with tensor_float_32(config.training.precision == "tf32"):
                x = _network_input(state, config, batch)
                return _losses(state, config, batch, x, state.network)[0]

        return losses

    def run(
        self, state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int, keep: bool = False
    ) -> StepResult:
        """See `TrainingStep.run`: forward and backward for each part of the batch, then one update."""
        training, heads = config.training, config.heads.values()
        if any(head.settings_at(iteration) != head.settings_at(iteration - 1) for head in heads):
            # Adam's moments belong to the old loss.
            state.optimizers = self.make_optimizers(state.networks, config)
        set_rate(state.optimizer, learning_rate(training.optimizer, iteration, training.iterations))
        if config.supervised_unet.dropout:  # the values that drop out are the same after a resume
            seed_iteration(training.sampling.seed, iteration)
        if _is_replayed(state, config, iteration) and not keep:
            batch = next(batches)
            with timed("step", batch.raw.device):
                losses, outputs = _replay(state, config, batch)
        else:
            if keep:
                state.replayed.make_room()
            losses, outputs, batch = _train(state, config, islice(batches, training.accumulate), keep)
        state.iteration = iteration
        if training.average is not None:
            weights = trained_part(state.network).state_dict()
            update_average(state.averages[NETWORK], weights, training.average, iteration)
        return StepResult(losses, batch, outputs, read=_read(state, config, batch) if keep else {})


def _train(
    state: TrainingState, config: NetworkConfig, parts: Iterable[Batch], keep: bool
) -> tuple[dict[str, Tensor], dict[str, HeadOutput], Batch]:
    """Update the weights; return the losses over all parts of the batch, and the outputs for the last one.

    If the iteration is to `keep` them, these outputs hold their gradients.
    """
    training, count = config.training, config.training.accumulate
    state.optimizer.zero_grad()
    total: dict[str, Tensor] = {}
    for part, batch in enumerate(parts, start=1):
        # Processes exchange gradients once, with the last part.
        with _without_exchange(state, part < count), tensor_float_32(training.precision == "tf32"):
            losses, outputs = _losses(state, config, batch, _network_input(state, config, batch))
            for output in outputs.values() if keep and part == count else ():
                output.keep_gradient()
            with timed("backward", batch.raw.device):
                (losses["loss"] / count).backward()
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach() / count
    _update(state, config)
    return total, outputs, batch


def _update(state: TrainingState, config: NetworkConfig) -> None:
    with timed("update", state.trained[0].device):
        if config.training.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(state.trained, config.training.optimizer.clip_norm)
        state.optimizer.step()


def _is_replayed(state: TrainingState, config: NetworkConfig, iteration: int) -> bool:
    """Return whether an iteration can be a CUDA graph: on one GPU, in one pass, with losses that stay on the GPU."""
    training = config.training
    if not training.cuda_graph or training.compile or training.accumulate > 1 or config.supervised_unet.dropout:
        return False
    losses = {name for head in config.heads.values() for name in head.settings_at(iteration).loss_names}
    on_gpu = next(state.network.parameters()).is_cuda
    return on_gpu and not losses & ON_HOST and not isinstance(state.forward, DistributedDataParallel)


def _replay(
    state: TrainingState, config: NetworkConfig, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, HeadOutput]]:
    """Train one iteration as `_train` does, as a CUDA graph from the fourth one on."""

    def step(tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        state.optimizer.zero_grad()
        with tensor_float_32(config.training.precision == "tf32"):
            losses, outputs = _losses(state, config, batch.with_target_tensors(tensors[1:]), tensors[0])
            with timed("backward", batch.raw.device):
                losses["loss"].backward()
        _update(state, config)
        logits = {name: output.logits.detach() for name, output in outputs.items()}
        return {name: loss.detach() for name, loss in losses.items()}, logits

    heads = tuple(head.settings_at(batch.iteration).model_dump_json() for head in config.heads.values())
    tensors = [_network_input(state, config, batch), *batch.target_tensors]
    losses, logits = state.replayed(step, tensors, (heads, id(state.optimizer)))
    return losses, {name: HeadOutput(logits[name], head.activate) for name, head in config.heads.items()}


def _read(state: TrainingState, config: NetworkConfig, batch: Batch) -> dict[str, Tensor]:
    """Return what the network read beside raw: the LSDs of its frozen network, if it has one."""
    if not isinstance(state.network, AutocontextNetwork):
        return {}
    x, training = _network_input(state, config, batch), config.training
    with computing_in(x.device, training.precision), tensor_float_32(training.precision == "tf32"):
        return {"lsds": state.network.read_lsds(x)}


def _network_input(state: TrainingState, config: NetworkConfig, batch: Batch) -> Tensor:
    return _grey_scale(state, config, batch).apply(batch.raw).to(memory_format=torch.channels_last_3d)


def _losses(
    state: TrainingState, config: NetworkConfig, batch: Batch, x: Tensor, network: nn.Module | None = None
) -> tuple[dict[str, Tensor], dict[str, HeadOutput]]:
    with timed("forward", x.device), computing_in(x.device, config.training.precision):
        logits = (network or state.forward)(x)
    # Losses are computed in float32, whatever the convolutions are computed in.
    outputs = {name: HeadOutput(logits[name].float(), head.activate) for name, head in config.heads.items()}
    with timed("loss", x.device):
        losses = {
            name: head.settings_at(batch.iteration).compute_loss(outputs[name], batch.targets[name])
            for name, head in config.heads.items()
        }
    weighted = [losses[name] * head.loss_weight for name, head in config.heads.items()]
    return {"loss": torch.stack(weighted).sum()} | losses, outputs


def _measure(state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume]) -> list[GreyScale] | None:
    """Measure the grey scale of all volumes together into `state`; return those of single volumes, or None."""
    first = volumes[0]
    if isinstance(first, ImageVolume):  # samples say how they are normalized
        state.images = state.images or dict(first.normalization)
        return None
    state.grey_range = state.grey_range or first.grey_range
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
