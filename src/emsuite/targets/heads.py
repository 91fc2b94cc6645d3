"""The heads of a network: one class per target, with its channels, activation, loss, label context and target values.

    affs: {target: affinities, neighborhood: [...], loss: bce}        a head in network.yaml
    lsds: {target: lsds, sigma: 80}
    stain: {target: image, target_channels: [nuclei], loss: mae}

    mask: {target: foreground}          contour: {target: contour}          distance: {target: distance}

To add a target, write a subclass of `Head` here or in a module beside this one, and name it in `AnyHead`. Everything
else (trainer, predictor, checkpoints, viewers) asks the head.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, AliasChoices, Field, model_validator

from emsuite.common.arrays import Shape, as_numbers, stacked
from emsuite.common.profile import timed
from emsuite.common.settings import Settings
from emsuite.losses.target import Target
from emsuite.targets.affinities import affinities_mask, affinity_targets
from emsuite.targets.class_balance import balance_weights
from emsuite.targets.foreground_contour_distance import ContourHead, DistanceHead, ForegroundHead
from emsuite.targets.head import Head, LabelCrop, LossName
from emsuite.targets.images import BORDERS, FOREGROUND, INSIDE, ImageName
from emsuite.targets.lsds import batch_descriptors

_Steps = Annotated[int, Field(ge=-10_000, le=10_000)]
Offset = tuple[_Steps, _Steps, _Steps]
AffinityWeights = Literal["balance", "mask"]


class LossSwitch(Settings):
    """From an iteration on, another loss on other voxels, with a fresh optimizer."""

    iteration: int = Field(gt=0, description="the first loss is used up to this iteration")
    loss: LossName
    weights: AffinityWeights = "mask"


class AffinitiesHead(Head):
    """Affinities to the voxels at `neighborhood`: 1 where both ends carry the same label (Turaga et al. 2010)."""

    not_architecture: ClassVar[frozenset[str]] = Head.not_architecture | {"masked", "switch_to"}

    target: Literal["affinities"]
    neighborhood: tuple[Offset, ...] = Field(
        min_length=1, max_length=1000, description="offsets in voxels, z y x, one channel each"
    )
    weights: AffinityWeights = Field(
        "balance",
        description="balance: 0 and 1 weigh the same in total, all channels together; mask: 1 where both ends of an "
        "affinity lie in the labels mask",
    )
    masked: bool = Field(
        True, description="affinities count where both ends lie in the labels mask; false: all count, 0 outside labels"
    )
    switch_to: LossSwitch | None = Field(
        None, validation_alias=AliasChoices("switch_to", "then"), description="another loss from an iteration on"
    )

    def settings_at(self, iteration: int) -> "AffinitiesHead":
        """See `Head.settings_at`."""
        if self.switch_to is None or iteration <= self.switch_to.iteration:
            return self
        return self.model_copy(update={"loss": self.switch_to.loss, "weights": self.switch_to.weights})

    @property
    def channels(self) -> int:
        """One per offset."""
        return len(self.neighborhood)

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: as far as the offsets reach."""
        axes = list(zip(*self.neighborhood, strict=True))
        return tuple(max(0, -min(offsets)) for offsets in axes), tuple(max(0, *offsets) for offsets in axes)

    def mask_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.mask_context`: as far as the offsets reach, unless nothing is masked."""
        return self.label_context(voxel_size) if self.masked else super().mask_context(voxel_size)

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`."""
        with timed("affinities", crop.labels.device):
            values = affinity_targets(crop.labels, self.neighborhood, crop.inner)
            inside = crop.mask if self.masked else None
            mask = None if inside is None else affinities_mask(inside, self.neighborhood, crop.inner)
        with timed("balance", crop.labels.device):
            if self.weights == "balance":
                masks = [None] * len(values) if mask is None else mask.view(torch.bool)
                weights = stacked([balance_weights(*pair) for pair in zip(values, masks, strict=True)])
            else:
                weights = torch.ones_like(values) if mask is None else mask.float()
        return Target(values, weights, crop.labels[:, *crop.inner], self.neighborhood)

    def array_attributes(self) -> dict[str, Any]:
        """See `Head.array_attributes`: the offsets of the channels, `neighborhood`."""
        return {"neighborhood": [list(offset) for offset in self.neighborhood]}


class LsdsHead(Head):
    """Local shape descriptors, ten channels (Sheridan et al. 2022)."""

    CHANNELS: ClassVar[int] = 10
    """Mean offset 3, variance 3, Pearson coefficients 3, size 1."""

    target: Literal["lsds"]
    sigma: float = Field(gt=0, le=100_000, description="standard deviation of the Gaussian window, nm")
    downsample: int = Field(2, gt=0, le=1000, description="compute the descriptors on every n-th voxel")
    weights: Literal["mask", "labelled", "labelled_or_unmasked"] = Field(
        "mask", description="voxels that count: in the labels mask, labelled, or labelled or outside the mask"
    )

    @property
    def channels(self) -> int:
        """See `CHANNELS`."""
        return self.CHANNELS

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: three sigma on each side."""
        context = tuple(math.ceil(3 * self.sigma / size) for size in voxel_size)
        return context, context

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`."""
        with timed("lsds", crop.labels.device):
            values = batch_descriptors(crop.labels, self.sigma, crop.voxel_size, self.downsample, crop.inner)
        labels = crop.labels[:, *crop.inner]
        mask = torch.ones_like(labels, dtype=torch.bool) if crop.mask is None else crop.mask[:, *crop.inner] != 0
        is_scored = {"mask": mask, "labelled": labels != 0, "labelled_or_unmasked": (labels != 0) | ~mask}[self.weights]
        return Target(values, as_numbers(is_scored)[:, None].expand(values.shape), labels)


class ImageHead(Head):
    """Channels of a plate, such as stains or fluorescence, from the channels that the network reads."""

    stored_as: ClassVar[Literal["uint8", "float32"]] = "float32"
    is_normalized: ClassVar[bool] = True

    target: Literal["image"]
    loss: LossName = "mae"
    target_channels: tuple[int | str, ...] = Field(
        min_length=1, max_length=1000, description="channels of the plate, by number or name; or foreground"
    )
    normalized: bool = Field(
        True, description="learn grey values normalized as the input is; false: as they are, for values from 0 to 1"
    )
    weights: Literal["all", "foreground", "border_weights"] = Field(
        "all", description="voxels that count: all, those of the foreground, or each by its border weight"
    )

    @property
    def activation(self) -> Literal["sigmoid", "none"]:  # type: ignore[override]
        """A sigmoid for `bce`, which is computed from its logits; else none beside the U-Net's final activation."""
        return "sigmoid" if self.loss == "bce" else "none"

    @property
    def channels(self) -> int:
        """One per target channel."""
        return len(self.target_channels)

    @property
    def image_names(self) -> list[ImageName]:
        """The images that the target is made of."""
        return [ImageName(c, self.normalized and c not in _PLAIN) for c in self.target_channels]

    @property
    def names_read(self) -> list[ImageName]:
        """The images that a sample must hold, those of weights as well."""
        return self.image_names + ([ImageName(BORDERS, False)] if self.weights == BORDERS else [])

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: none."""
        return (0, 0, 0), (0, 0, 0)

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`. Voxels beyond the image do not count."""
        at = (slice(None), *crop.inner)
        values = torch.stack([crop.images[name.array][at] for name in self.image_names], dim=1)
        weights = crop.images[INSIDE][at].float()
        if self.weights == FOREGROUND and crop.mask is not None:
            weights = weights * crop.mask[at]
        elif self.weights == BORDERS:
            weights = weights * crop.images[ImageName(BORDERS, False).array][at]
        return Target(values, weights[:, None].expand(values.shape), crop.labels[at])


_PLAIN = (FOREGROUND, BORDERS)


class TransferredHead(Head):
    """The image that a generator of domain transfer makes, with the look of the other domain.

    Its losses are those of `transfer.losses`. It has no target.
    """

    is_normalized: ClassVar[bool] = True

    target: Literal["transferred"]
    output: Literal["linear", "tanh"] = Field(
        "linear", description="of the last layer; tanh: within [-1, 1], for domains in the signed unit range"
    )

    @model_validator(mode="after")
    def _loss_of_transfer(self) -> "TransferredHead":
        fields = type(self).model_fields
        if any(getattr(self, key) != fields[key].default for key in ("loss", "loss_weight")):
            raise ValueError("the losses of an image are those of transfer.losses, expected no loss and no loss_weight")
        return self

    @property
    def activation(self) -> Literal["none", "tanh"]:  # type: ignore[override]
        """See `Head.activation`."""
        return "tanh" if self.output == "tanh" else "none"

    @property
    def channels(self) -> int:
        """One: images are grey."""
        return 1

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: none."""
        return (0, 0, 0), (0, 0, 0)

    def make(self, crop: LabelCrop) -> Target:
        """No labels say what the image is."""
        raise AssertionError("an image of the other domain has no target")


