"""A GPU is not waited for: not in a training batch, nor in a training step, nor in a tile's prediction.

On a GPU that is none: its tensors lie in the host's memory and say that they lie on `cuda:0`. Operations run as ever,
on the processor, but

- one that is given tensors of both devices raises, as on a GPU;
- one that makes the host wait for the GPU is noted down, with the function of the suite that called it: whatever looks
  at a value (`item`, `tolist`, `bool`), or whose result has as many entries as the values say (`nonzero`, `unique`, an
  index of booleans), and copies that are not `non_blocking`.

It sees what Python calls, and nothing of what torch does inside of one operation.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

from builders import ROOT
from emsuite import augment
from emsuite.augment import intensity
from emsuite.augment.missing_sections import MissingSections
from emsuite.common.geometry import Coordinate
from emsuite.config.network import NetworkConfig, build_network, load_network
from emsuite.data.artifact_sections import ArtifactSections
from emsuite.data.sampler import Sampler
from emsuite.data.sampling_locations import Locations
from emsuite.data.training_volume import TrainingVolume
from emsuite.models.receptive_field import output_shape
from emsuite.prediction.predictor import Predictor
from emsuite.prediction.tiling import BY_STRIDE
from emsuite.targets import gaussian_moments as moments
from emsuite.training.batches import Batch, Batches, BatchShare, make_batch
from emsuite.training.optimizer import make_optimizer
from emsuite.training.registry import STEPS
from emsuite.training.step import TrainingState

SUITE = ROOT / "src/emsuite"
FOLDER = ROOT / "02_train/zebrafinch/mtlsd"
CPU, INPUT, TILE = torch.device("cpu"), (42, 241, 241), (39, 241, 241)
FEWER = ["unet.num_fmaps=1", "unet.fmap_inc_factor=2", "unet.num_fmaps_out=2", f"training.input_shape={list(INPUT)}"]
VOLUME = (60, 260, 260)
UNIT = 2.0**-24
"""One rounding to float32 changes a number x by at most `UNIT` |x|."""
DISPLACEMENT, CONTROL_POINTS = 8, 60 + 24
"""The largest sum of |weight| |control vector| |weight|, voxels, along y and x (0 along z), and its terms."""
RAW_TOLERANCE = 1.1 * UNIT * (8 * sum(VOLUME) + 2 * 2 * CONTROL_POINTS * DISPLACEMENT + 2 * 12)
"""How far apart raw, 0 to 1, can be on the two devices by rounding alone: 4.8e-4.

Both devices interpolate at places that they compute from the same float32 numbers. Along an axis of S voxels, where
places are numbers up to S, a place is rounded
- in its last sum, on each device: 2 S UNIT
- on the GPU alone, where `grid_sample` takes the volume's faces for -1 and 1. On the way there: in the factor 2/S and
  in the product with it (S UNIT each), in the shift 1/S - 1 and in the sum with it (S UNIT / 2 each, since numbers up
  to 1 stand for S/2 voxels). In `grid_sample`, on the way back: sum, product and difference (S UNIT each). Together
  6 S UNIT
- in the displacement, along y and x, on each device: two matrix products, whose sums of n terms are rounded n times,
  in an order that the processor's library chooses: CONTROL_POINTS DISPLACEMENT UNIT.
From voxel to voxel raw changes by at most 1, so that it changes no more than the place, along each axis. Interpolation
has some 12 roundings of numbers up to 1 on each device. Then the intensity is scaled by 1.1 at most.
"""
NEEDED = [
    "lsds._number: unique",  # how many labels there are,
    "lsds._describe: nonzero",  # which of them in a tile,
    "lsds._items: tolist",  # and their extents: the shapes of what follows
]

GPU = torch.device("cuda", 0)
TO_HOST = {
    "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__",
    "equal", "allclose", "is_nonzero",
}  # fmt: skip
WAITS = TO_HOST | {
    "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "repeat_interleave",
}  # fmt: skip


class OnGpu(Tensor):
    """A tensor that says it lies on the GPU."""


class PretendedGpu(TorchFunctionMode):
    """`waits` are the operations that made the host wait, as `module.function: operation`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = (resolve_name(func) or getattr(func, "__name__", "")).removesuffix(".__get__").rpartition(".")[2]
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [tensor for tensor in given if isinstance(tensor, OnGpu)]
        if name == "device" and given:
            return GPU if there else torch.device("cpu")
        wanted, args, kwargs = _without_device(args, kwargs)
        moves = name in ("to", "cpu", "cuda", "copy_", "type_as") or (name == "tensor" and wanted == GPU)
        self._check(name, given, there, args, kwargs, moves)
        if moves and not kwargs.get("non_blocking") and (there or wanted == GPU) and not _stays(name, given, wanted):
            self.waits.append(f"{_caller()}: {name}")
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs)
        lies_there = wanted == GPU or (wanted is None and bool(there) and name not in TO_HOST)
        if name == "copy_":
            lies_there = isinstance(args[0], OnGpu)
        return tree_map_only(Tensor, _on_gpu, found) if lies_there else found

    def _check(self, name: str, given: list[Tensor], there: list[OnGpu], args: Any, kwargs: Any, moves: bool) -> None:
        index = args[1] if name in ("__getitem__", "__setitem__") and there else None
        chosen = any(isinstance(i, Tensor) and i.dtype == torch.bool for i in tree_leaves(index))
        if there and (name in WAITS or chosen or (name == "where" and len(args) + len(kwargs) == 1)):
            self.waits.append(f"{_caller()}: {name}")
        others = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
        if there and others and not moves and name not in ("__setitem__", "__getitem__", "backward"):
            raise RuntimeError(f"{name}: tensors on cuda:0 and on the cpu")


