"""microDL's `trainer` and its augmentations, in the keys `training` of network.yaml and `loss` of its head."""

from dataclasses import dataclass
from typing import Any

from emsuite.published.microdl.keys import Keys

_LOSSES = {
    "mae_loss": "mae",
    "mean_absolute_error": "mae",
    "mae": "mae",
    "mse_loss": "mse",
    "mean_squared_error": "mse",
    "mse": "mse",
    "kl_divergence_loss": "kl",
    "kullback_leibler_divergence": "kl",
    "binary_crossentropy_loss": "bce",
    "binary_crossentropy": "bce",
    "dssim_loss": "dssim",
    "ms_ssim_loss": "ms_ssim",
    "dice_coef_loss": "dice",
}
_NOT_NEEDED = {
    "model_dir": "the folder of network.yaml is that of the model",
    "metrics": "an option of the evaluation, --metrics",
    "workers": "not needed, samples are made by all processors",
    "num_workers": "not needed, samples are made by all processors",
    "patience": "microDL does not read it; that of EarlyStopping counts",
    "resume": "not needed, a stopped training goes on when it is started again",
    "gpu_ids": "all GPUs are used",
}


@dataclass(frozen=True)
class Trainer:
    """The translation of `trainer`."""

    training: dict[str, Any]
    head: dict[str, Any]
    """Keys of the head: its loss, and which voxels count."""


def translate_trainer(keys: Keys, steps: int, validates: bool) -> Trainer:
    """Translate `trainer`; the notes of `keys` tell what is not carried over.

    Args:
        keys: of `trainer`.
        steps: iterations of an epoch.
        validates: whether a part of the data is held out.
    """
    epochs = keys.take("max_epochs", int, default=10)
    iterations = epochs * steps
    keys.tell("max_epochs", f"{steps} iterations for an epoch: {iterations}")
    head = {"loss": keys.one_of("loss", _LOSSES, "mae", "loss") or "mae"}
    if keys.take("masked_loss", bool, default=False):
        head["weights"] = "foreground"
        keys.tell("masked_loss", "the loss is divided by the sum of the mask, not by all voxels")
    callbacks = keys.section("callbacks")
    validation = _validation(callbacks, steps)
    optimizer = _optimizer(keys.section("optimizer"), callbacks, steps)
    callbacks.finish()
    training = {"iterations": iterations, "batch_size": keys.take("batch_size", int, default=1), "optimizer": optimizer}
    training |= {"validation": validation} if validates else {}
    if iterations < 10_000:
        training["checkpoint_every"] = iterations
    keys.leave_all(_NOT_NEEDED)
    return Trainer(training, head)


def _validation(callbacks: Keys, steps: int) -> dict[str, Any]:
    validation: dict[str, Any] = {"every": steps, "samples": 16}
    if "EarlyStopping" in callbacks:
        stop = callbacks.section("EarlyStopping")
        validation |= {"patience": stop.take("patience", int, default=1)}
        if (
            stop.take("monitor", str, default="val_loss") != "val_loss"
            or stop.take("mode", str, default="min") == "max"
        ):
            stop.tell("monitor", "training ends by the loss on held-out samples")
        stop.take("mode", str)
        stop.take("verbose", bool, int)
        if change := stop.take("min_delta", float):
            validation["least_change"] = change
        stop.finish()
    callbacks.leave("ModelCheckpoint", "not needed, the best checkpoint by the loss on held-out samples is kept")
    callbacks.leave("TensorBoard", "not needed, a log for TensorBoard is always written")
    callbacks.leave("CSVLogger", "not needed, losses.csv is always written")
    return validation


def _optimizer(keys: Keys, callbacks: Keys, steps: int) -> dict[str, Any]:
    name = keys.take("name", str, default="Adam")
    if name.lower() != "adam":
        keys.tell("name", "Adam is the one optimizer")
    rate = keys.take("lr", float, default=0.001)
    first, second = keys.take("beta_1", float, default=0.9), keys.take("beta_2", float, default=0.999)
    optimizer: dict[str, Any] = {"learning_rate": rate, "betas": [first, second]}
    keys.finish()
    if "LearningRateScheduler" not in callbacks:
        callbacks.take("LearningRateScheduler", dict)
        return optimizer
    cycle = callbacks.section("LearningRateScheduler")
    if cycle.take("lr_find", bool, default=True):
        reason = "the search for a rate is a step of its own, before training"
        for key in ("lr_find", "base_lr", "max_lr", "max_epochs", "fig_fname"):
            cycle.leave(key, reason)
    else:
        optimizer |= _cyclic(cycle, steps)
    cycle.finish()
    return optimizer


def _cyclic(cycle: Keys, steps: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "lowest_rate": cycle.take("base_lr", float, default=0.001),
        "half": round(steps * cycle.take("step_size", float, default=2)),
        "gamma": cycle.take("gamma", float, default=1),
        "gamma_by": cycle.one_of("scale_mode", {"cycle": "cycle", "iterations": "iteration"}, "cycle", "mode")
        or "cycle",
    }
    cycle.tell("step_size", f"{steps} iterations for an epoch: {settings['half']}")
    return {"learning_rate": cycle.take("max_lr", float, default=0.006), "schedule": "cyclic", "cycle": settings}


def translate_augmentations(keys: Keys) -> list[dict[str, Any]]:
    """Return what `augmentations` stands for: true for flips and turns, or keys of a later version."""
    given = keys.take("augmentations", bool, dict)
    if not given:
        return []
    steps: list[dict[str, Any]] = [
        {"name": "mirror_transpose", "mirror": [1, 2], "transpose": [1, 2], "diagonals": False}
    ]
    if not isinstance(given, dict):
        return steps
    section = keys.section("augmentations")
    section.leave("rotate_range", "flips and turns by 90 degrees instead; elastic has rotations")
    section.leave("zoom_range", "not carried over, no augmentation zooms")
    section.leave("shear_range", "not carried over; elastic deforms")
    section.leave("intensity_jitter", "not carried over: it counts in deviations; intensity has a scale and a shift")
    if blur := section.take("blur_range", list):
        steps.append({"name": "blur", "probability": 1.0, "sigma": blur})
    if "noise_std" in section:
        section.leave(
            "noise_std", "not carried over: it counts in deviations; noise counts in the range of grey values"
        )
    section.finish()
    return steps
