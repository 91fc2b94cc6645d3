"""The networks of domain transfer: each number that their sources publish, and samples that fit the volumes they name.

Sources: janelia-flyem/transfer_em; junyanz/pytorch-CycleGAN-and-pix2pix and CCGAN, which begins from it; CySGAN.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import NETWORKS, ROOT
from emsuite.config.network import load_network
from emsuite.training.transfer.domains import domains_of
from emsuite.training.volumes import load_training_data

TRAIN = ROOT / "02_train/fib25"
TRANSFER = [folder for folder in NETWORKS if load_network(folder).transfer]
LSGAN = {"adversarial": "lsgan", "cycle": ("l1", 10), "identity": ("l1", 5)}  # lambda 10, identity half of it
CYCLEGAN = LSGAN | {"pool": 50, "optimizers": "pairs", "rate": (2e-4, (0.5, 0.999), 1e-8)}
EPOCHS = {"constant": 100_000, "iterations": 200_000, "batch": 1, "sample": (1, 256, 256)}  # 100 + 100, of 1000 samples
PUBLISHED: dict[str, dict[str, Any]] = {
    "transfer_em": {
        "adversarial": "focal", "cycle": ("focal", 2), "identity": ("focal", 1), "pool": 0, "optimizers": "each",
        "rate": (2e-4, (0.5, 0.999), 1e-7), "constant": None, "iterations": 3000 * 4096, "batch": 1,
        "sample": (74, 74, 74),
    },
    "ccgan_vanilla": CYCLEGAN | EPOCHS,
    "ccgan_seg_match": CYCLEGAN | EPOCHS,
    "ccgan_cerberus": CYCLEGAN | {"constant": 20_000, "iterations": 35_000, "batch": 4, "sample": (17, 97, 97)},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_pool_optimizers_and_run(name: str) -> None:
    config = load_network(TRAIN / name)
    assert config.transfer is not None
    transfer, training, losses = config.transfer, config.training, config.transfer.losses
    optimizer = training.optimizer
    assert {
        "adversarial": losses.adversarial.loss,
        "cycle": (losses.cycle.loss, losses.cycle.weight),
        "identity": (losses.identity.loss, losses.identity.weight),
        "pool": transfer.pool,
        "optimizers": transfer.optimizers,
        "rate": (optimizer.learning_rate, optimizer.betas, optimizer.eps),
        "constant": transfer.constant_iterations,
        "iterations": training.iterations,
        "batch": training.batch_size,
        "sample": training.input_shape,
    } == PUBLISHED[name]
    assert (losses.adversarial.weight, losses.adversarial.discriminator_weight) == (1, 0.5)
    assert training.precision == "float32"
    assert optimizer.clip_norm is training.average is None


def test_networks_and_heads() -> None:
    def parts(name: str) -> tuple[Any, Any, Any]:
        config = load_network(TRAIN / name)
        assert config.transfer is not None
        kinds = (config.transfer.generator.kind, config.transfer.discriminator.kind)
        return kinds, config.transfer.losses.model_dump()["labels"], list(config.heads)

    once = {"synthesis": 1, "reconstruction": 1}
    assert parts("transfer_em") == (("valid_unet", "valid"), once, ["image"])
    assert parts("ccgan_vanilla") == (("resnet", "patch"), once, ["image"])
    assert parts("ccgan_seg_match") == (("resnet", "patch"), once, ["image", "mask"])
    assert parts("ccgan_cerberus") == (("residual_unet", "patch"), once, ["image", "mask", "contour", "distance"])
    cerberus = load_network(TRAIN / "ccgan_cerberus").transfer
    assert cerberus is not None
    assert (cerberus.losses.pseudo_cycle, cerberus.losses.heads.model_dump()) == (2, once)
    em = load_network(TRAIN / "transfer_em").transfer
    assert em is not None
    assert em.cycle_padding == "context"
    change = em.sampling.change
    assert change is not None
    assert (change.scale, change.shift) == ((1, 1.05), (-0.05, 0.05))


@pytest.mark.parametrize("folder", TRANSFER, ids=lambda folder: folder.name)
def test_samples_fit_the_volumes_that_the_network_names(folder: Path, fib25_slab: Path, tmp_path: Path) -> None:
    """The second look has the voxels of the first, so that the first stands for it."""
    for place in ("funke/fib25", "fib25_second_look"):
        volume = tmp_path / "data" / place / "training" / fib25_slab.name
        volume.parent.mkdir(parents=True)
        volume.symlink_to(fib25_slab)
    copy = tmp_path / "02_train/fib25" / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoints", "log", "snapshots", "runs"))
    for name in ("02_train/fib25/dataset.yaml", "01_data/datasets/fib25.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    config = load_network(copy)
    for domain in domains_of(load_training_data(config, [], tmp_path)):
        assert domain.windows(config.training.input_shape)
