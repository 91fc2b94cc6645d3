"""One optimisation step of each published form, as plain functions on tensors of any precision: losses and gradients.

The networks are functions: `a2b`, `b2a` return their heads by name, behind the activation of none; `d_a`, `d_b` return
logits. Nothing of the suite is used, so that its step can be compared with this one. Written from the descriptions of
janelia-flyem/transfer_em (focal losses, padded cycle, four Adams) and junyanz/pytorch-CycleGAN-and-pix2pix (LSGAN, L1,
pool, one Adam for both generators and one for both discriminators).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Networks = Mapping[str, nn.Module]
Gradients = dict[str, list[Tensor]]


def centre(x: Tensor, width: int) -> Tensor:
    """The middle `width` voxels of the last three axes, of axes longer than one."""
    for axis in (2, 3, 4):
        if x.shape[axis] > 1:
            x = x.narrow(axis, (x.shape[axis] - width) // 2, width)
    return x


def sigmoid_focal(logits: Tensor, real: bool) -> Tensor:
    """alpha 0.5, gamma 2, times 2: (1 - p)^2 (-ln p) of the right answer."""
    p = torch.sigmoid(logits)
    p = p if real else 1 - p
    return 2 * (0.5 * (1 - p) ** 2 * -torch.log(p)).mean()


def image_focal(image: Tensor, target: Tensor) -> Tensor:
    """The focal loss of p = 1 - |a - b| / 2 against ones; p is clipped in the logarithm alone."""
    p = 1 - (image - target).abs() / 2
    return 2 * (0.5 * (1 - p) ** 2 * -torch.log(torch.maximum(p, torch.full_like(p, 1e-7)))).mean()


def gradients_of(losses: Mapping[str, Tensor], networks: Networks) -> Gradients:
    """The gradients of each network's own loss with respect to its own weights."""
    return {
        name: list(torch.autograd.grad(losses[name], [*networks[name].parameters()], retain_graph=True))
        for name in networks
    }


def transfer_em_step(
    networks: Networks, a: Tensor, b: Tensor, cycle_weight: float = 2.0, identity_weight: float = 1.0, pad: int = 17
) -> tuple[dict[str, Tensor], Gradients]:
    """transfer_em: `a` and `b` of n voxels, fakes of n - 34, cycles of n - 68; zero-padded by 17 on the way back.

    Returns:
        the loss of each network by its name, and each term; the gradients, all from one forward pass.
    """
    n = a.shape[-1]
    around = (pad, pad, pad, pad, *((pad, pad) if a.shape[2] > 1 else (0, 0)))

    def image(name: str, x: Tensor) -> Tensor:
        return networks[name](x)["image"]

    fake_b, fake_a = image("a2b", a), image("b2a", b)
    again_a = centre(image("b2a", functional.pad(fake_b, around)), n - 4 * pad)
    again_b = centre(image("a2b", functional.pad(fake_a, around)), n - 4 * pad)
    same_a, same_b = image("b2a", a), image("a2b", b)
    real_a, real_b = centre(a, n - 2 * pad), centre(b, n - 2 * pad)
    cycle = image_focal(again_a, centre(a, n - 4 * pad)) + image_focal(again_b, centre(b, n - 4 * pad))
    terms = {
        "adversarial_a2b": sigmoid_focal(networks["d_b"](fake_b), True),
        "adversarial_b2a": sigmoid_focal(networks["d_a"](fake_a), True),
        "cycle": cycle_weight * cycle,
        "identity_a": identity_weight * image_focal(same_a, real_a),
        "identity_b": identity_weight * image_focal(same_b, real_b),
    }
    losses = {
        "a2b": terms["adversarial_a2b"] + terms["cycle"] + terms["identity_b"],
        "b2a": terms["adversarial_b2a"] + terms["cycle"] + terms["identity_a"],
    }
    for name, real, fake in (("d_a", real_a, fake_a), ("d_b", real_b, fake_b)):
        d = networks[name]
        losses[name] = (sigmoid_focal(d(real), True) + sigmoid_focal(d(fake.detach()), False)) / 2
    return losses | terms, gradients_of(losses, networks)