def move(network: nn.Module) -> None:
    """Have a network lie on the GPU."""
    for module in network.modules():
        for name, weights in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(_on_gpu(weights.detach())))


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, the calling thread has a GPU, `GPU`."""
    with pytest.MonkeyPatch.context() as patch, PretendedGpu() as gpu:
        patch.setattr(Tensor, "pin_memory", lambda self: self)
        yield gpu


def _without_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The device that is asked for, if any, and the arguments without it."""
    asked = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)]
    kwargs = {key: value for key, value in kwargs.items() if not isinstance(value, torch.device)}
    kwargs.pop("pin_memory", None)
    here = torch.device("cpu")
    args = tuple(here if isinstance(value, torch.device) else value for value in args)
    return (asked[0] if asked else None), args, kwargs


def _stays(name: str, given: list[Tensor], wanted: Any) -> bool:
    """Whether nothing is moved: only the type or the order in memory changes, or both lie on the same device."""
    sides = {isinstance(tensor, OnGpu) for tensor in given}
    return len(sides) == 1 and (name == "copy_" or wanted is None or sides == {wanted == GPU})


def _on_gpu(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, OnGpu) else tensor.as_subclass(OnGpu)


def _caller() -> str:
    frame: FrameType | None = sys._getframe()
    while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(SUITE):
        frame = frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


@pytest.fixture(scope="module")
def config() -> NetworkConfig:
    return load_network(FOLDER, FEWER)


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with pretended_gpu() as gpu:
        yield gpu
    moments.powers.cache_clear()  # tables that were made for this GPU


def make_sampler(config: NetworkConfig, device: torch.device) -> Sampler:
    """Samples of cells 9 voxels wide."""
    index = np.indices(VOLUME) // 9
    labels = torch.from_numpy((index[0] * 29 + index[1]) * 29 + index[2] + 1).int().to(device)
    raw, mask = (labels % 251).to(torch.uint8), torch.ones_like(labels, dtype=torch.uint8)
    nowhere, training = Coordinate(0, 0, 0), config.training
    volume = TrainingVolume(raw, labels, mask, Coordinate(config.voxel_size), nowhere, nowhere, "v")
    output = output_shape(config.unet, INPUT)
    return Sampler([volume], INPUT, output, config.target_maker.label_context, training.augment, training.sampling)


def make(config: NetworkConfig, sampler: Sampler, device: torch.device, iteration: int = 2) -> Batch:
    return make_batch(config.target_maker, sampler.batch(iteration, 1), iteration, device)


@pytest.mark.parametrize("volumes", [CPU, GPU], ids=["volumes in memory", "volumes on the GPU"])
def test_a_batch_waits_for_the_extents_of_labels_alone(
    config: NetworkConfig, gpu: PretendedGpu, volumes: torch.device
) -> None:
    sampler = make_sampler(config, volumes)
    assert sampler.device == volumes
    make(config, sampler, GPU, 1)  # with tables that are made once
    gpu.waits.clear()
    batch = make(config, sampler, GPU)
    assert all(tensor.device == GPU for tensor in batch.tensors)
    assert gpu.waits == NEEDED


def test_a_batch_made_on_the_gpu_is_that_made_on_the_processor(config: NetworkConfig) -> None:
    expected = make(config, make_sampler(config, CPU), CPU)
    with pretended_gpu():
        batch = make(config, make_sampler(config, GPU), GPU)
    moments.powers.cache_clear()
    raw, *targets = zip(batch.tensors, expected.tensors, strict=True)
    torch.testing.assert_close(raw[0].as_subclass(torch.Tensor), raw[1], rtol=0, atol=RAW_TOLERANCE)
    for found, wanted in targets:
        # sums in float64 on both devices, so that numbers up to 2 are rounded to the same float32 or to neighbours
        torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted, rtol=0, atol=UNIT * 2)


