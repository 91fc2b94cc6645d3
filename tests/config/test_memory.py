"""The memory of a training step, by hand, and runs that cannot fit."""

from pathlib import Path

import pytest
import torch

from builders import write_network
from emsuite.common.errors import BadInput
from emsuite.config import memory
from emsuite.config.memory import check_memory, least_bytes
from emsuite.config.network import load_network, parameter_count

CPU = torch.device("cpu")


def test_by_hand(tmp_path: Path) -> None:
    config = load_network(write_network(tmp_path / "d/n"), ["training.batch_size=6", "training.accumulate=2"])
    weights = 16 * parameter_count(config)
    # 3 samples a pass, 16^3 voxels behind two kernels, 4 feature maps of float32; labels reach one voxel back
    assert least_bytes(config) == (weights + 3 * 16**3 * 4 * 4, 6 * 4 * (20**3 + 2**3))
    assert least_bytes(config, 3) == (weights + 1 * 16**3 * 4 * 4, 2 * 4 * (20**3 + 2**3))


@pytest.mark.parametrize(
    "override",
    ["training.batch_size=1000000", "training.input_shape=[8000, 8000, 8000]", "unet.num_fmaps=60000",
     "heads={lsds: {target: lsds, sigma: 100000}}"],
)  # fmt: skip
def test_what_no_machine_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 30 * 2**30)
    folder = write_network(tmp_path / "d/n")
    check_memory(load_network(folder), CPU)
    overrides = [override, "unet.fmap_inc_factor=1"]
    with pytest.raises(BadInput, match=r"^d/n: training\.input_shape .* takes at least [0-9.]+ GiB, of which this "):
        check_memory(load_network(folder, overrides), CPU)
