"""The record of what weights were trained with: settings, data and code. Checkpoints hold it, and resuming compares it.

    {"from": 0, "settings": {...}, "data": [{"volume": "cube", "raw": "sha256:..."}], "code": "3f2a..."}

Where validation can end training, `held_out` tells its volumes, as `data`. An autocontext network has
`"frozen": {"iteration": 4, "digest": "9d1c..."}` too, the weights that it reads LSDs from; so
has domain transfer with a prior. `"start_from"` holds the same of weights that training began with.
A checkpoint holds one such record for each change: the next one begins `from` the iteration that it goes on from.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from emsuite.config.network import NetworkConfig, upgraded
from emsuite.config.transfer import without_weights_of_prior
from emsuite.data.normalization import Normalization
from emsuite.models.unet_settings import UNetSettings

Record = dict[str, Any]
"""`settings`: as `weight_settings`; `data`: a mapping for each training volume; `code`: the commit, None if unknown."""

IfChanged = Literal["refuse", "continue", "keep"]
"""What to do with a checkpoint that was trained with other settings or data, see `training.resume.check_record`."""

_NO_INFLUENCE = {
    "iterations", "stream", "compile", "cuda_graph", "deterministic", "accumulate", "split", "snapshot_format",
    "validation",
}  # fmt: skip
"""Keys of `training` that change where, how long or how fast weights are trained, up to rounding; `split` names data,
which the record holds."""

_LATER: dict[str, dict[str, Any]] = {"sampling": {"inside": False}, "grow_boundary": {"masked": True}}
"""Keys below those of `training`, with their defaults, that earlier versions did not know."""
_LATER_OF_STEPS: dict[str, dict[str, Any]] = {
    "mirror_transpose": {"diagonals": True},
    "missing_sections": {"artifact": 0.0, "artifacts": None, "dark": 0.0, "brightness": [0.2, 0.6]},
}
"""The same of augmentations, by their names."""


def weight_settings(config: NetworkConfig) -> dict[str, Any]:
    """Return the settings that influence weights, ready for JSON.

    How often a run reports and saves does not count, nor how it reads volumes, nor where volumes lie. `iterations`
    counts where the learning rate falls towards them, and `validation` where it can end training.
    """
    settings = config.model_dump(mode="json", exclude={"dataset", "network", "prediction"})
    training = settings["training"]
    uncounted = {key for key in training if key in _NO_INFLUENCE or "_every" in key}
    if config.rate_ends:
        uncounted.discard("iterations")
    if training["validation"] and training["validation"]["patience"] is not None:  # it decides when training ends
        uncounted.discard("validation")
        del training["validation"]["data"]  # the record tells its content
    for step in training["augment"]:
        if artifacts := step.get("artifacts"):
            del artifacts["volume"]  # the record tells its content
    if settings["plate"]:
        del settings["plate"]["path"]
    if config.transfer:
        settings["transfer"] = _without_places(settings["transfer"])
    return settings | {"training": {key: value for key, value in training.items() if key not in uncounted}}


def settings_of_images(config: NetworkConfig) -> dict[str, Any]:
    """Return the settings that decide on predicted images, beside weights and plate, ready for JSON."""
    return config.model_dump(mode="json", include={"unet", "heads", "plate", "prediction"})


def _without_places(transfer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of domain transfer without paths of images, of which the record tells the content."""
    places = {"raw", "labels", "boxes_file", "patches", "patch_labels"}

    def stripped(domain: Mapping[str, Any]) -> dict[str, Any]:
        volumes = [{key: value for key, value in one.items() if key not in places} for one in domain["volumes"]]
        return {key: value for key, value in domain.items() if key not in places} | {"volumes": volumes}

    domains = {name: stripped(domain) for name, domain in transfer["domains"].items()}
    kept = {key: value for key, value in transfer.items() if key != "held_out"}
    return kept | {"domains": domains, "discriminator": without_weights_of_prior(transfer["discriminator"])}


def record(
    config: NetworkConfig,
    data: Sequence[Mapping[str, Any]],
    code: str | None,
    frozen: Mapping[str, Any] | None = None,
    held_out: Sequence[Mapping[str, Any]] | None = None,
    start_from: Mapping[str, Any] | None = None,
) -> Record:
    """Return the record of training.

    Args:
        config: the resolved configuration.
        data: the volumes, as `training_data` describes them.
        code: the commit, if it is known.
        frozen: `iteration` and `digest` of the frozen network's weights, in an autocontext network.
        held_out: the volumes of a validation that can end training, as `data`.
        start_from: `iteration` and `digest` of the weights to begin with, if they are known.
    """
    told: Record = {"settings": weight_settings(config), "data": [dict(part) for part in data], "code": code}
    told |= {"held_out": [dict(part) for part in held_out]} if held_out is not None else {}
    named = {"frozen": frozen, "start_from": start_from}
    return told | {key: dict(weights) for key, weights in named.items() if weights}


