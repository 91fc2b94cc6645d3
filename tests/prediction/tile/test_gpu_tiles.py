"""Tiles on a GPU that is none: recorded once for each shape, replayed for each tile, or computed where that fails."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from builders import ROOT
from emsuite.config.network import build_network, load_network
from emsuite.prediction.tile import gpu_tiles
from emsuite.prediction.tile.gpu_tiles import GpuTiles, round_kernels
from emsuite.prediction.tile.predicted import Outputs

CPU = torch.device("cpu")
FEWER = ["unet.num_fmaps=2", "unet.fmap_inc_factor=2"]


class Graph:
    """Runs again what was recorded, and overwrites the recorded outputs."""

    replays = 0

    def __init__(self) -> None:
        self.again: Callable[[], None] = lambda: None

    def replay(self) -> None:
        Graph.replays += 1
        self.again()


class Computed:
    """Adds 1, and remembers how it was called."""

    def __init__(self, refuses: tuple[bool, ...] = ()) -> None:
        self.calls: list[bool] = []
        self.refuses = refuses
        self.graph: Graph | None = None

    def __call__(self, raw: Tensor, *, fused: bool) -> Outputs:
        self.calls.append(fused)
        if fused in self.refuses:
            raise RuntimeError("no such kernel\nand more")
        outputs = Outputs({"affs": raw + 1}, {"affs": torch.isfinite(raw).all()})
        if self.graph is not None:
            self.graph.again = lambda: outputs.values["affs"].copy_(raw + 1)
        return outputs


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A torch whose streams and events do nothing and whose graphs run again what was recorded."""
    state: dict[str, Any] = {"compute": None, "fails": False}

    @contextmanager
    def graph(made: Graph, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert gpu_tiles.CAPTURE.locked()
        state["compute"].graph = made
        yield
        state["compute"].graph = None
        if state["fails"]:
            raise RuntimeError("cannot be recorded")

    stream = SimpleNamespace(wait_stream=lambda _: None)
    cuda = SimpleNamespace(
        Stream=lambda _: stream,
        stream=lambda _: nullcontext(),
        current_stream=lambda _: stream,
        Event=lambda blocking: SimpleNamespace(record=lambda _: None, synchronize=lambda: None),
        CUDAGraph=Graph,
        graph=graph,
        synchronize=lambda _: None,
    )
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **more: empty(*shape, **more))
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    Graph.replays = 0
    return state


def results(tiles: GpuTiles, values: list[float], shape: tuple[int, ...] = (2, 3, 4)) -> list[float]:
    found = [tiles([torch.full(shape, value)])[0].values["affs"] for value in values]
    return [float(tensor.double().mean()) for tensor in found]  # all of them are looked at behind the last tile


def test_a_shape_is_recorded_once_and_replayed(recording: dict[str, Any]) -> None:
    compute = recording["compute"] = Computed()
    tiles = GpuTiles(compute, CPU)
    assert results(tiles, [1, 2, 3, 4]) == [2, 3, 4, 5]
    assert compute.calls == [True, True]  # to warm up, and to record
    assert Graph.replays == 3
    assert results(tiles, [5, 6], (1, 1, 2)) == [6, 7]
    assert len(compute.calls) == 4


def test_what_cannot_be_recorded_is_computed(recording: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    compute = recording["compute"] = Computed()
    recording["fails"] = True
    assert results(GpuTiles(compute, CPU), [1, 2, 3]) == [2, 3, 4]
    assert Graph.replays == 0
    assert [record.message for record in caplog.records] == [
        "tiles are computed without a CUDA graph, more slowly: cannot be recorded"
    ]
    assert not gpu_tiles.CAPTURE.locked()


def test_what_waits_for_the_gpu_is_not_recorded(recording: dict[str, Any]) -> None:
    compute = recording["compute"] = Computed()
    assert results(GpuTiles(compute, CPU, recordable=False), [1, 2, 3]) == [2, 3, 4]
    assert len(compute.calls) == 3


def test_without_the_kernel_torch_rounds(recording: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    compute = recording["compute"] = Computed(refuses=(True,))
    assert results(GpuTiles(compute, CPU), [1, 2, 3]) == [2, 3, 4]
    assert compute.calls == [True, False, False]
    assert "values are rounded by torch: RuntimeError: no such kernel" in caplog.text


def test_an_error_of_the_network_is_raised(recording: dict[str, Any]) -> None:
    recording["compute"] = Computed(refuses=(True, False))
    with pytest.raises(RuntimeError, match="no such kernel"):
        results(GpuTiles(recording["compute"], CPU), [1])


@pytest.mark.parametrize("folder", ["zebrafinch/mtlsd", "fib25/small"])
def test_rounded_kernels_yield_the_bits_of_autocast(folder: str) -> None:
    torch.manual_seed(0)
    config = load_network(Path(ROOT / "02_train" / folder), FEWER)
    network = build_network(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    x = torch.rand(1, 1, *network.receptive_field.smallest)
    found = []
    for _ in range(2):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found.append(network(x))
        round_kernels(network)
    assert any(parameter.dtype == torch.bfloat16 for parameter in network.parameters())
    for name, logits in found[0].items():
        assert logits.dtype == torch.bfloat16
        assert torch.equal(logits, found[1][name])
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert all(norm.weight.dtype == torch.float32 for norm in norms)
