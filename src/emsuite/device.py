"""The device that computes, and the precision it computes in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emsuite.errors import BadInput

_GIVEN_GPUS = ("SLURM_GPUS", "SLURM_GPUS_ON_NODE")  # how many


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one.

    Raises BadInput if there is none although `cuda` is asked for, or although this is a Slurm job that was given one:
    days on the CPU would be what nobody wanted.
    """
    if not torch.cuda.is_available():
        if name == "cuda":
            raise BadInput("--device cuda: torch sees no GPU here; use --device cpu or auto")
        given = next((variable for variable in _GIVEN_GPUS if os.environ.get(variable, "0") != "0"), None)
        if name == "auto" and given:
            raise BadInput(
                f"--device auto: Slurm gave this job a GPU ({given}={os.environ[given]}), but torch sees none; "
                "expected --nv (profiles/apptainer has it) and a torch built for CUDA, or --device cpu"
            )
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Run convolutions in `precision`; float32 leaves everything as it is."""
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield
