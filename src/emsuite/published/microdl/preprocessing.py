"""microDL's configuration of preprocessing, in the keys of `emsuite.plates.settings`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.published.microdl.keys import Keys

_NOT_NEEDED = {
    "verbose": "not needed, the log says what is done",
    "num_workers": "an option of the command, --workers",
    "int2str_len": "not needed, names are read with any number of digits",
    "uniform_structure": "not needed, positions may differ in slices and times",
    "uniform_struct": "not needed, positions may differ in slices and times",
    "metadata": "an option of the step that makes the plate: --order, --name-parser",
}
_MASK_METHODS = {"otsu": "otsu", "unimodal": "unimodal"}
_SCOPES = {"dataset": "dataset", "volume": "volume", "stack": "volume", "slice": "volume", "fov": "position"}


@dataclass(frozen=True)
class Preprocessing:
    """The translation of one configuration."""

    settings: dict[str, Any]
    """The keys of a file for preprocessing."""
    channels: Sequence[int] | None
    """The channels that are chosen, which are numbered from 0 afterwards; None: all."""
    tile: Sequence[int] | None
    """Pixels of a tile, y and x."""


def translate_preprocessing(keys: Keys) -> Preprocessing:
    """Translate a configuration; the notes of `keys` tell what is not carried over.

    Raises:
        BadInput: `input_dir` is missing, a value is of the wrong kind, or masks are both computed and given.
    """
    if "input_dir" not in keys:
        raise BadInput("a configuration of preprocessing without input_dir, expected the folder of the images")
    out: dict[str, Any] = {"input": keys.take("input_dir", str), "output": keys.take("output_dir", str)}
    if out["output"] is None:
        out["output"] = f"{out['input'].rstrip('/')}_preprocessed"
        keys.tell("output_dir", f"is missing; {out['output']} instead")
    channels = _chosen(keys, "channel_ids")
    positions = _chosen(keys, "pos_ids")
    out |= {"positions": None if positions is None else [str(number) for number in positions], "channels": channels}
    for key, name in (("times", "time_ids"), ("slices", "slice_ids")):
        out[key] = _chosen(keys, name)
        if out[key] is not None:
            keys.tell(name, f"`{key}` counts places from 0: subtract the first number if frames begin at another one")
    out |= {"flat_field": _flat_field(keys), "resize": _resize(keys.section("resize")), **_masks(keys)}
    tile = keys.section("tile")
    out["clip"] = _clip(tile)
    out["normalize"] = _normalize(keys.section("normalize"), tile)
    out["tiles"], from_elsewhere = _tiles(tile)
    if from_elsewhere and out["masks"] is None:
        out["masks"] = from_elsewhere
    tile.finish()
    keys.leave_all(_NOT_NEEDED)
    for key in ("use_masks", "tile_stack"):
        keys.take(key, bool)  # the sections masks and tile say the same
    keys.finish()
    size = None if out["tiles"] is None else out["tiles"]["size"][-2:]
    return Preprocessing({key: value for key, value in out.items() if value is not None}, channels, size)


def _chosen(keys: Keys, name: str) -> list[int] | None:
    """Return the numbers that a key lists; None for all, which microDL writes as -1."""
    given = keys.take(name, int, list, default=-1)
    numbers = given if isinstance(given, list) else [given]
    return None if numbers == [-1] else numbers


def _flat_field(keys: Keys) -> dict[str, Any] | None:
    step = keys.section("flat_field")
    estimate, correct = step.take("estimate", bool, default=False), step.take("correct", bool, default=False)
    correct = keys.take("correct_flat_field", bool, default=False) or correct  # of earlier versions
    folder = step.take("flat_field_dir", str) or step.take("ff_dir", str)
    block = step.take("block_size", int)
    step.finish()
    if not (estimate or correct):
        return None
    if estimate and not correct:
        step.tell("estimate", "fields are estimated and images corrected in one step, from all times and slices")
    chosen = {"folder": folder if correct and not estimate else None, "block_size": block}
    return {key: value for key, value in chosen.items() if value is not None}


def _resize(step: Keys) -> dict[str, Any] | None:
    factor, volume = step.take("scale_factor", float, list), step.take("resize_3d", bool, default=False)
    step.leave("num_slices_subvolume", "not needed, a volume is resized as a whole")
    step.finish()
    if factor is None:
        return None
    if volume and not isinstance(factor, list):
        return {"scale": [factor] * 3}
    if isinstance(factor, list) and len(factor) != 3:
        step.tell("scale_factor", "expected one number, or three; the first one is taken")
        return {"scale": factor[0]}
    return {"scale": factor}


def _masks(keys: Keys) -> dict[str, dict[str, Any] | None]:
    step = keys.section("masks")
    channels, folder = step.take("channels", int, list), step.take("mask_dir", str)
    if channels is not None and folder is not None:
        raise BadInput("masks.channels and masks.mask_dir are both given, expected one of them")
    kind = step.take("mask_type", str)
    weights = keys.take("make_weight_map", bool, default=False) or kind == "borders_weight_loss_map"
    method = None
    if kind == "borders_weight_loss_map":
        step.tell("mask_type", "masks by Otsu, and their border weights")
    else:
        method = step.one_of("mask_type", _MASK_METHODS, "otsu", "method")
    step.leave("csv_name", "not needed, a folder of masks is read by its frames_meta.csv")
    step.leave("mask_ext", "masks are labels of the plate")
    step.leave("normalize_im", "thresholds do not depend on a z-score")
    radius = step.take("str_elem_radius", int)
    step.finish()
    if channels is None and folder is None:
        return {"masks": None, "border_weights": None}
    numbers = channels if channels is None or isinstance(channels, list) else [channels]
    chosen = {"channels": numbers, "method": method, "radius": radius, "folder": folder}
    masks = {key: value for key, value in chosen.items() if value is not None}
    return {"masks": masks, "border_weights": {} if weights else None}


def _clip(tile: Keys) -> dict[str, Any] | None:
    limits = tile.take("hist_clip_limits", list)
    if limits is None:
        return None
    tile.tell("hist_clip_limits", "percentiles of the data set; microDL's are those of each stack: clip.scope volume")
    return {"percentiles": limits}


def _normalize(step: Keys, tile: Keys) -> dict[str, Any] | None:
    """Return the normalization: of a later version of microDL from `normalize`, of the first from `tile`."""
    channels = [tile.take("normalize_channels", int, bool, list), step.take("normalize_channels", bool, list)]
    scope = step.take("normalize_im", str, bool)
    step.leave("min_fraction", "statistics count all images that are not empty")
    step.finish()
    for keys, given in zip((tile, step), channels, strict=True):
        wanted = given if isinstance(given, list) else [given]
        if given is not None and not any(wanted):
            return {"method": "none"}
        if given is not None and not all(wanted):
            keys.tell("normalize_channels", "all channels are normalized")
    if scope is None or scope is True:
        if "normalize_channels" in tile:
            tile.tell("normalize_channels", "by the statistics of the data set; microDL's: normalize.scope volume")
        return None
    if scope is False or scope.lower() == "none":
        return {"method": "none"}
    if scope.lower() not in _SCOPES:
        step.tell("normalize_im", f"no such scope (there are {', '.join(_SCOPES)}); dataset instead")
    elif scope.lower() == "slice":
        step.tell("normalize_im", "statistics of a volume stand for those of its slices")
    return {"method": "z_score", "scope": _SCOPES.get(scope.lower(), "dataset")}


def _tiles(tile: Keys) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the tiles, and the masks from elsewhere that they are chosen by."""
    size, step = tile.take("tile_size", list), tile.take("step_size", list)
    volume = tile.take("tile_3d", bool, default=False)
    least, mask_dir = tile.take("min_fraction", float), tile.take("mask_dir", str)
    mask_channel = tile.take("mask_channel", int)
    around = "slices around a slice are read in training, by the depth of training.input_shape"
    tile.leave_all({"depths": around, "depth": around, "mask_depth": around})
    tile.leave("image_format", "not needed, no tile is written")
    for key in ("save_tiled_masks", "save_cropped_masks"):
        tile.leave(key, "not needed, no tile is written")
    tile.leave("channels", "all channels of the plate are tiled; channels choose them")
    chosen = [None if mask_channel is None else [mask_channel], mask_dir]
    masks = {key: value for key, value in zip(("channels", "folder"), chosen, strict=True) if value is not None}
    if size is None:
        return None, masks if mask_dir else None
    if volume and len(size) == 3:
        tile.tell("tile_size", "y, x, z of microDL become z, y, x")
        size, step = (None if each is None else [each[-1], *each[:-1]] for each in (size, step))
    tiles = {"size": size, "step": step, "min_fraction": least}
    return {key: value for key, value in tiles.items() if value is not None}, masks if mask_dir else None
