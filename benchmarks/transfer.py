#!/usr/bin/env python
"""Time an iteration of domain transfer with its data, beside the same networks in a plain loop of torch."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from iteration import EVERY, time_iterations
from measure import device as device_option
from table import Row, memory, report, seconds
from table import save as save_option
from volumes import random_cells, write

from emsuite.cli.command import stage
from emsuite.common.files import write_text
from emsuite.config.network import load_network

ROOT = Path(__file__).resolve().parents[1]
FORMS = {
    "transfer_em, 3-D, width 4": """
transfer:
  generator: {kind: valid_unet, width: 4}
  discriminator: {kind: valid, width: 4}
  losses: {adversarial: {loss: focal}, cycle: {loss: focal, weight: 2}, identity: {loss: focal, weight: 1}}
  cycle_padding: context
  optimizers: each
  pool: 0
  domains: DOMAINS
training:
  {input_shape: [74, 74, 74], batch_size: 2, optimizer: {learning_rate: 2.0e-4, betas: [0.5, 0.999], eps: 1.0e-7}, MORE}
prediction: {input_shape: [74, 74, 74]}
""",
    "CCGAN, 2-D, width 16, 6 blocks": """
heads: {image: {target: transferred, output: tanh}}
transfer:
  generator: {kind: resnet, width: 16, blocks: 6}
  discriminator: {kind: patch, width: 16}
  domains: DOMAINS
