"""microDL's `network` and `dataset`, in the keys `unet`, `heads` and `plate` of network.yaml."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.published.microdl.keys import Keys

_CLASSES = ("UNet2D", "UNetStackTo2D", "UNetStackToStack", "UNet3D", "Image2DToVectorNet", "Image3DToVectorNet")
_BOTH = "is the size of a sample and says the same as that of the dataset"
_WORDS = {
    "order": {
        "conv-bn-activation": "conv_norm_activation",
        "conv-activation-bn": "conv_activation_norm",
        "bn-activation-conv": "norm_activation_conv",
    },
    "downsample": {"max": "max_pool", "average": "average_pool", "conv": "strided"},
    "skip": {"concat": "concatenate", "concatenate": "concatenate", "add": "add"},
    "upsample": {"repeat": "repeat", "nearest_neighbor": "nearest", "bilinear": "bilinear"},
    "padding": {"same": "same", "valid": "valid"},
    "final_activation": {
        "linear": "none",
        "relu": "relu",
        "sigmoid": "sigmoid",
        "tanh": "tanh",
        "softmax": "softmax",
    },
}
_ACTIVATIONS = {"relu": "relu", "leakyrelu": "leaky_relu", "leaky_relu": "leaky_relu", "elu": "elu", "gelu": "gelu"}
_KEYS = {
    "order": "block_sequence",
    "downsample": "pooling_type",
    "skip": "skip_merge_type",
    "upsample": "upsampling",
    "padding": "padding",
    "final_activation": "final_activation",
}
_FIRST = {
    "order": "conv_norm_activation",
    "downsample": "max_pool",
    "skip": "concatenate",
    "upsample": "bilinear",
    "padding": "same",
    "final_activation": "none",
}
_INITIAL = {"he_normal": "he", "glorot_uniform": "glorot"}
_NOT_NEEDED = {
    "data_format": "not needed, arrays are (n, c, z, y, x)",
    "num_input_channels": "not needed, the channels are listed",
    "num_target_channels": "not needed, the channels are listed",
    "dropout_dense": "there is no dense layer; the mean of the coarsest features goes into the head",
    "dense": "there is no dense layer; the mean of the coarsest features goes into the head",
    "regression_length": "there is no dense layer; the mean of the coarsest features goes into the head",
    "res_pool_type": "not carried over; the shortcut is not pooled, it goes around each level",
    "temperature": "not carried over; the last activation has no temperature",
    "num_focal_planes": "the depth is that of training.input_shape",
}


@dataclass(frozen=True)
class Architecture:
    """The translation of `network`."""

    unet: dict[str, Any]
    depth: int
    """Slices of a sample."""
    initial_weights: str | None


def translate_network(keys: Keys) -> Architecture:
    """Translate `network`; the notes of `keys` tell what is not carried over.

    Raises:
        BadInput: the class is none of microDL's, or a value is of the wrong kind.
    """
    kind = keys.take("class", str, default="UNet2D")
    if kind not in _CLASSES:
        raise BadInput(f"network.class holds {kind}, expected one of {', '.join(_CLASSES)}")
    depth = 1 if kind in ("UNet2D", "Image2DToVectorNet") else keys.take("depth", int, default=5)
    keys.take("depth", int)
    filters = keys.take("num_filters_per_block", list) or _doubling(keys)
    unet = _feature_maps(keys, filters) | _kernels(keys, kind, depth, len(filters))
    for name, key in _KEYS.items():
        word = keys.one_of(key, _WORDS[name], _FIRST[name], name.replace("_", " "))
        unet |= {} if word is None else {name: word}
    if kind == "UNetStackTo2D":
        unet["padding"] = "same_in_plane"
    elif "padding" not in unet:
        unet["padding"] = "same"
    unet |= _steps(keys)
    if kind.endswith("VectorNet"):
        unet = {key: value for key, value in unet.items() if key != "kernel_sizes_up"} | {"output": "vector"}
    initial = keys.one_of("init", _INITIAL, "he", "initialization")
    keys.leave_all({"height": _BOTH, "width": _BOTH} | _NOT_NEEDED)
    keys.finish()
    return Architecture(unet, depth, initial)


def _doubling(keys: Keys) -> list[int]:
    """Return the filters of a network to a vector, which microDL doubles until the image is one pixel."""
    first = keys.take("num_initial_filters", int, default=16)
    size = keys.take("height", int, default=256)
    levels = max(2, size.bit_length() - 1)
    keys.tell("num_initial_filters", f"{levels} levels, at most 512 feature maps")
    return [min(512, first * 2**level) for level in range(levels)]


def _feature_maps(keys: Keys, filters: Sequence[int]) -> dict[str, Any]:
    """Return the keys of feature maps: the first, their factor, and a limit where they end to grow."""
    if not filters or not all(isinstance(number, int) and number > 0 for number in filters):
        raise BadInput(f"network.num_filters_per_block holds {filters}, expected whole numbers above 0")
    factor = max(1, filters[1] // filters[0]) if len(filters) > 1 else 1
    most = max(filters)
    here = [min(most, filters[0] * factor**level) for level in range(len(filters))]
    if here != list(filters):
        keys.tell("num_filters_per_block", f"feature maps grow by one factor; {here} instead")
    limit = {"max_fmaps": most} if filters[0] * factor ** (len(filters) - 1) > most else {}
    return {"num_fmaps": filters[0], "fmap_inc_factor": factor} | limit


def _kernels(keys: Keys, kind: str, depth: int, levels: int) -> dict[str, Any]:
    """Return factors and kernels of each level: along z only as the class has it."""
    count, size = keys.take("num_convs_per_block", int, default=2), keys.take("filter_size", int, default=3)
    flat, deep = [1, size, size], [size, size, size]
    factors, in_z = [[1, 2, 2] for _ in range(levels - 1)], [[False] * count for _ in range(levels)]
    if kind in ("UNet3D", "Image3DToVectorNet"):
        factors, in_z = [[2, 2, 2] for _ in range(levels - 1)], [[True] * count for _ in range(levels)]
    elif kind == "UNetStackToStack":
        for level in range(levels):
            left = depth >> level
            in_z[level] = [left > 1] * count
            if level < levels - 1 and left > 1:
                factors[level] = [2, 2, 2]
        keys.tell("class", "kernels reach over slices as long as there are several")
    elif kind == "UNetStackTo2D":
        needed = (depth - 1) // max(1, size - 1)
        in_z = [[level * count + number < needed for number in range(count)] for level in range(levels)]
        keys.tell(
            "class", f"{needed} convolutions of {size} slices lead from {depth} slices to one, not one of {depth}"
        )
    down = [[deep if over else flat for over in level] for level in in_z]
    up = [[flat] * count for _ in range(levels - 1)] if kind == "UNetStackTo2D" else down[:-1]
    return {"downsample_factors": factors, "kernel_sizes_down": down, "kernel_sizes_up": up}


def _steps(keys: Keys) -> dict[str, Any]:
    """Return norm, activation, dropout and shortcut of a level."""
    steps: dict[str, Any] = {"norm": "batch"} if keys.take("batch_norm", bool, default=False) else {}
    if isinstance(keys.take("activation", str, dict), str):
        word = keys.one_of("activation", _ACTIVATIONS, "relu", "activation")
    else:
        section = keys.section("activation")
        word = section.one_of("type", _ACTIVATIONS, "relu", "activation")
        section.leave("params", "not carried over; activations have their usual parameters")
        section.finish()
    steps |= {} if word is None else {"activation": word}
    if dropout := keys.take("dropout", float, default=0):
        steps["dropout"] = dropout
    if keys.take("residual", bool, default=False):
        steps["residual"] = "padded"
        keys.tell("residual", "around each level; levels are pooled, where microDL strides the first convolution")
    return steps


@dataclass(frozen=True)
class Channels:
    """The translation of `dataset`."""

    plate: dict[str, Any]
    head: dict[str, Any]
    split: dict[str, Any] | None
    size: tuple[int, int] | None
    """Pixels of a sample, y and x."""


_BY = {"pos_idx": "position", "slice_idx": "slice", "time_idx": "time", "channel_idx": "channel", "index": "index"}


def translate_dataset(keys: Keys, output: str | None, chosen: Sequence[int] | None) -> Channels:
    """Translate `dataset`.

    Args:
        keys: of `dataset`.
        output: the folder that preprocessing writes; None if its configuration is not known.
        chosen: the channels that preprocessing chooses, numbered from 0 in this order; None: all, or not known.
    """
    plate: dict[str, Any] = {"path": output or keys.take("data_dir", str, default="mine/preprocessed")}
    keys.leave("data_dir", "tiles are not read: plate.path is the folder that preprocessing writes")
    numbers = {name: keys.take(name, list, default=[]) for name in ("input_channels", "target_channels")}
    if missing := [name for name, given in numbers.items() if not given]:
        raise BadInput(f"dataset.{missing[0]} is missing, expected the numbers of channels")
    masks, segments = keys.take("mask_channels", list, default=[]), _is_segmentation(keys)
    plate["input_channels"] = [_renumbered(number, chosen) for number in numbers["input_channels"]]
    targets = [
        "foreground" if number in masks else _renumbered(number, chosen) for number in numbers["target_channels"]
    ]
    head: dict[str, Any] = {"target": "image", "target_channels": targets}
    if segments:
        head |= {"target_channels": ["foreground"], "normalized": False}
        keys.tell("model_task", "the target is the foreground of preprocessing's masks")
    if masks:
        keys.tell("mask_channels", "masks are the foreground that preprocessing writes, not a channel of its own")
    keys.leave("label_weights", "not carried over; heads.image.weights may be border_weights")
    keys.leave("train_fraction", "not carried over; split.train of preprocessing may be less")
    keys.leave("normalize", "normalize.scope of preprocessing may be tile")
    keys.leave("shuffle", "not needed, samples are drawn at random")
    keys.leave("squeeze", "not needed")
    keys.leave("preprocess", "not needed")
    height, width = keys.take("height", int), keys.take("width", int)
    return Channels(plate, head, _split(keys), (height, width) if height and width else None)


def _is_segmentation(keys: Keys) -> bool:
    return bool(keys.take("model_task", str, default="regression").lower() == "segmentation")


def _renumbered(number: Any, chosen: Sequence[int] | None) -> Any:
    return list(chosen).index(number) if chosen is not None and number in chosen else number


def _split(keys: Keys) -> dict[str, Any] | None:
    column, ratios = keys.take("split_by_column", str), keys.section("split_ratio")
    parts = {part: ratios.take(part, float) for part in ("train", "val", "test")}
    ratios.finish()
    seed = keys.take("random_seed", int)
    if column is None and not any(parts.values()):
        return None
    by = _BY.get(column or "pos_idx")
    if by is None:
        keys.tell("split_by_column", f"no such column here (there are {', '.join(_BY)}); position instead")
    split = {"by": by or "position"} | {part: value for part, value in parts.items() if value is not None}
    return split | ({} if seed is None else {"seed": seed})
