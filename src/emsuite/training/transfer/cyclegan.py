"""Domain transfer (`step: cyclegan`): two generators and two discriminators learn from images without pairs.

samples of a and b -> both generators, there and back -> generators' loss -> backward, with discriminators as they are
fakes, new and former, and real images -> discriminators' loss -> backward -> Adam for all of them

All gradients come from one forward pass: the fakes that discriminators learn from are those of the generators before
this iteration's update.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.arrays import to_device
from emsuite.common.device import tensor_float_32
from emsuite.common.errors import BadInput
from emsuite.common.profile import timed
from emsuite.config.network import NetworkConfig
from emsuite.config.transfer import TransferSettings
from emsuite.config.transfer_networks import GENERATORS
from emsuite.data.artifact_sections import with_artifacts
from emsuite.data.training_volume import TrainingVolume
from emsuite.data.transfer.unpaired_sampler import UnpairedSample, UnpairedSampler
from emsuite.losses.target import Target
from emsuite.models.network import Network
from emsuite.models.transfer.generator import Generator
from emsuite.training.batches import Batch, Batches, BatchShare
from emsuite.training.distributed import seed_iteration
from emsuite.training.optimizer import learning_rate, make_optimizer, set_rate, update_average
from emsuite.training.step import FrozenWeights, StepResult, TrainingState
from emsuite.training.transfer.domains import domains_of
from emsuite.training.transfer.geometry import Geometry, make_geometry
from emsuite.training.transfer.image_pool import ImagePool
from emsuite.training.transfer.labels import labels_around
from emsuite.training.transfer.losses import Cycle, Translator, discriminator_losses, generator_losses, weights
from emsuite.training.transfer.networks import build, load_prior
from emsuite.training.transfer.panels import make_panels
from emsuite.training.transfer.processes import average_gradients, everywhere, own_part

A, B = "raw", "b"
"""The arrays of a batch: samples of domain a, and of domain b."""
_ADVERSARIAL = ("adversarial_a2b", "adversarial_b2a", "heads_synthesis", "heads_reconstruction")
"""Losses that are no measure of how good a network is: they fall where discriminators get worse."""


class CycleGan:
    """See `emsuite.training.step.TrainingStep`."""

    def loss_names(self, config: NetworkConfig) -> list[str]:
        """See `TrainingStep.loss_names`: the parts of the generators' loss, and the discriminators."""
        return [*weights(config), *_discriminators(config.generators)]

    def build(self, folder: Path, config: NetworkConfig) -> tuple[dict[str, nn.Module], FrozenWeights | None]:
        """See `TrainingStep.build`: generators `a2b`, `b2a` and discriminators `d_a`, `d_b`, perhaps `d_heads`."""
        return build(folder, config)

    def frozen_weights(self, folder: Path, config: NetworkConfig) -> FrozenWeights | None:
        """See `TrainingStep.frozen_weights`: those of a discriminator's prior."""
        return load_prior(folder, config)[1]

    def make_optimizers(
        self, networks: Mapping[str, nn.Module], config: NetworkConfig
    ) -> dict[str, torch.optim.Optimizer]:
        """See `TrainingStep.make_optimizers`: Adam for each network, or for each kind of network."""
        groups = {name: [name] for name in networks}
        if config.generators.optimizers == "pairs":
            generators = list(GENERATORS.values())
            groups = {"generators": generators, "discriminators": [name for name in networks if name not in generators]}
        return {
            name: make_optimizer([p for one in group for p in networks[one].parameters()], config.training.optimizer)
            for name, group in groups.items()
        }

    def make_pools(self, config: NetworkConfig) -> dict[str, ImagePool]:
        """See `TrainingStep.make_pools`: one for each domain."""
        size, seed = config.generators.pool, config.training.sampling.seed
        return {name: ImagePool(size, seed, stream) for stream, name in enumerate(("a", "b"))} if size else {}

    def make_batches(
        self,
        state: TrainingState,
        config: NetworkConfig,
        volumes: Sequence[TrainingVolume],
        share: BatchShare,
        iterations: range,
        device: torch.device,
    ) -> Batches:
        """See `TrainingStep.make_batches`: normalized samples of both domains, and targets of the labels of a."""
        training, made_on = config.training, volumes[0].raw.device
        _check_sizes(state, config)
        augment = with_artifacts(training.augment, training.input_shape, config.voxel_size, made_on)
        a, b = domains_of(volumes)
        state.domains = {domain.name: domain.statistics.as_dict() for domain in (a, b)}
        sampling = config.generators.sampling
        sampler = UnpairedSampler(a, b, training.input_shape, sampling, augment, training.sampling.seed)
        return Batches(_maker(state, config, device), sampler, share, iterations, device)

    def held_out(
        self, state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume], device: torch.device
    ) -> Callable[[TrainingState, int], dict[str, Tensor]]:
        """See `TrainingStep.held_out`: samples of both domains as they are; `loss` is without adversarial parts."""
        seed = config.training.sampling.seed
        sampler = UnpairedSampler(*domains_of(volumes), config.training.input_shape, seed=seed)
        make, weight = _maker(state, config, device), weights(config)

        def losses(state: TrainingState, index: int) -> dict[str, Tensor]:
            batch = make(sampler.batch(0, 1, index), state.iteration)
            with tensor_float_32(config.training.precision == "tf32"):
                translator = _translator(state, config)
                parts, a, b = _forward(translator, batch)
                shown = _shown(translator, batch, a, b, {"d_a": b.fake, "d_b": a.fake})
                parts |= discriminator_losses(translator, shown)
            kept = [parts[name] * weight[name] for name in weight if name not in _ADVERSARIAL]
            return {"loss": torch.stack(kept).sum()} | parts

        return losses

    def run(
        self, state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int, keep: bool = False
    ) -> StepResult:
        """See `TrainingStep.run`: both backward passes for each part of the batch, then one update of all networks."""
        training = config.training
        for optimizer in state.optimizers.values():
            set_rate(optimizer, _rate(config, iteration))
            optimizer.zero_grad()
        seed_iteration(training.sampling.seed, iteration)  # what drops out, after a resume too
        total, translator = dict[str, Tensor](), _translator(state, config)
        for part, batch in enumerate(islice(batches, training.accumulate)):
            with tensor_float_32(training.precision == "tf32"):
                number = (iteration - 1) * training.accumulate + part
                losses, a, b = _backward(state, translator, batch, number)
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach() / training.accumulate
        _update(state, config, iteration)
        state.iteration = iteration
        return StepResult(total, batch, panels=make_panels(translator, state, batch, a, b) if keep else {})


