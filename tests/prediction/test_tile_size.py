"""Tiles are larger than configured on a GPU with room for them, unless values depend on their size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import ROOT
from emsuite.common.geometry import Coordinate, Roi
from emsuite.config.network import NetworkConfig, build_network, load_network
from emsuite.io.volume import Volume
from emsuite.prediction import tile_size
from emsuite.prediction.blending import Blended
from emsuite.prediction.tile_size import bytes_per_voxel, input_shape_for, largest_tensor, tell_of_margins
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
NETWORKS = [ROOT / "02_train/zebrafinch/mtlsd", ROOT / "02_train/fib25/small"]
PLENTY = 100 * 10**9
SHAPE = (240, 1620, 1620)


class Declared:
    """An array that only has a shape."""

    shape = SHAPE
    dtype = np.dtype(np.uint8)


@pytest.fixture(autouse=True)
def much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emsuite.common.device.free_memory", lambda: 2 * PLENTY)


def chosen(
    config: NetworkConfig, memory: int, device: torch.device, tiling: Tiling = BY_STRIDE, workers: int = 1
) -> tuple[int, ...]:
    with torch.device("meta"):
        network = build_network(config)
    size = Coordinate(config.voxel_size)
    raw = Volume(Path("raw.zarr"), Declared(), size, size * 0)
    roi = Roi(size * 0, Coordinate(SHAPE) * size)
    return input_shape_for(network, config, tiling, memory, raw, roi, device, workers)


def tiles_of(config: NetworkConfig, tile: tuple[int, ...]) -> int:
    with torch.device("meta"):
        step = build_network(config).receptive_field.step(tile)
    return math.prod(-(-n // width) for n, width in zip(SHAPE, step, strict=True))


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda folder: folder.name)
def test_a_gpu_with_room_gets_larger_tiles_that_read_less(folder: Path) -> None:
    config = load_network(folder, ["prediction.precision=bfloat16"])
    own, large = chosen(config, PLENTY, CPU), chosen(config, PLENTY, GPU)
    assert math.prod(large) * tiles_of(config, large) < 0.9 * math.prod(own) * tiles_of(config, own)
    assert all(n <= tile_size.LARGEST * m for n, m in zip(large, config.prediction.input_shape, strict=True))
    assert all(n <= m for n, m in zip(own, config.prediction.input_shape, strict=True))
    with torch.device("meta"):
        network = build_network(config)
    assert largest_tensor(network, config, large) < 2**31
    assert tiles_of(config, large) >= 8
    shared = chosen(config, PLENTY, GPU, workers=8)
    assert tiles_of(config, shared) >= min(64, tiles_of(config, own))
    less = math.prod(large) * bytes_per_voxel(network, config) / 2
    tight = chosen(config, int(less), GPU)
    assert math.prod(tight) * bytes_per_voxel(network, config) <= less


def test_little_memory_of_the_host_makes_tiles_small_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_network(NETWORKS[0])
    monkeypatch.setattr("emsuite.common.device.free_memory", lambda: 10**9)
    assert chosen(config, PLENTY, GPU) == chosen(config, PLENTY, CPU)


@pytest.mark.parametrize("tiling", [Blended("linear"), Original()], ids=lambda tiling: tiling.name)
def test_where_values_depend_on_the_size_it_is_as_configured(tiling: Tiling) -> None:
    config = load_network(NETWORKS[0])
    assert chosen(config, PLENTY, GPU, tiling) == chosen(config, PLENTY, CPU, tiling)


def test_a_grey_scale_of_each_tile_keeps_tiles_as_configured() -> None:
    config = load_network(NETWORKS[0], ["normalization.method=z_score", "normalization.scope=tile"])
    assert chosen(config, PLENTY, GPU) == chosen(config, PLENTY, CPU)
    config = load_network(NETWORKS[0], ["normalization.method=z_score", "normalization.scope=volume"])
    assert chosen(config, PLENTY, GPU) != chosen(config, PLENTY, CPU)


def test_no_tensor_has_more_values_than_a_kernel_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_network(NETWORKS[0])
    with torch.device("meta"):
        network = build_network(config)
    # 12 channels count as 16; of what comes up, 24 as 32, around an output of 60x272x272
    assert largest_tensor(network, config, (96, 484, 484)) == 16 * 96 * 484 * 484
    large = chosen(config, PLENTY, GPU)
    monkeypatch.setattr(tile_size, "_MOST_VALUES", largest_tensor(network, config, large) - 1)
    assert largest_tensor(network, config, chosen(config, PLENTY, GPU)) < largest_tensor(network, config, large)


def test_tiles_that_are_all_but_margin_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for tile, step, region, is_told in (
        ((29, 305, 305), (4, 16, 16), (30, 100, 100), True),
        ((29, 305, 305), (4, 16, 16), (4, 16, 16), False),  # one tile does
        ((96, 484, 484), (60, 270, 270), (1000, 1000, 1000), False),
    ):
        caplog.clear()
        tell_of_margins(tile, step, region)
        told = (
            "tiles of 29x305x305 voxels yield 4x16x16 each, the rest is margin; larger ones are faster: --input-shape"
        )
        assert (told in caplog.text) == is_told
