"""Domain transfer, `transfer` of network.yaml with `step: cyclegan`: two generators, two discriminators, their losses.

    transfer:
      generator: {kind: valid_unet}
      discriminator: {kind: valid}
      domains:
        a: {volumes: [{raw: a.zarr/volumes/raw}]}
        b: {volumes: [{raw: b.zarr/volumes/raw}]}
      losses: {adversarial: {loss: focal}, cycle: {loss: focal, weight: 2}, identity: {loss: focal, weight: 1}}

`heads` of network.yaml names what generators predict beside the image: masks, contours and distances of objects.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from emsuite.common.settings import Settings
from emsuite.config.training import Training
from emsuite.data.transfer.settings import DomainSettings, UnpairedSettings
from emsuite.models.transfer.generator import IMAGE
from emsuite.models.transfer.settings import (
    DiscriminatorSettings,
    GeneratorSettings,
    Prior,
    UNetGeneratorSettings,
    ValidDiscriminatorSettings,
)
from emsuite.targets.heads import Heads, TransferredHead

Direction = Literal["A2B", "B2A"]
"""From domain a to domain b, or back; the generators are called `a2b` and `b2a`."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
Cut = Literal["labels", "heads", "pseudo_cycle"]


class AdversarialTerm(Settings):
    """How discriminators judge, and how generators learn from it."""

    loss: Literal["lsgan", "bce", "focal"] = "lsgan"
    weight: Weight = Field(1.0, description="in the generators' sum")
    discriminator_weight: Weight = Field(
        0.5, description="of the sum over real and fake images, which a discriminator minimizes"
    )


class ImageTerm(Settings):
    """A distance between two images."""

    loss: Literal["l1", "focal"] = "l1"
    weight: Weight


class PassWeights(Settings):
    """Weights of a loss of heads, in the first pass through a generator and in the second, behind the other one."""

    synthesis: Weight = Field(1.0, description="heads beside the transferred image")
    reconstruction: Weight = Field(1.0, description="heads beside the reconstructed image")


class TransferLosses(Settings):
    """The parts of the generators' loss. The defaults are CycleGAN's."""

    adversarial: AdversarialTerm = AdversarialTerm()
    cycle: ImageTerm = Field(ImageTerm(weight=10.0), description="of an image and its reconstruction")
    identity: ImageTerm = Field(
        ImageTerm(weight=5.0), description="of an image and what the generator to its own look makes of it"
    )
    labels: PassWeights = Field(
        PassWeights(), description="of the heads and the labels of `a`, times each head's `loss_weight`"
    )
    pseudo_cycle: Weight = Field(
        0.0, description="L1 of the heads of `b` in both passes, as values behind their activation"
    )
    heads: PassWeights = Field(PassWeights(), description="of what `heads_discriminator` says of the heads of `b`")


class Domains(Settings):
    """The two domains."""

    a: DomainSettings = Field(description="the domain that may have labels")
    b: DomainSettings


class TransferSettings(Settings):
    """Two generators that translate the look of one domain into that of the other (Zhu et al. 2017, CycleGAN)."""

    generator: GeneratorSettings = Field(description="architecture of both generators")
    discriminator: DiscriminatorSettings = Field(
        description="architecture of both discriminators; a prior is that of `b` alone"
    )
    heads_discriminator: DiscriminatorSettings | None = Field(
        None, description="judges the heads of `b` beside those that the labels of `a` give (default: nothing does)"
    )
    domains: Domains = Field(description="the images of both")
    held_out: Domains | None = Field(None, description="images to validate on, for `training.validation`")
    sampling: UnpairedSettings = Field(UnpairedSettings(), description="how samples change beside `training.augment`")
    losses: TransferLosses = Field(TransferLosses(), description="the parts of the loss")
    cycle_padding: Literal["none", "context"] = Field(
        "none",
        description="around a transferred image on its way back, of generators without padding: none: its middle that "
        "fits is read; context: zeros for what the first one lost, and what lies as far inside is compared",
    )
    pool: NonNegativeInt = Field(
        50,
        le=10_000,
        description="former images that a discriminator is shown in the place of new ones, half the time; 0: none",
    )
    detach: tuple[Cut, ...] = Field(
        (), description="losses of the second pass that do not reach the first generator: labels, heads, pseudo_cycle"
    )
    optimizers: Literal["pairs", "each"] = Field(
        "pairs", description="pairs: one Adam for generators, one for discriminators; each: one for each network"
    )
    constant_iterations: PositiveInt | None = Field(
        None, description="iterations behind which the rate falls in a straight line, to almost 0 at "
        "`training.iterations` (default: it stays)"
    )  # fmt: skip

    @property
    def prior(self) -> Prior | None:
        """The trained network that the discriminator of `b` reads, if any."""
        return self.discriminator.prior if isinstance(self.discriminator, ValidDiscriminatorSettings) else None

    def architecture(self) -> dict[str, Any]:
        """Return the settings in which a checkpoint and its networks must agree."""
        names = {"generator", "discriminator", "heads_discriminator"}
        told = self.model_dump(mode="json", include=names)
        return told | {"discriminator": without_weights_of_prior(told["discriminator"])}