def is_record(given: Any) -> bool:
    """Return whether a value that was read from a file has the parts of a record."""
    if not isinstance(given, dict) or not {"settings", "data", "code"} <= given.keys():
        return False
    if not all(isinstance(given.get(key, {}), dict) for key in ("frozen", "start_from")):
        return False
    data = given["data"] if isinstance(given["data"], list) else [] if given["data"] is None else [None]
    return isinstance(given["settings"], dict) and all(isinstance(part, dict) and "volume" in part for part in data)


def of_earlier_version(network: Any) -> Record | None:
    """Return the record of a checkpoint that has none, from the `network` settings of its provenance.

    None if there are none, or today's schema refuses them. What is unknown is None.
    """
    settings = upgraded({"network": network})["network"] if isinstance(network, Mapping) else None
    try:
        return {"settings": weight_settings(NetworkConfig.model_validate(settings)), "data": None, "code": None}
    except ValueError:
        return None


def differences(earlier: Record, now: Record) -> list[str]:
    """Return a text `key: earlier -> now` for each setting in which two records differ, and one for each volume.

    Parts that a record does not know do not differ. The code is not compared.
    """
    told = [
        f"{key} {_short(old)} -> {_short(new)}"
        for key, old, new in differing(_with_later_keys(earlier["settings"], now["settings"]), now["settings"])
    ]
    for key, what in (("data", ""), ("held_out", "held-out ")):
        told += [what + text for text in _other_data(earlier.get(key), now.get(key))]
    return [*told, *_other_weights(earlier, now)]


def has_other_frozen(earlier: Record, now: Record) -> bool:
    """Return whether two records name other weights of the frozen network; unknown ones do not differ."""
    return _has_other("frozen", earlier, now)


def _has_other(key: str, earlier: Record, now: Record) -> bool:
    digests = [record.get(key, {}).get("digest") for record in (earlier, now)]
    return None not in digests and digests[0] != digests[1]


def _other_weights(earlier: Record, now: Record) -> Iterator[str]:
    context = now["settings"].get("autocontext")
    frozen = f"of '{context['network']}', the frozen network" if context else "of the discriminator's prior"
    for key, name in (("frozen", frozen), ("start_from", "to begin with (training.start_from)")):
        if _has_other(key, earlier, now):
            former, today = (record[key].get("iteration") for record in (earlier, now))
            numbers = f"iteration {today}" if former in (None, today) else f"iteration {former} -> {today}"
            yield f"other weights {name}, {numbers}"


def _with_later_keys(settings: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings with the keys that earlier versions did not know or resolve."""
    told, known, context = dict(settings), settings.get("normalization"), settings.get("autocontext")
    if isinstance(known, Mapping):
        told["normalization"] = Normalization().model_dump(mode="json") | dict(known)
    if isinstance(context, Mapping) and context.get("iteration") is None:
        today = now.get("autocontext") or {}
        told["autocontext"] = {**context, "iteration": today.get("iteration")}  # the digest of its weights decides
    told["unet"] = with_later_unet_keys(settings.get("unet"))
    if isinstance(training := settings.get("training"), Mapping):
        told["training"] = {key: _with_defaults(_LATER.get(key, {}), value) for key, value in training.items()}
        if isinstance(steps := training.get("augment"), list | tuple):
            told["training"]["augment"] = [_with_later_keys_of_step(step) for step in steps]
    return told


def with_later_unet_keys(unet: Any) -> Any:
    """Return recorded settings of a U-Net with the defaults of keys that earlier versions did not know."""
    later = {key: field.default for key, field in UNetSettings.model_fields.items() if not field.is_required()}
    return _with_defaults(later, unet)


def _with_later_keys_of_step(step: Any) -> Any:
    name = step.get("name") if isinstance(step, Mapping) else None
    return _with_defaults(_LATER_OF_STEPS.get(str(name), {}), step)


def _with_defaults(defaults: Mapping[str, Any], known: Any) -> Any:
    return {**defaults, **known} if isinstance(known, Mapping) else known


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each key, dotted, with its values in `earlier` and `now`, where the two differ; None stands for no key."""
    for key in {**now, **earlier}:
        old, new = earlier.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differing(old, new, f"{above}{key}.")
        elif old != new:
            yield f"{above}{key}", old, new


def continued(history: Sequence[Record], now: Record | None, iteration: int) -> list[Record]:
    """Return the records of a run that goes on from `iteration`: a new one if settings, data or code differ."""
    if now is None:
        return list(history)
    last = {key: value for key, value in history[-1].items() if key != "from"} if history else None
    if last and "start_from" in last:  # the file of these weights may be gone by now
        now = {"start_from": last["start_from"], **now}
    return list(history) if last == now else [*history, {"from": iteration, **now}]


def _other_data(earlier: Sequence[Record] | None, now: Sequence[Record] | None) -> Iterator[str]:
    if earlier is None or now is None:
        return
    names = [[part["volume"] for part in parts] for parts in (earlier, now)]
    if names[0] != names[1]:
        yield f"volumes {', '.join(names[0])} -> {', '.join(names[1])}"
        return
    for old, new in zip(earlier, now, strict=True):
        keys = [key for key in new if old.get(key) != new[key]]
        if keys:
            yield f"{new['volume']}: {' and '.join(keys)} changed"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
