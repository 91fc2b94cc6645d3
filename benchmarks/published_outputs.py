#!/usr/bin/env python
"""Compare the outputs of converted checkpoints with those that TensorFlow computed with them.

The checkpoints are the thin ones among the fixtures of the tests: 2 feature maps where the published networks have 60.
"""

import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from measure import device as device_option
from table import Row, report
from table import save as save_option

from emsuite.cli.command import stage
from emsuite.common.device import Precision

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests/fixtures/tensorflow"
NETWORKS = tuple(f"zebrafinch/{name}" for name in ("baseline", "long_range", "malis", "lsd", "mtlsd"))
WITHIN = {"float32": "<= 1e-4"}
"""The goal of each precision that has one."""
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


@stage(example="python benchmarks/published_outputs.py\npython benchmarks/published_outputs.py --device cuda")
@device_option
@save_option
def main(device: str, json_path: Path | None) -> None:
    """Print the largest difference of affinities and descriptors, which lie in [0, 1], in each precision."""
    most = dict.fromkeys(PRECISIONS, 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        thin = thin_networks(Path(temporary))
        for name in (*NETWORKS, "fib25/mtlsd"):
            for precision, difference in differences(name, thin / name, device).items():
                most[precision] = max(most[precision], difference)
    what = f"converted weights, {len(NETWORKS) + 1} networks"
    report(
        [Row(f"{what}, {p}: farthest from TensorFlow", f"{most[p]:.1e}", goal=WITHIN.get(p, "")) for p in PRECISIONS],
        json_path,
    )


def thin_networks(folder: Path) -> Path:
    """Copy the settings of all networks with as few feature maps as the recorded checkpoints have."""
    shutil.copytree(ROOT / "01_data/datasets", folder / "01_data/datasets")
    for path in [*ROOT.glob("02_train/*/*.yaml"), *ROOT.glob("02_train/*/*/network.yaml")]:
        text = re.sub(r"num_fmaps: \d+", "num_fmaps: 1", path.read_text())
        text = re.sub(r"fmap_inc_factor: \d+", "fmap_inc_factor: 2", text)
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"num_fmaps_out: \d+", "num_fmaps_out: 3", text))
    return folder / "02_train"


def differences(name: str, folder: Path, device: str) -> dict[Precision, float]:
    """Convert a checkpoint; return how far its outputs are from the recorded ones, in each precision."""
    import torch

    from emsuite.common.device import computing_in
    from emsuite.config.network import load_network
    from emsuite.published.published import convert
    from emsuite.training.trained_network import load_trained

    prefix = next((RECORDED / name).glob("*.index")).with_suffix("")
    convert(prefix, folder, optimizer=False)
    network = load_trained(folder, load_network(folder))[0].eval().to(device)
    expected, found = dict(np.load(RECORDED / name / "expected.npz")), {}
    raw = torch.from_numpy(raw_of(expected)).to(device).contiguous(memory_format=torch.channels_last_3d)
    for precision in PRECISIONS:
        with torch.inference_mode(), computing_in(torch.device(device), precision):
            logits = {head: values.float().cpu() for head, values in network(raw).items()}
        found[precision] = max(
            float(np.abs(values.sigmoid()[0].numpy() - expected[head]).max()) for head, values in logits.items()
        )
    return found


def raw_of(expected: dict[str, np.ndarray]) -> np.ndarray:
    """Return the recorded input, (1, 1, Z, Y, X) float32 in [-1, 1]."""
    grey = np.random.default_rng(int(expected["raw_seed"])).integers(0, 256, expected["raw_period"], dtype=np.uint8)
    places = [np.arange(n) % period for n, period in zip(expected["raw_shape"], grey.shape, strict=True)]
    return grey[np.ix_(*places)].astype(np.float32)[None, None] / np.float32(255) * np.float32(2) - np.float32(1)


if __name__ == "__main__":
    main()
