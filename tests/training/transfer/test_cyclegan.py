"""One iteration of each form of domain transfer beside an independent reference in float64: losses, gradients, pool."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emsuite.config.network import NetworkConfig, load_network
from emsuite.training.batches import Batch, BatchShare
from emsuite.training.registry import STEPS
from emsuite.training.resume import start
from emsuite.training.step import StepResult, TrainingState
from emsuite.training.volumes import load_training_data
from small_transfer import two_domains, write_padded, write_valid
from training.transfer.reference_step import Adam, Pool, ccgan_step, transfer_em_step

CPU = torch.device("cpu")


class Run:
    """Iterations of a network, each with the weights before it as float64, and what it was trained on."""

    def __init__(self, folder: Path):
        self.config: NetworkConfig = load_network(folder)
        self.state: TrainingState = start(folder, self.config, CPU)
        volumes = load_training_data(self.config, [], folder)
        if self.config.generators.generator.kind == "valid_unet":
            for weight in self.state.trained:  # without norms, gradients of fresh weights are lost in rounding
                weight.detach().mul_(6 if weight.ndim == 4 else 3)
        self.step = STEPS[self.config.step]
        share = BatchShare(0, self.config.training.batch_size)
        self.batches = self.step.make_batches(self.state, self.config, volumes, share, range(1, 20), CPU)
        self.before: dict[str, nn.Module] = {}

    def __call__(self, iteration: int = 1) -> StepResult:
        self.before = {name: copy.deepcopy(net).double() for name, net in self.state.networks.items()}
        return self.step.run(self.state, self.config, self.batches, iteration)

    def check(self, result: StepResult, losses: Mapping[str, Tensor], gradients: Mapping[str, list[Tensor]]) -> None:
        """The losses of the discriminators, and the gradients of all networks, are those of the reference."""
        for name in ("d_a", "d_b"):
            torch.testing.assert_close(result.losses[name].double(), losses[name].detach(), rtol=1e-4, atol=1e-6)
        for name, network in self.state.networks.items():
            own = [parameter.grad for parameter in network.parameters()]
            scale = max(float(gradient.abs().max()) for gradient in gradients[name])
            assert scale > 0
            for found, expected in zip(own, gradients[name], strict=True):
                assert found is not None
                torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-5 * scale)


def images(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.arrays["raw"].double(), batch.arrays["b"].double()


@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_an_iteration_of_transfer_em(tmp_path: Path, dims: int) -> None:
    networks = {"generator": {"kind": "valid_unet", "dims": dims, "width": 2, "dropout": 0.0},
                "discriminator": {"kind": "valid", "dims": dims, "width": 2}}  # fmt: skip
    shape = [1, 74, 74] if dims == 2 else [74, 74, 74]
    domains = two_domains(tmp_path / "cubes", (76 if dims == 3 else 6, 76, 76))
    folder = write_valid(tmp_path / "n", {**networks, "domains": domains}, training={"input_shape": shape})
    run = Run(folder)
    result = run()
    losses, gradients = transfer_em_step(run.before, *images(result.batch))
    run.check(result, losses, gradients)
    cycle = 2 * (result.losses["cycle_a"] + result.losses["cycle_b"])
    torch.testing.assert_close(cycle.double(), losses["cycle"].detach(), rtol=1e-4, atol=1e-6)
    for name in ("adversarial_a2b", "adversarial_b2a", "identity_a", "identity_b"):
        torch.testing.assert_close(result.losses[name].double(), losses[name].detach(), rtol=1e-4, atol=1e-6)
    assert sorted(run.state.optimizers) == ["a2b", "b2a", "d_a", "d_b"]
    for name, network in run.before.items():  # Adam's step
        weights = [parameter.detach().clone() for parameter in network.parameters()]
        Adam(weights, rate=0.01, epsilon=1e-7).step(gradients[name])
        for moved, expected in zip(run.state.networks[name].parameters(), weights, strict=True):
            far = (moved.detach().double() - expected).abs()
            assert (far < 2e-4).double().mean() > 0.98  # where a gradient is 0 but for rounding, its sign decides


def masked(batch: Batch) -> Tensor:
    return batch.targets["mask"].values.double()


@pytest.mark.parametrize("heads", [(), ("mask",)], ids=["vanilla", "seg_match"])
def test_iterations_of_ccgan(tmp_path: Path, heads: tuple[str, ...]) -> None:
    """With the pool: its draws are those of the suite's own, what it keeps and returns is the reference's."""
    labels = {"labels": {"synthesis": 0.5, "reconstruction": 0.5}} if heads else {}
    folder = write_padded(tmp_path / "n", {"pool": 3, "losses": labels}, heads, training={"batch_size": 2})
    run, pools = Run(folder), {name: Pool(3) for name in ("d_a", "d_b")}
    for iteration in range(1, 5):
        known = {name: [image.clone() for image in run.state.pools[name[2:]]._images] for name in pools}
        result = run(iteration)

        def pooled(name: str, fakes: Tensor, iteration: int = iteration, known: Any = known) -> Tensor:
            draws = recorded_draws(run.state.pools[name[2:]].seed, name == "d_b", iteration)
            shown = pools[name].query(fakes, draws)
            for mine, theirs in zip(known[name], pools[name].images, strict=False):
                assert mine.shape == theirs.shape
            return shown

        mask = masked(result.batch) if heads else None
        losses, gradients = ccgan_step(run.before, *images(result.batch), mask, mask_weight=0.5, pooled=pooled)
        run.check(result, losses, gradients)
        torch.testing.assert_close(result.losses["loss"].double(), losses["a2b"].detach(), rtol=1e-4, atol=1e-5)
        for name in heads and ("mask_synthesis", "mask_reconstruction"):
            torch.testing.assert_close(0.5 * result.losses[name].double(), losses[name].detach(), rtol=1e-4, atol=1e-6)
        for name, pool in pools.items():
            own = run.state.pools[name[2:]].state_dict()["images"].double()
            torch.testing.assert_close(own, torch.stack(pool.images).detach(), rtol=1e-3, atol=1e-4)
            pool.images = list(own)  # rounding does not add up
    assert sorted(run.state.optimizers) == ["discriminators", "generators"]


def recorded_draws(seed: int, stream: int, iteration: int) -> Callable[[], tuple[bool, int]]:
    import numpy as np

    random = np.random.default_rng([seed, int(stream), iteration - 1])

    def draw() -> tuple[bool, int]:
        swaps = random.random() > 0.5
        return swaps, int(random.integers(3)) if swaps else 0

    return draw


def cerberus(networks: Mapping[str, nn.Module], batch: Batch, detach: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """The gradients of the later form, written from its description: three heads, pseudo-cycle, D of heads."""
    a, b = images(batch)
    names = ("mask", "contour", "distance")
    known = [batch.targets[name].values.double() for name in names]

    def values(heads: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(
            [torch.sigmoid(heads["mask"]), torch.sigmoid(heads["contour"]), torch.tanh(heads["distance"])], 1
        )

    def of_labels(heads: Mapping[str, Tensor]) -> Tensor:
        bce = nn.functional.binary_cross_entropy_with_logits
        return bce(heads["mask"], known[0]) + bce(heads["contour"], known[1]) + (
            (torch.tanh(heads["distance"]) - known[2]).abs().mean()
        )  # fmt: skip

    a2b, b2a = networks["a2b"], networks["b2a"]
    first_a, first_b = a2b(a), b2a(b)
    fake_b, fake_a = torch.tanh(first_a["image"]), torch.tanh(first_b["image"])
    second_a, second_b = b2a(fake_b), a2b(fake_a)
    cut_a, cut_b = b2a(fake_b.detach()), a2b(fake_a.detach())

    def second(name: str, own: Any, cut: Any) -> Any:
        return cut if name in detach else own

    real = lambda name, x: ((networks[name](x) - 1) ** 2).mean()  # noqa: E731
    fake = lambda name, x: (networks[name](x) ** 2).mean()  # noqa: E731
    total = real("d_b", fake_b) + real("d_a", fake_a)
    total = total + 10 * (
        (torch.tanh(second_a["image"]) - a).abs().mean() + (torch.tanh(second_b["image"]) - b).abs().mean()
    )
    total = total + of_labels(first_a) + of_labels(second("labels", second_a, cut_a))
    total = total + 2 * (values(first_b) - values(second("pseudo_cycle", second_b, cut_b))).abs().mean()
    total = total + real("d_heads", values(first_b)) + 0.7 * real("d_heads", values(second("heads", second_b, cut_b)))
    of_heads = (
        real("d_heads", torch.cat(known, 1))
        + (fake("d_heads", values(first_b).detach()) + fake("d_heads", values(second_b).detach())) / 2
    )
    losses = {"a2b": total, "b2a": total, "d_heads": of_heads / 2}
    losses |= {"d_a": (real("d_a", a) + fake("d_a", fake_a.detach())) / 2}
    losses |= {"d_b": (real("d_b", b) + fake("d_b", fake_b.detach())) / 2}
    return {
        name: list(torch.autograd.grad(losses[name], [*networks[name].parameters()], retain_graph=True))
        for name in networks
    } | {"loss": [total]}


@pytest.mark.parametrize("detach", [(), ("labels",), ("heads", "pseudo_cycle"), ("labels", "heads", "pseudo_cycle")])
def test_an_iteration_with_three_heads(tmp_path: Path, detach: tuple[str, ...]) -> None:
    weights = {"identity": {"weight": 0}, "pseudo_cycle": 2, "heads": {"synthesis": 1, "reconstruction": 0.7}}
    judge = {"kind": "patch", "width": 2, "layers": 1}
    changes = {"heads_discriminator": judge, "losses": weights, "detach": list(detach), "pool": 0}
    folder = write_padded(tmp_path / "n", changes, ("mask", "contour", "distance"))
    text = (folder / "network.yaml").read_text().replace("target: distance", "target: distance\n    loss: mae")
    (folder / "network.yaml").write_text(text)
    run = Run(folder)
    assert run.config.heads["distance"].loss == "mae"
    result = run()
    gradients = cerberus(run.before, result.batch, detach)
    torch.testing.assert_close(result.losses["loss"].double(), gradients.pop("loss")[0].detach(), rtol=1e-4, atol=1e-5)
    run.check(result, {name: result.losses[name].double() for name in ("d_a", "d_b")}, gradients)
    others = {(): ("labels",), ("labels",): ()}.get(detach, ())
    unlike = cerberus(run.before, result.batch, others)
    with pytest.raises(AssertionError):  # a flag changes the gradients
        run.check(result, {name: result.losses[name].double() for name in ("d_a", "d_b")}, unlike)