def without_weights_of_prior(discriminator: Mapping[str, Any]) -> dict[str, Any]:
    """Return a discriminator's settings without the checkpoint of its prior, whose weights a digest tells."""
    prior = discriminator.get("prior")
    kept = {key: value for key, value in (prior or {}).items() if key not in ("network", "iteration")}
    return {**discriminator, "prior": kept} if prior else dict(discriminator)


def with_image(content: Any) -> Any:
    """Return the content of network.yaml, for domain transfer with the head of the image as the first."""
    if not isinstance(content, Mapping) or content.get("transfer") is None:
        return content
    heads = content.get("heads")
    if not isinstance(heads, Mapping | None):
        return content
    return {**content, "heads": {IMAGE: {"target": "transferred"}} | dict(heads or {})}


def check_kind(step: str, has_unet: bool, transfer: TransferSettings | None, heads: Heads) -> None:
    """Raise ValueError unless the parts of a configuration are those of supervised training, or of domain transfer."""
    images = [name for name, head in heads.items() if isinstance(head, TransferredHead)]
    if (step == "cyclegan") != (transfer is not None):
        raise ValueError(f"step holds {step}, expected `step: cyclegan` with `transfer`, and with nothing else")
    if transfer is None and not has_unet:
        raise ValueError("unet: missing, expected the architecture")
    if transfer is None and images:
        raise ValueError(f"heads.{images[0]}: target transferred, expected `transfer` beside it")
    if transfer is not None and has_unet:
        raise ValueError("unet and transfer: expected one of them; `unet: null` leaves out that of the data set")
    if transfer is not None and images != [IMAGE]:
        raise ValueError(f"heads: images are {', '.join(images)}, expected one, called {IMAGE}")


def check_transfer(transfer: TransferSettings, heads: Heads, training: Training, others: Mapping[str, bool]) -> None:
    """Raise ValueError unless the settings of domain transfer fit the others.

    Args:
        transfer: the settings.
        heads: what generators predict.
        training: how they are trained.
        others: keys that apply to supervised networks alone, and whether they are set.
    """
    unused = {
        **others,
        "training.start_from": training.start_from is not None,
        "training.initial_weights": training.initial_weights != "he",
        "training.renumber_components_from": training.renumber_components_from is not None,
        "training.validation.data": bool(training.validation and training.validation.data),
    }
    for key, is_set in unused.items():
        if is_set:
            raise ValueError(f"{key}: does not apply to domain transfer, expected none beside `transfer`")
    if "heads" in heads:
        raise ValueError("heads.heads: a column of losses.csv begins with this word, expected another name")
    _check_labels([name for name in heads if name != IMAGE], transfer)
    if isinstance(other := transfer.heads_discriminator, ValidDiscriminatorSettings) and other.prior:
        raise ValueError("transfer.heads_discriminator.prior: a prior reads images, expected none")
    if (transfer.held_out is None) != (training.validation is None):
        raise ValueError("transfer.held_out and training.validation: expected both, or neither")
    if transfer.constant_iterations is not None and training.optimizer.schedule != "constant":
        raise ValueError("transfer.constant_iterations: expected training.optimizer.schedule constant beside it")


def _check_labels(labelled: Sequence[str], transfer: TransferSettings) -> None:
    for domains, where in ((transfer.domains, "domains"), (transfer.held_out, "held_out")):
        if domains is None:
            continue
        if domains.b.has_labels:
            raise ValueError(f"transfer.{where}.b: names labels, expected labels of `a` alone")
        if labelled and not domains.a.has_labels:
            raise ValueError(f"heads.{labelled[0]}: learns from labels, expected labels in transfer.{where}.a")
    if isinstance(transfer.generator, UNetGeneratorSettings) and transfer.generator.unet.final_activation != "none":
        raise ValueError("transfer.generator.unet.final_activation: expected none, heads have activations of their own")
    if labelled:
        return
    if transfer.heads_discriminator or transfer.losses.pseudo_cycle or transfer.detach:
        key = (
            "heads_discriminator"
            if transfer.heads_discriminator
            else "detach"
            if transfer.detach
            else "losses.pseudo_cycle"
        )
        raise ValueError(f"transfer.{key}: expected heads beside {IMAGE}, which it is about")