def ccgan_step(
    networks: Networks,
    a: Tensor,
    b: Tensor,
    mask: Tensor | None = None,
    *,
    cycle_weight: float = 10.0,
    identity_weight: float = 5.0,
    mask_weight: float = 1.0,
    pooled: Callable[[str, Tensor], Tensor] = lambda name, fake: fake,
) -> tuple[dict[str, Tensor], Gradients]:
    """CCGAN: vanilla (CycleGAN), or with the mask of A as labels of a head `mask` (seg_match).

    Args:
        networks: the four networks; images go through tanh.
        a: (N, 1, Z, Y, X).
        b: the same shape.
        mask: (N, 1, Z, Y, X), 0 or 1; None: vanilla.
        cycle_weight: lambda of both cycles.
        identity_weight: of both identities, already times lambda.
        mask_weight: of the mask at synthesis and at reconstruction.
        pooled: what a discriminator is shown for the newest fakes, by the discriminator's name.

    Returns:
        as `transfer_em_step`; the loss of both generators is the same sum.
    """

    def image(name: str, x: Tensor) -> Tensor:
        return torch.tanh(networks[name](x)["image"])

    heads_b, heads_a = networks["a2b"](a), networks["b2a"](b)
    fake_b, fake_a = torch.tanh(heads_b["image"]), torch.tanh(heads_a["image"])
    heads_again = networks["b2a"](fake_b)
    terms = {
        "adversarial_a2b": ((networks["d_b"](fake_b) - 1) ** 2).mean(),
        "adversarial_b2a": ((networks["d_a"](fake_a) - 1) ** 2).mean(),
        "cycle_a": cycle_weight * (torch.tanh(heads_again["image"]) - a).abs().mean(),
        "cycle_b": cycle_weight * (image("a2b", fake_a) - b).abs().mean(),
        "identity_a": identity_weight * (image("b2a", a) - a).abs().mean(),
        "identity_b": identity_weight * (image("a2b", b) - b).abs().mean(),
    }
    if mask is not None:
        for name, heads in (("mask_synthesis", heads_b), ("mask_reconstruction", heads_again)):
            p = torch.sigmoid(heads["mask"])
            terms[name] = mask_weight * -(mask * torch.log(p) + (1 - mask) * torch.log(1 - p)).mean()
    total = torch.stack([*terms.values()]).sum()
    losses = {"a2b": total, "b2a": total}
    for name, real, fake in (("d_a", a, fake_a), ("d_b", b, fake_b)):
        shown = pooled(name, fake.detach())
        losses[name] = (((networks[name](real) - 1) ** 2).mean() + (networks[name](shown) ** 2).mean()) / 2
    return losses | terms, gradients_of(losses, networks)


class Adam:
    """Adam (Kingma and Ba 2015), algorithm 1, for the weights of one or more networks."""

    def __init__(self, weights: Sequence[Tensor], rate: float = 2e-4, beta1: float = 0.5, beta2: float = 0.999,
                 epsilon: float = 1e-8):  # fmt: skip
        self.weights, self.rate, self.beta1, self.beta2, self.epsilon = list(weights), rate, beta1, beta2, epsilon
        self.first = [torch.zeros_like(weight) for weight in self.weights]
        self.second = [torch.zeros_like(weight) for weight in self.weights]
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update the weights in place."""
        self.steps += 1
        for index, gradient in enumerate(gradients):
            self.first[index] = self.beta1 * self.first[index] + (1 - self.beta1) * gradient
            self.second[index] = self.beta2 * self.second[index] + (1 - self.beta2) * gradient**2
            mean = self.first[index] / (1 - self.beta1**self.steps)
            variance = self.second[index] / (1 - self.beta2**self.steps)
            self.weights[index] -= self.rate * mean / (variance.sqrt() + self.epsilon)


class Pool:
    """The pool of earlier fakes; `draws` returns whether to swap, and with which of the images."""

    def __init__(self, size: int = 50):
        self.size = size
        self.images: list[Tensor] = []

    def query(self, fakes: Tensor, draws: Callable[[], tuple[bool, int]]) -> Tensor:
        """The images that a discriminator is shown for `fakes` (N, ...)."""
        shown = []
        for fake in fakes:
            if len(self.images) < self.size:
                self.images.append(fake)
                shown.append(fake)
                continue
            swaps, index = draws()
            if swaps:
                shown.append(self.images[index])
                self.images[index] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)
