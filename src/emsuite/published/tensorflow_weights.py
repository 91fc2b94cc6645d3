"""Weights and optimizer state of this suite's networks, read from the variables of a TensorFlow checkpoint.

A rule maps each variable to one parameter; the scope, here setup02, may be any:

    setup02/unet_layer_0_left_0/kernel      unet.layer_0_left_0.weight      (z, y, x, in, out) -> (out, in, z, y, x)
    setup02/unet_up_1_to_0/kernel           unet.up_1_to_0.weight           (z, y, x, out, in) -> (in, out, z, y, x)
    setup02/embedding_0/bias                heads.lsds.bias
    setup02/setup02/unet_.../kernel/Adam    the first moment of a weight; Adam_1: the second moment

Source: funkelab/lsd_nm_experiments (mknet), funkelab/mala's layers, TensorFlow's AdamOptimizer.
"""

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, build_network
from emsuite.published.tensorflow_bundle import Bundle
from emsuite.training.optimizer import make_optimizer

_WEIGHT = re.compile(r"(?:.+/)?(?:unet_(?P<layer>[a-z]+_\d+_[a-z]+_\d+)|(?P<head>\w+)_0)/(?P<kind>kernel|bias)")
_HEAD_NAMES = {"embedding": "lsds"}
_KINDS = {"kernel": "weight", "bias": "bias"}
_NO_WEIGHT = re.compile(r"(.+/)?(kernel|bias)/\w+|(.+/)?beta[12]_power(_\d+)?|gunpowder/.+|(.+/)?global_step")
_ITERATION = "gunpowder/iteration"
_KERNEL_AXES = (4, 3, 0, 1, 2)


def read_weights(bundle: Bundle, config: NetworkConfig) -> dict[str, Tensor]:
    """Return the parameters of `build_network(config)`, float32, by name.

    Raises BadInput if a parameter has no variable or two, a weight belongs to no parameter, or a shape differs.
    """
    variables = match_variables(bundle, config)
    return {parameter: _read(bundle, variable) for parameter, variable in variables.items()}


def read_optimizer(bundle: Bundle, config: NetworkConfig, iteration: int) -> dict:
    """Return Adam's state after `iteration`, in the form of `make_optimizer(...).state_dict()`.

    Raises BadInput if a moment is missing or has another shape than its weight.
    """
    name, steps = _optimizer(config, iteration)
    slot_name = re.compile(rf"(?:.+/)?([^/]+/(?:kernel|bias)/{name}(?:_1)?)")
    slots = {match[1]: variable for variable in bundle.variables if (match := slot_name.fullmatch(variable))}
    state = {}
    for index, variable in enumerate(match_variables(bundle, config).values()):
        layer = "/".join(variable.split("/")[-2:])
        moments = {}
        for key, slot in (("exp_avg", f"{layer}/{name}"), ("exp_avg_sq", f"{layer}/{name}_1")):
            if slot not in slots:
                raise BadInput(
                    f"{bundle.prefix}: has no optimizer state '{slot}'; --without-optimizer converts weights alone"
                )
            _check_shape(bundle, slots[slot], bundle.variables[variable].shape)
            moments[key] = _read(bundle, slots[slot])
        state[index] = {"step": torch.tensor(float(steps))} | moments
    with torch.device("meta"):
        groups = make_optimizer(list(build_network(config).parameters()), config.training.optimizer).state_dict()
    return groups | {"state": state}


def iteration_of(bundle: Bundle) -> int | None:
    """Return the iteration that gunpowder counted, or None if the checkpoint does not hold it.

    Raises BadInput if the checkpoint holds something else there.
    """
    if _ITERATION not in bundle.variables:
        return None
    values = bundle.read(_ITERATION)
    if values.size != 1 or values.dtype.kind not in "iuf" or not 0 <= values.flat[0] < 2**53:
        raise BadInput(f"{bundle.prefix}: '{_ITERATION}' holds {values.size} {values.dtype}, expected one iteration")
    return int(values.flat[0])


def match_variables(bundle: Bundle, config: NetworkConfig) -> dict[str, str]:
    """Return the variable of each parameter of `build_network(config)`, in its order. Raises as `read_weights`."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build_network(config).state_dict().items()}
    where, name = bundle.prefix, f"{config.dataset}/{config.network}"
    variables = dict[str, str]()
    for variable in weight_names(bundle.variables):
        parameter = _parameter(variable)
        if parameter not in shapes:
            raise BadInput(f"{where}: holds '{variable}', which is no part of the network {name}")
        if parameter in variables:
            raise BadInput(f"{where}: '{variables[parameter]}' and '{variable}' are the same part of the network")
        variables[parameter] = variable
    for parameter in shapes:
        if parameter not in variables:
            raise BadInput(f"{where}: has nothing for '{parameter}' of the network {name}")
    for parameter, variable in variables.items():
        _check_shape(bundle, variable, _tensorflow_shape(shapes[parameter]))
    return {parameter: variables[parameter] for parameter in shapes}


def weight_names(variables: Iterable[str]) -> list[str]:
    """Return the names that are weights: no counters, and no state of an optimizer."""
    return [name for name in variables if not _NO_WEIGHT.fullmatch(name)]


def _parameter(variable: str) -> str | None:
    match = _WEIGHT.fullmatch(variable)
    if match is None:
        return None
    if match["layer"]:
        return f"unet.{match['layer']}.{_KINDS[match['kind']]}"
    head = _HEAD_NAMES.get(match["head"], match["head"])
    return f"heads.{head}.{_KINDS[match['kind']]}"


def _tensorflow_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 5 else shape


def _check_shape(bundle: Bundle, variable: str, expected: tuple[int, ...]) -> None:
    shape = bundle.variables[variable].shape
    if shape != expected:
        raise BadInput(f"{bundle.prefix}: '{variable}' has the shape {shape}, expected {expected}")


def _optimizer(config: NetworkConfig, iteration: int) -> tuple[str, int]:
    """Return the name of the optimizer in use at `iteration`, and how many steps it made until then."""
    for head in config.heads.values():
        switch = getattr(head, "switch_to", None)
        if switch is not None and iteration > switch.iteration:
            return "malis_optimizer", iteration - switch.iteration
    return "Adam", iteration


def _read(bundle: Bundle, variable: str) -> Tensor:
    values = bundle.read(variable)
    if values.dtype != np.float32:
        raise BadInput(f"{bundle.prefix}: '{variable}' holds {values.dtype}, expected float32")
    if not np.isfinite(values).all():
        raise BadInput(f"{bundle.prefix}: '{variable}' holds NaN or infinity")
    axes = _KERNEL_AXES if values.ndim == 5 else None
    return torch.from_numpy(np.array(values.transpose(axes), order="C"))
