"""The content of a checkpoint file, checked part by part before anything is built from it.

    format 2     networks {name: weights}, averages {name: weights}, optimizers {name: state}, normalization, ...
    format 1     weights, averaged, optimizer of one network, which format 2 calls `network`; still read

Loading with `weights_only=True` runs no code. But a small file can still unpack to any size, a tensor can claim to be
larger than the file, and every part can be of another type than the code behind it expects.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, strided

from emsuite.config.trained_with import is_record
from emsuite.data.grey_values import GreyRange
from emsuite.data.normalization import GreyScale, Normalization
from emsuite.data.transfer.statistics import DomainStatistics

FORMAT = 2
_NETWORK = "network"
"""The name of the only network in format 1."""
_MOST_PICKLE = 64 * 2**20
"""Bytes of all values that are no weights."""
_MOST_LEVELS = 50
_OPTIONAL = {
    "pools": dict,
    "averages": dict,
    "optimizers": dict,
    "normalization": dict,
    "provenance": dict,
    "trained_with": list,
}


def check_archive(path: Path) -> None:
    """Raise ValueError unless the file is an archive as torch writes it: all parts as they are, none compressed."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise ValueError("it is compressed")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise ValueError("its parts are larger than itself")
    if any(part.file_size > _MOST_PICKLE for part in parts if part.filename.endswith(".pkl")):
        raise ValueError("it holds too many values that are no weights")


def check_content(content: Any, most_bytes: int) -> dict[str, Any]:
    """Return the parts of a checkpoint, in the words of today's format.

    Args:
        content: what torch has read.
        most_bytes: the size of the file, which no tensor can exceed.

    Raises:
        ValueError, KeyError, TypeError: it is no checkpoint of a known format, or a part is of another type.
    """
    number = content.pop("format", None) if isinstance(content, dict) else None
    if not isinstance(number, int) or number not in (1, FORMAT):
        raise ValueError("it holds something else")
    parts = _from_format_1(content) if number == 1 else content
    iteration = parts["iteration"]
    if not isinstance(iteration, int) or isinstance(iteration, bool) or not 0 <= iteration < 2**63:
        raise ValueError(f"its iteration is {iteration!r}")
    for key, kind in {"architecture": dict, "networks": dict, **_OPTIONAL}.items():
        if not isinstance(parts.get(key, kind()), kind):
            raise ValueError(f"its {key} are of another type")
    tensors = [parts["networks"], parts.get("averages", {}), parts.get("pools", {})]
    for weights in (named for group in tensors for named in group.values()):
        _check_weights(weights, most_bytes)
    for key in ("architecture", "provenance", "frozen_digest", "trained_with"):
        _check_plain(parts.get(key))
    if not all(map(is_record, parts.get("trained_with", []))):
        raise ValueError("its records of training are of other types")
    _check_normalization(parts.get("normalization"))
    return parts


def _check_weights(weights: Any, most_bytes: int) -> None:
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ValueError("its weights have no names")
    for tensor in weights.values():
        if not isinstance(tensor, Tensor) or tensor.layout != strided or tensor.device.type != "cpu":
            raise ValueError("its weights are no plain tensors")
        if tensor.numel() * tensor.element_size() > most_bytes:
            raise ValueError("its weights are larger than itself")


def _check_plain(value: Any, level: int = 0) -> None:
    """Raise ValueError unless `value` consists of what JSON knows, with texts as keys."""
    if level > _MOST_LEVELS:
        raise ValueError("it is nested too deep")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("it has keys that are no texts")
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            _check_plain(part, level + 1)
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"it holds a {type(value).__name__}")


def _check_normalization(recorded: dict[str, Any] | None) -> None:
    if recorded is None:
        return
    if not isinstance(recorded["settings"], dict):
        raise ValueError("its normalization has no settings")
    _check_images(recorded.get("images"))
    for statistics in (recorded.get("domains") or {}).values():
        DomainStatistics.from_dict(statistics)
    measured = recorded["grey_scale"]
    if measured is not None and not (len(measured) == 2 and all(map(math.isfinite, measured))):
        raise ValueError("its grey scale is no gain and shift")
    measured = recorded.get("grey_range")
    if measured is not None and not (
        len(measured) == 2 and all(map(math.isfinite, measured)) and measured[0] < measured[1]
    ):
        raise ValueError("its range of grey values is no low and high")


def _check_images(images: Any) -> None:
    if images is None:
        return
    _check_plain(images)
    texts = [images["method"], images["scope"]]
    if not all(isinstance(text, str) for text in texts) or len(images["percentiles"]) != 2:
        raise ValueError("its normalization of a plate has no method, scope and percentiles")
    for scale in images["channels"].values():
        if not (len(scale) == 2 and all(map(math.isfinite, scale)) and scale[1] > 0):
            raise ValueError("its normalization of a plate has a channel without shift and scale")


def record_normalization(
    normalization: Normalization, grey_scale: GreyScale | None, grey_range: GreyRange | None = None,
    images: dict[str, Any] | None = None, domains: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the normalization of a network's input as a checkpoint records it: settings and measured numbers.

    A checkpoint without a measured range has no key for it, as those of earlier versions; nor one without a plate for
    `images`, see `emsuite.data.images.scales`; nor one of a supervised network for the statistics of `domains`.
    """
    measured = None if grey_scale is None else [float(number) for number in grey_scale]
    recorded: dict[str, Any] = {"settings": normalization.model_dump(mode="json"), "grey_scale": measured}
    recorded |= {"images": images} if images else {}
    recorded |= {"domains": domains} if domains else {}
    return recorded if grey_range is None else recorded | {"grey_range": list(map(float, grey_range))}


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    named = {"networks": content.pop("weights"), "averages": content.pop("averaged"),
             "optimizers": content.pop("optimizer")}  # fmt: skip
    named = {key: {} if value is None else {_NETWORK: value} for key, value in named.items()}
    frozen_digest = content.pop("first")
    return content | named | {"frozen_digest": frozen_digest}