def test_faults_of_sections_wait_for_nothing(gpu: PretendedGpu) -> None:
    arrays = [torch.rand(2, 40, 50).to(GPU) for _ in range(2)]
    source = ArtifactSections(*arrays, Locations(np.ones((2, 40, 50)), (1, 30, 30), (0, 0, 0), 0), (30, 30))
    step = MissingSections(name="missing_sections", missing=0.2, low_contrast=0.2, dark=0.2, artifact=0.4,
                           artifacts={"volume": "any.hdf"}).with_source(source)  # fmt: skip
    raw = torch.rand(2, 30, 30, 30).to(GPU)
    before = raw.as_subclass(Tensor).clone()
    gpu.waits.clear()
    step.apply_to_batch(raw, [np.random.default_rng(seed) for seed in range(2)])
    assert gpu.waits == []
    assert bool((raw.as_subclass(Tensor) != before).flatten(2).any(dim=2).all()), "every section has a fault"


def test_samples_that_are_read_at_once_wait_for_nothing(
    config: NetworkConfig, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = SimpleNamespace(read_linear=lambda *given: given[-1].fill_(0.5),
                              read_nearest=lambda *given: [out.fill_(1) for out in given[-2:]])  # fmt: skip
    monkeypatch.setitem(sys.modules, "emsuite.augment.interpolate_triton", kernels)
    monkeypatch.setattr(augment, "interpolate_triton", kernels, raising=False)
    monkeypatch.setattr("emsuite.data.sampler.can_read_batches", lambda device: True)
    sampler = make_sampler(config, GPU)
    gpu.waits.clear()
    sample = sampler.batch(1, 2)
    assert gpu.waits == []
    assert {name: array.device for name, array in sample.arrays.items()} == dict.fromkeys(sample.arrays, GPU)
    assert sample["raw"].shape == (2, 1, *INPUT)
    changed = sample["raw"].as_subclass(Tensor)
    assert not torch.equal(changed, torch.full_like(changed, 0.5))
    assert bool((sample["labels"].as_subclass(Tensor) == 1).all())


def test_batches_are_made_on_a_stream_of_their_own(
    config: NetworkConfig, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    own, network = SimpleNamespace(record_event=lambda: "made"), SimpleNamespace(wait_event=done.append)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _, priority: own if priority < 0 else None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: PretendedGpu() if stream is own else None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: network)
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: done.append("kept" if stream is network else "lost"))
    batches = Batches(
        lambda s, i: make_batch(config.target_maker, s, i, GPU),
        make_sampler(config, GPU),
        BatchShare(0, 1),
        range(1, 4),
        GPU,
    )
    made = list(batches)
    assert [batch.iteration for batch in made] == [1, 2, 3]
    assert all(tensor.device == GPU for batch in made for tensor in batch.tensors)
    # the network's stream waits for the batch, and what is in it is not given away before that stream is through
    assert done == (["made"] + ["kept"] * len(made[0].tensors)) * 3


def test_a_training_step_does_not_wait(config: NetworkConfig, gpu: PretendedGpu) -> None:
    network = build_network(config).to(memory_format=torch.channels_last_3d)
    move(network)
    weights = list(network.parameters())
    state = TrainingState({"network": network}, {"network": make_optimizer(weights, config.training.optimizer)})
    batches = iter([make(config, make_sampler(config, GPU), GPU, 1)])
    gpu.waits.clear()
    step = STEPS["supervised"].run(state, config, batches, 1)
    assert gpu.waits == []
    assert math.isfinite(step.losses["loss"].item())
    assert gpu.waits  # the look that the test took


def test_a_tile_comes_to_the_host_without_a_wait_until_it_is_written(
    config: NetworkConfig, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    event = SimpleNamespace(synchronize=lambda: waited.append("written"), record=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    network, raw = build_network(config).eval(), torch.arange(math.prod(TILE)).view(TILE).to(torch.uint8)
    heads = ("lsds", "affs")
    expected = Predictor(network, config, CPU, torch.float32, BY_STRIDE, TILE, heads)(raw).arrays()
    move(network)
    predicted = Predictor(network, config, GPU, torch.float32, BY_STRIDE, TILE, heads)(raw)
    assert gpu.waits == []
    assert not waited
    arrays = predicted.arrays()
    assert waited == ["written"]
    assert {name: array.shape for name, array in arrays.items()} == {"lsds": (10, 3, 29, 29), "affs": (3, 3, 29, 29)}
    for name, array in arrays.items():
        assert np.array_equal(array, expected[name])


def test_what_waits_is_found(config: NetworkConfig, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    step = intensity.Intensity(name="intensity", per_section=True)
    step.apply(torch.ones(3, 4, 5, device=GPU), np.random.default_rng(0))
    assert gpu.waits == []
    monkeypatch.setattr(intensity, "to_device", lambda tensor, device: tensor.to(device))
    make(config, make_sampler(config, GPU), GPU)
    assert gpu.waits.count("intensity.apply: to") == 1
    for look in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x.cpu(),
                 lambda x: torch.tensor([1], device=x.device)):  # fmt: skip
        gpu.waits.clear()
        look(torch.ones(3, device=GPU))
        assert len(gpu.waits) == 1
    with pytest.raises(RuntimeError, match="add: tensors on cuda:0 and on the cpu"):
        torch.add(torch.ones(3, device=GPU), torch.ones(3))