def _discriminators(transfer: TransferSettings) -> list[str]:
    return ["d_a", "d_b", *(["d_heads"] if transfer.heads_discriminator else [])]


def _rate(config: NetworkConfig, iteration: int) -> float:
    """Return the rate of an iteration: that of the optimizer, then a straight line, as CycleGAN's epochs have it."""
    training, constant = config.training, config.generators.constant_iterations
    rate = learning_rate(training.optimizer, iteration, training.iterations)
    if constant is None or iteration <= constant:
        return rate
    return rate * max(0.0, 1.0 - (iteration - constant) / (training.iterations - constant + 1))


def _translator(state: TrainingState, config: NetworkConfig) -> Translator:
    """Return the networks as they are called; gradients of several processes are averaged once, behind all passes."""
    called = {
        name: forward.module if isinstance(forward, DistributedDataParallel) else forward
        for name, forward in state.forwards.items()
    }
    return Translator(called, config, _geometry(state, config))


def _geometry(state: TrainingState, config: NetworkConfig) -> Geometry:
    generator = state.networks["a2b"]
    assert isinstance(generator, Network | Generator)
    return make_geometry(generator, config.training.input_shape, config.generators.cycle_padding)


def _check_sizes(state: TrainingState, config: NetworkConfig) -> None:
    """Raise BadInput unless samples fit the generators, and their images the discriminators."""
    geometry = _geometry(state, config)
    weight = next(state.networks["d_a"].parameters())
    try:
        with torch.no_grad():
            state.networks["d_a"](torch.zeros((1, 1, *geometry.fake), dtype=weight.dtype, device=weight.device))
    except BadInput as error:
        raise BadInput(f"training.input_shape {list(config.training.input_shape)}: {error}") from None