training: {input_shape: [1, 128, 128], batch_size: 1, optimizer: {learning_rate: 2.0e-4, betas: [0.5, 0.999]}, MORE}
prediction: {input_shape: [1, 256, 256]}
""",
}
QUIET = f"iterations: 100000, log_every: {EVERY}, checkpoint_every: 10000000, snapshot_every: 10000000, sampling: {{}}"


@stage(example="python benchmarks/transfer.py")
@device_option
@click.option("--form", "forms", type=click.Choice(list(FORMS)), multiple=True, help="What to train (default: all).")
@click.option("--iterations", type=click.IntRange(3 * EVERY), default=3 * EVERY, help="Iterations of a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Rounds between plain loops; the median counts.")
@save_option
def main(device: str, forms: tuple[str, ...], iterations: int, rounds: int, json_path: Path | None) -> None:
    """Train transfer_em's networks in 3-D and CCGAN's in 2-D from fresh weights, as 02_train/train.py does.

    The plain loop has the same networks, losses, pool and optimizers, and one batch that never changes. It reads no
    volumes, writes no log and saves nothing.
    """
    import torch

    rows = []
    for name in forms or FORMS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = write_network(Path(temporary), name)
            config = load_network(folder)
            plain, whole, most = [time_plain(config, device, iterations)], list[float](), 0
            for number in range(rounds):  # alternating, because the speed of a machine changes from minute to minute
                whole.append(time_transfer(folder, config, device, number * iterations, iterations))
                most = torch.cuda.max_memory_allocated() if device == "cuda" else 0
                plain.append(time_plain(config, device, iterations))
        around = [(before + after) / 2 for before, after in itertools.pairwise(plain)]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(whole, around, strict=True))
        shape = "x".join(map(str, config.training.input_shape))
        what = f"domain transfer, {name}, float32, {config.training.batch_size} of {shape}: iteration with its data"
        beside = f"plain torch {seconds(statistics.median(around))}"
        rows.append(Row(what, seconds(statistics.median(whole)), beside, ratio, "<= 1.1", memory(most) if most else ""))
    report(rows, json_path)


def write_network(folder: Path, form: str) -> Path:
    """Write two volumes of random cells and the network of a form; return its folder."""
    raw, labels = random_cells((100, 200, 200))
    for name, values in (("a", raw), ("b", 255 - raw)):
        write(folder / f"{name}.zarr", values, labels, (8, 8, 8))
    scaling = ", scaling: signed_unit_range"
    sides = [f"{name}: {{volumes: [{{raw: {folder / name}.zarr/volumes/raw}}]{scaling}}}" for name in ("a", "b")]
    text = FORMS[form].replace("DOMAINS", "{" + ", ".join(sides) + "}").replace("MORE", QUIET)
    network = folder / "peer" / "transfer"
    network.mkdir(parents=True)
    write_text(network / "network.yaml", f"step: cyclegan\nvoxel_size: [8, 8, 8]\n{text}")
    return network


def time_transfer(folder: Path, config, device: str, first: int, iterations: int) -> float:
    """Return the seconds per iteration of the trainer."""
    from emsuite.training.volumes import load_training_data

    return time_iterations(folder, config, load_training_data(config, [], ROOT), device, first, iterations)


def time_plain(config, device: str, iterations: int) -> float:
    """Return the seconds per iteration of the plain loop, the median of as many as one entry of a log covers."""
    import torch

    from emsuite.common.process import kept_memory

    step = make_plain_step(config, torch.device(device))
    took = []
    with kept_memory():
        for _ in range(iterations // EVERY):
            before = time.perf_counter()
            for _ in range(EVERY):
                step()
            if device == "cuda":
                torch.cuda.synchronize()
            took.append((time.perf_counter() - before) / EVERY)
    return statistics.median(took[1:])


def make_plain_step(config, device) -> Callable[[], None]:
    """Return one iteration of the form that `config` says, in plain torch."""
    import torch

    from emsuite.config.transfer_networks import build_networks
    from emsuite.models.network import moved

    torch.manual_seed(0)
    networks = build_networks(config.transfer, config.heads)
    for network in networks.values():
        moved(network.train(), device)
    training = config.training
    shape = (training.batch_size, 1, *training.input_shape)
    a, b = (torch.rand(shape, device=device) * 2 - 1 for _ in range(2))
    options = {"lr": 2e-4, "betas": training.optimizer.betas, "eps": training.optimizer.eps}
    groups = [["a2b"], ["b2a"], ["d_a"], ["d_b"]]
    if config.transfer.optimizers == "pairs":
        groups = [["a2b", "b2a"], ["d_a", "d_b"]]
    optimizers = [torch.optim.Adam([p for n in group for p in networks[n].parameters()], **options) for group in groups]
    return PlainStep(networks, optimizers, a, b, is_valid=config.transfer.cycle_padding == "context")


class PlainStep:
    """An iteration of transfer_em (`is_valid`), or of CycleGAN."""

    def __init__(self, networks, optimizers, a, b, is_valid: bool):
        self.networks, self.optimizers, self.a, self.b, self.is_valid = networks, optimizers, a, b, is_valid
        self.pools: dict[str, list] = {"a": [], "b": []}

    def __call__(self) -> None:
        """Update all networks."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        judges = [p for name in ("d_a", "d_b") for p in self.networks[name].parameters()]
        for parameter in judges:
            parameter.requires_grad_(False)
        loss, fake_a, fake_b = self.generators_loss()
        loss.backward()
        for parameter in judges:
            parameter.requires_grad_(True)
        for name, real, fake in (("a", self.real(self.a), fake_a), ("b", self.real(self.b), fake_b)):
            judge, shown = self.networks[f"d_{name}"], self.shown(name, fake.detach())
            ((self.judged(judge(real), 1.0) + self.judged(judge(shown), 0.0)) / 2).backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def generators_loss(self):
        """Return the loss of both generators, and what they make."""
        a2b, b2a = (self.made_by(name) for name in ("a2b", "b2a"))
        fake_b, fake_a = a2b(self.a), b2a(self.b)
        again_a, again_b = b2a(self.padded(fake_b)), a2b(self.padded(fake_a))
        loss = self.judged(self.networks["d_b"](fake_b), 1.0) + self.judged(self.networks["d_a"](fake_a), 1.0)
        cycle, identity = (2, 1) if self.is_valid else (10, 5)
        for x, again, same in ((self.a, again_a, b2a(self.a)), (self.b, again_b, a2b(self.b))):
            real = self.real(x)
            loss = loss + cycle * self.apart(self.middle(again), self.middle(real)) + identity * self.apart(same, real)
        return loss, fake_a, fake_b

    def made_by(self, name: str):
        """Return a generator's image as a function."""
        network = self.networks[name]
        return (lambda x: network(x)["image"]) if self.is_valid else (lambda x: network(x)["image"].tanh())

    def real(self, x):
        """Return the part of a sample in whose place its transferred image lies."""
        return x[..., 17:-17, 17:-17, 17:-17] if self.is_valid else x

    def middle(self, x):
        """Return the part of a reconstruction that is compared."""
        return self.real(x)

    def padded(self, fake):
        """Return a transferred image as the other generator reads it."""
        import torch

        return torch.nn.functional.pad(fake, (17,) * 6) if self.is_valid else fake

    def judged(self, logits, answer: float):
        """Return the loss of a discriminator's logits."""
        import torch

        if not self.is_valid:
            return (logits - answer).square().mean()
        wrong = -logits if answer else logits
        return (torch.sigmoid(wrong).square() * torch.nn.functional.softplus(wrong)).mean()

    def apart(self, x, y):
        """Return the distance of two images."""
        distance = (x - y).abs()
        if not self.is_valid:
            return distance.mean()
        half = distance / 2
        return (half.square() * -(1 - half).clamp(min=1e-7).log()).mean()

    def shown(self, name: str, fakes):
        """Return what a discriminator sees of new fakes and the pool."""
        import random

        import torch

        if self.is_valid:
            return fakes
        chosen, pool = [], self.pools[name]
        for fake in fakes:
            if len(pool) < 50:
                pool.append(fake)
            elif random.random() > 0.5:
                place = random.randrange(50)
                fake, pool[place] = pool[place], fake
            chosen.append(fake)
        return torch.stack(chosen)


if __name__ == "__main__":
    main()
