"""The losses of domain transfer: what generators and discriminators learn from one batch of both domains.

a --a2b--> fake b, heads --b2a--> reconstructed a, heads
b --b2a--> fake a, heads --a2b--> reconstructed b, heads
a --b2a--> a                      b --a2b--> b

adversarial_a2b, adversarial_b2a              fakes, which discriminators take for real ones
cycle_a, cycle_b                              reconstructions and images
identity_a, identity_b                        images and what the generator to their own look makes of them
HEAD_synthesis, HEAD_reconstruction           heads of a, and its labels
pseudo_cycle                                  heads of b in both passes
heads_synthesis, heads_reconstruction         heads of b, which their discriminator takes for those of labels
d_a, d_b, d_heads                             of the discriminators

Sources: Zhu et al. 2017 (CycleGAN), Lauenburg et al. 2023 (CySGAN), Lauenburg/og_cysgan_dev, janelia-flyem/transfer_em.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from emsuite.common.device import computing_in
from emsuite.config.network import NetworkConfig
from emsuite.losses.adversarial import ADVERSARIAL
from emsuite.losses.cycle import CYCLE
from emsuite.losses.target import HeadOutput, Target
from emsuite.models.transfer.generator import IMAGE
from emsuite.training.transfer.geometry import Geometry

Heads = Mapping[str, Tensor]
"""Logits by head, without the image."""


@dataclass(frozen=True)
class Cycle:
    """Images of one domain on their way through both generators. (B, C, Z, Y, X) float32."""

    real: Tensor
    """In the place of `fake`."""
    fake: Tensor
    heads: Heads
    """Beside `fake`."""
    back: Tensor
    """The reconstruction, as far as it is compared."""
    again: Heads
    """Beside `back`."""
    cut: Heads
    """As `again`, without a gradient for the first generator; empty if nothing asks for it."""


class Translator:
    """The networks of domain transfer as they are called, with the sizes of their images."""

    def __init__(self, networks: Mapping[str, nn.Module], config: NetworkConfig, geometry: Geometry):
        self.networks, self.config, self.geometry = networks, config, geometry
        self.transfer = config.generators
        self._judge = ADVERSARIAL[self.transfer.losses.adversarial.loss]

    def __call__(self, name: str, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the image that a generator makes of `x`, and the logits of its other heads, in float32."""
        with computing_in(x.device, self.config.training.precision):
            logits = self.networks[name](x)
        logits = {head: values.float() for head, values in logits.items()}
        image = self.config.heads[IMAGE].activate(logits.pop(IMAGE))
        return image, logits

    def cycle(self, x: Tensor, there: str, back: str) -> Cycle:
        """Return images of one domain through the generator `there` and through the generator `back`."""
        fake, heads = self(there, x)
        image, again = self(back, self.geometry.read(fake))
        cut: dict[str, Tensor] = {}
        if self.transfer.detach:
            _, cut = self(back, self.geometry.read(fake.detach()))
        middle = self.geometry.reconstructed
        return Cycle(self.geometry.real(x), fake, heads, middle(image), _each(middle, again), _each(middle, cut))

    def judged(self, name: str, images: Tensor, is_real: bool) -> Tensor:
        """Return the loss of a discriminator's opinion of images, or of heads, compared with real or fake."""
        with computing_in(images.device, self.config.training.precision):
            logits = self.networks[name](images)
        return self._judge(logits.float(), is_real)

    def values(self, heads: Heads) -> Tensor:
        """Return the values of heads behind their activation, their channels one behind the other."""
        return torch.cat([self.config.heads[name].activate(logits) for name, logits in heads.items()], 1)

    def again_or_cut(self, cycle: Cycle, what: str) -> Heads:
        """Return the heads of the second pass for a loss that `detach` may name."""
        return cycle.cut if what in self.transfer.detach else cycle.again


def weights(config: NetworkConfig) -> dict[str, float]:
    """Return the weight of each part of the generators' loss by name; parts of weight 0 are not computed."""
    transfer, losses = config.generators, config.generators.losses
    known = {"adversarial_a2b": losses.adversarial.weight, "adversarial_b2a": losses.adversarial.weight}
    for name in ("a", "b"):
        known |= {f"cycle_{name}": losses.cycle.weight, f"identity_{name}": losses.identity.weight}
    for name, head in config.labelled_heads.items():
        known[f"{name}_synthesis"] = losses.labels.synthesis * head.loss_weight
        known[f"{name}_reconstruction"] = losses.labels.reconstruction * head.loss_weight
    known["pseudo_cycle"] = losses.pseudo_cycle
    if transfer.heads_discriminator is not None:
        known |= {"heads_synthesis": losses.heads.synthesis, "heads_reconstruction": losses.heads.reconstruction}
    return {name: weight for name, weight in known.items() if weight}