AnyHead = Annotated[
    AffinitiesHead | LsdsHead | ImageHead | ForegroundHead | ContourHead | DistanceHead | TransferredHead,
    Field(discriminator="target"),
]
"""Every kind of head; `target` says which."""

INSTANCE_TARGETS = ("foreground", "contour", "distance")
"""The targets that instances are decoded from; the distance may be missing."""


def instance_heads(heads: Mapping[str, Head]) -> dict[str, str]:
    """Return the names of the first head of each of `INSTANCE_TARGETS`, by target.

    Nothing without foreground and contours, or where there are affinities, which are segmented then.
    """
    targets = {head.target: name for name, head in reversed(list(heads.items()))}
    if "affinities" in targets or not {"foreground", "contour"} <= targets.keys():
        return {}
    return {target: targets[target] for target in INSTANCE_TARGETS if target in targets}


RESERVED_NAMES = {"loss", "iteration", "learning_rate", "seconds", "waiting"}
"""Columns of losses.csv that stand beside those of the heads."""
_CURVES = {"raw", "iterations_per_second", "waiting_share", "gpu_memory_gib"}
"""Pictures and curves of TensorBoard that stand beside those of the heads."""


def _check_head_name(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"'{name}' is a column of losses.csv, expected another name for a head")
    if name in _CURVES:
        raise ValueError(f"'{name}' is a curve of the training log, expected another name for a head")
    # the layer of a head is an attribute of a module of torch, where such a name would hide torch's own
    if hasattr(torch.nn.ModuleDict(), name):
        raise ValueError(f"'{name}' is a word of torch's modules, expected another name for a head")
    return name


HeadName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64), AfterValidator(_check_head_name)]
Heads = Annotated[dict[HeadName, AnyHead], Field(min_length=1)]