def _maker(state: TrainingState, config: NetworkConfig, device: torch.device) -> Callable[[UnpairedSample, int], Batch]:
    """Return what makes the batch of samples and an iteration."""
    geometry, target_maker = _geometry(state, config), config.target_maker

    def make(sample: UnpairedSample, iteration: int) -> Batch:
        with timed("copy", device):
            arrays = {A: to_device(sample.a, device), B: to_device(sample.b, device)}
        targets: dict[str, Target] = {}
        mask = torch.ones((len(sample.a), *geometry.fake), dtype=torch.uint8, device=device)
        if target_maker.heads:
            assert sample.labels is not None, "the schema asks for labels"
            assert sample.mask is not None, "labels come with a mask"
            with timed("targets", device):
                labels, labelled = (
                    labels_around(to_device(each, device), geometry.fake, target_maker.label_context)
                    for each in (sample.labels, sample.mask)
                )
                targets = target_maker(labels, labelled, iteration)
        return Batch(iteration, arrays, targets, mask)

    return make


def _forward(translator: Translator, batch: Batch) -> tuple[dict[str, Tensor], Cycle, Cycle]:
    """Return the parts of the generators' loss, and the images of both domains on their way."""
    images = batch.arrays[A], batch.arrays[B]
    with timed("forward", images[0].device):
        a, b = translator.cycle(images[0], "a2b", "b2a"), translator.cycle(images[1], "b2a", "a2b")
        return generator_losses(translator, a, b, images, batch.targets), a, b


def _backward(
    state: TrainingState, translator: Translator, batch: Batch, number: int
) -> tuple[dict[str, Tensor], Cycle, Cycle]:
    """Add the gradients of one part of a batch; `number` counts parts. Return losses and images."""
    weight, count = weights(translator.config), translator.config.training.accumulate
    with _without_gradients(state, _discriminators(translator.transfer)):
        parts, a, b = _forward(translator, batch)
        loss = torch.stack([parts[name] * weight[name] for name in parts]).sum()
        with timed("backward", batch.raw.device):
            (loss / count).backward()
    fakes = {"d_a": _pooled(state, "a", b.fake, number), "d_b": _pooled(state, "b", a.fake, number)}
    with timed("discriminators", batch.raw.device):
        judged = discriminator_losses(translator, _shown(translator, batch, a, b, fakes))
        (torch.stack(list(judged.values())).sum() / count).backward()
    return {"loss": loss} | parts | judged, a, b


def _shown(
    translator: Translator, batch: Batch, a: Cycle, b: Cycle, fakes: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Sequence[Tensor]]]:
    """Return what discriminators see, without gradients: real ones, and groups of fake ones."""
    shown: dict[str, tuple[Tensor, Sequence[Tensor]]] = {
        "d_a": (a.real, [fakes["d_a"].detach()]), "d_b": (b.real, [fakes["d_b"].detach()])
    }  # fmt: skip
    if translator.transfer.heads_discriminator is not None:
        known = torch.cat([target.values for target in batch.targets.values()], 1)
        groups = [translator.values(heads).detach() for heads in (b.heads, b.again)]
        shown["d_heads"] = (known, groups)
    return shown


def _pooled(state: TrainingState, domain: str, fakes: Tensor, number: int) -> Tensor:
    """Return the fakes that a discriminator learns from: new ones, and former ones of all processes."""
    if domain not in state.pools:
        return fakes.detach()
    chosen = own_part(state.pools[domain].query(everywhere(fakes.detach()), number), len(fakes))
    # in one order of memory, whether it was read from a checkpoint or not: another order rounds differently
    return torch.empty_like(chosen, memory_format=torch.contiguous_format).copy_(chosen)


@contextmanager
def _without_gradients(state: TrainingState, names: Sequence[str]) -> Iterator[None]:
    """Within the block, no gradient goes to the weights of these networks; it still goes through them."""
    parameters = [parameter for name in names for parameter in state.networks[name].parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _update(state: TrainingState, config: NetworkConfig, iteration: int) -> None:
    training = config.training
    average_gradients(state.trained)
    with timed("update", state.trained[0].device):
        for optimizer in state.optimizers.values():
            if training.optimizer.clip_norm is not None:
                weights_of = [weight for group in optimizer.param_groups for weight in group["params"]]
                torch.nn.utils.clip_grad_norm_(weights_of, training.optimizer.clip_norm)
            optimizer.step()
    if training.average is not None:
        for name, average in state.averages.items():
            update_average(average, state.networks[name].state_dict(), training.average, iteration)