def generator_losses(translator: Translator, a: Cycle, b: Cycle, images: tuple[Tensor, Tensor],
                     targets: Mapping[str, Target]) -> dict[str, Tensor]:  # fmt: skip
    """Return the parts of the generators' loss by name, without their weights, see `weights`.

    Args:
        translator: the networks; discriminators get no gradient if they ask for none.
        a: images of domain a on their way.
        b: images of domain b on their way.
        images: the samples of a and of b, (B, 1, Z, Y, X).
        targets: of the labels of a, in the place of `a.fake`, by head.
    """
    wanted, losses = weights(translator.config), translator.transfer.losses
    distance, same = CYCLE[losses.cycle.loss], CYCLE[losses.identity.loss]
    found = dict[str, Tensor]()
    if "adversarial_a2b" in wanted:
        found["adversarial_a2b"] = translator.judged("d_b", a.fake, True)
        found["adversarial_b2a"] = translator.judged("d_a", b.fake, True)
    if "cycle_a" in wanted:
        found |= {f"cycle_{name}": distance(cycle.back, translator.geometry.again(cycle.real))
                  for name, cycle in (("a", a), ("b", b))}  # fmt: skip
    if "identity_a" in wanted:
        for name, network, x, cycle in (("a", "b2a", images[0], a), ("b", "a2b", images[1], b)):
            found[f"identity_{name}"] = same(translator(network, x)[0], cycle.real)
    found |= _label_losses(translator, a, targets)
    found |= _head_losses(translator, b)
    return {name: found[name] for name in wanted}


def _label_losses(translator: Translator, a: Cycle, targets: Mapping[str, Target]) -> dict[str, Tensor]:
    found, again = dict[str, Tensor](), translator.again_or_cut(a, "labels")
    crop = translator.geometry.again
    for name, target in targets.items():
        head = translator.config.heads[name]
        found[f"{name}_synthesis"] = head.compute_loss(HeadOutput(a.heads[name], head.activate), target)
        smaller = replace(target, values=crop(target.values), weights=crop(target.weights), labels=crop(target.labels))
        found[f"{name}_reconstruction"] = head.compute_loss(HeadOutput(again[name], head.activate), smaller)
    return found


def _head_losses(translator: Translator, b: Cycle) -> dict[str, Tensor]:
    """Return the losses of heads of domain b, which has no labels."""
    found, wanted = dict[str, Tensor](), weights(translator.config)
    if "pseudo_cycle" in wanted:
        before = translator.geometry.again(translator.values(b.heads))
        after = translator.values(translator.again_or_cut(b, "pseudo_cycle"))
        found["pseudo_cycle"] = (before - after).abs().mean()
    if "heads_synthesis" in wanted:
        found["heads_synthesis"] = translator.judged("d_heads", translator.values(b.heads), True)
    if "heads_reconstruction" in wanted:
        after = translator.values(translator.again_or_cut(b, "heads"))
        found["heads_reconstruction"] = translator.judged("d_heads", after, True)
    return found


def discriminator_losses(translator: Translator, shown: Mapping[str, tuple[Tensor, Sequence[Tensor]]]
                         ) -> dict[str, Tensor]:  # fmt: skip
    """Return the loss of each discriminator by its name: that of real images and the mean of fake ones, weighted.

    Args:
        translator: the networks.
        shown: by discriminator, the real images and the groups of fake ones, without gradients.
    """
    weight, found = translator.transfer.losses.adversarial.discriminator_weight, dict[str, Tensor]()
    for name, (real, fakes) in shown.items():
        fake = torch.stack([translator.judged(name, one, False) for one in fakes]).mean()
        found[name] = weight * (translator.judged(name, real, True) + fake)
    return found


def _each(crop: Callable[[Tensor], Tensor], heads: Heads) -> dict[str, Tensor]:
    return {name: crop(values) for name, values in heads.items()}
