"""Figures of a network: layers, parameters, receptive field, legal shapes, arithmetic and memory."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, build_autocontext, build_network, frozen_network_folder, load_network
from emsuite.config.transfer_networks import generator_of, parameter_counts
from emsuite.models.network import AnyNetwork


@dataclass(frozen=True)
class Layer:
    """One layer: channels and voxels of its output, and its parameters."""

    name: str
    channels: int
    shape: Shape
    parameters: int


@dataclass(frozen=True)
class Description:
    """A network at one input shape. A multiply-add counts as two FLOPs; bytes are those of float32."""

    layers: list[Layer]
    trained: int
    frozen: int
    smallest_input: Shape
    smallest_tile: Shape
    """The smallest input whose output does not depend on the border alone; larger with same padding."""
    stride: Shape
    context: Shape
    input_shape: Shape
    output_shape: Shape
    forward_flops: int
    training_flops: int
    training_bytes: int

    @property
    def flops_per_voxel(self) -> float:
        """Forward FLOPs per output voxel at this input shape."""
        return self.forward_flops / float(torch.tensor(self.output_shape).prod())


def describe(folder: Path, config: NetworkConfig, input_shape: Shape) -> Description:
    """Describe the network of `folder` at an input shape, voxels z y x.

    The network runs on torch's meta device, which tracks shapes and computes nothing; it needs no checkpoint. The
    memory of a training step counts weights, gradients, Adam's two moments, and the output of every layer once.
    """
    with torch.device("meta"):
        network = build_untrained(folder, config).eval()  # batch norm refuses to train on a single voxel
        channels = len(config.plate.input_channels) if config.plate else 1
        raw = torch.empty((config.training.batch_size, channels, *input_shape))
        output_shape = network.output_shape(input_shape)
        with _record(network) as layers, FlopCounterMode(display=False) as forward:
            logits = network(raw)
        with FlopCounterMode(display=False) as backward:
            torch.stack([x.sum() for x in logits.values()]).sum().backward()
    sizes = {p: p.numel() for p in network.parameters()}
    trained = sum(n for p, n in sizes.items() if p.requires_grad)
    activations = sum(layer.channels * int(torch.tensor(layer.shape).prod()) for layer in layers)
    memory = 4 * (sum(sizes.values()) + 3 * trained + config.training.batch_size * (activations + raw[0].numel()))
    field = network.receptive_field
    flops = forward.get_total_flops()
    return Description(layers, trained, sum(sizes.values()) - trained, _smallest_input(network), field.smallest,
                       field.stride, field.context, input_shape, output_shape, flops,
                       flops + backward.get_total_flops(), memory)  # fmt: skip


def _smallest_input(network: AnyNetwork) -> Shape:
    field = network.receptive_field
    smallest = list(field.smallest)
    for axis, stride in enumerate(field.stride):
        with suppress(BadInput):
            while smallest[axis] > stride:
                shape = [*smallest]
                shape[axis] -= stride
                network.output_shape(shape)
                smallest = shape
    return tuple(smallest)


def build_untrained(folder: Path, config: NetworkConfig) -> AnyNetwork:
    """Return the network with fresh weights, behind its frozen network if it has one; a generator of transfer."""
    if config.transfer is not None:
        return generator_of(config.transfer, config.heads)
    frozen = frozen_network_folder(folder, config)
    return build_autocontext(config, load_network(frozen)) if frozen else build_network(config)


def as_text(config: NetworkConfig, described: Description) -> str:
    """Return a description as a table for people."""
    width = max(len(layer.name) for layer in described.layers)
    rows = [f"{config.dataset}/{config.network}", *_transfer_rows(config), ""]
    rows += [f"{'layer':<{width}}  channels  {'voxels (z, y, x)':<18}  parameters"]
    for layer in described.layers:
        shape = "x".join(map(str, layer.shape))
        rows.append(f"{layer.name:<{width}}  {layer.channels:>8}  {shape:<18}  {layer.parameters:>10,}")
    size = [c + 1 for c in described.context]
    nanometres = [n * v for n, v in zip(size, config.voxel_size, strict=True)]
    voxels = int(torch.tensor(described.output_shape).prod())
    rows += [
        "",
        f"trainable parameters  {described.trained:,}",
        f"frozen parameters     {described.frozen:,}",
        f"receptive field       {tuple(size)} voxels, {tuple(nanometres)} nm",
        f"stride                {described.stride}",
        f"legal inputs          {described.smallest_input} + multiples of the stride",
        *_output_rows(described),
        f"this input            {described.input_shape} -> {described.output_shape}",
        f"forward               {described.forward_flops / 1e9:,.1f} GFLOP, "
        f"{described.flops_per_voxel / 1e6:.3f} MFLOP per output voxel ({voxels:,})",
        f"training step         {described.training_flops / 1e9:,.1f} GFLOP, "
        f"{described.training_bytes / 2**30:.2f} GiB in float32",
    ]
    return "\n".join(rows)


def _transfer_rows(config: NetworkConfig) -> list[str]:
    """Return the networks of domain transfer, of which a description shows one generator."""
    if config.transfer is None:
        return []
    counts = parameter_counts(config.transfer, config.heads)
    named = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    more = " (d_b without those that read its prior)" if getattr(config.transfer.discriminator, "prior", None) else ""
    return ["", f"domain transfer: parameters of {named}{more}", "either generator:"]


def _output_rows(described: Description) -> list[str]:
    lost = tuple(n - m for n, m in zip(described.input_shape, described.output_shape, strict=True))
    if lost == described.context:
        return [f"output                input - {described.context}"]
    size = f"input - {lost}" if any(lost) else "as large as the input"
    return [
        f"output                {size}; all but {described.context} voxels depend on the input's border too",
        f"prediction tiles      {described.smallest_tile} + multiples of the stride; {described.context} of it are cut",
    ]


@contextmanager
def _record(network: nn.Module) -> Iterator[list[Layer]]:
    layers: list[Layer] = []
    handles = []
    for name, module in network.named_modules():
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        if parameters:

            def note(_module: nn.Module, _args: object, out: Tensor, name: str = name, n: int = parameters) -> None:
                layers.append(Layer(name, out.shape[1], tuple(out.shape[2:]), n))

            handles.append(module.register_forward_hook(note))
    yield layers
    for handle in handles:
        handle.remove()
