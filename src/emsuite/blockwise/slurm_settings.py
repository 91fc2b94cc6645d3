"""The resources to request from Slurm for each worker, from a yaml file or from the command line."""

import json
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import Field, PositiveInt

from emsuite.common.documents import parse_yaml
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, validate


class SlurmSettings(Settings):
    """The resources to request per worker. The cluster's own defaults apply to keys that are not set."""

    workers: PositiveInt = Field(4, le=10_000, description="The number of jobs at a time.")
    partition: str | None = None
    account: str | None = None
    time: str | None = Field(None, description="The time limit of a job, as Slurm writes it: 2:00:00.")
    memory: str | None = Field(None, description="The memory of a job, as 8G.")
    cpus: PositiveInt = Field(1, le=10_000)
    extra: tuple[str, ...] = Field((), description="More options of srun, as --constraint=avx2.")

    @property
    def options(self) -> list[str]:
        """The options on srun's command line."""
        named = {"partition": self.partition, "account": self.account, "time": self.time, "mem": self.memory}
        options = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*options, f"--cpus-per-task={self.cpus}", *self.extra]

    @property
    def arguments(self) -> list[str]:
        """The command-line words `--workers slurm --slurm KEY=VALUE ...`, which `read_slurm_settings` reads back."""
        keys = self.model_dump(exclude_unset=True, mode="json")
        pairs = [f"{key}={json.dumps(value)}" for key, value in keys.items()]  # JSON is also valid yaml
        return ["--workers", "slurm", *(word for pair in pairs for word in ("--slurm", pair))]


def read_slurm_settings(pairs: Sequence[str]) -> SlurmSettings:
    """Return the settings of KEY=VALUE texts; lists are written as [--a, --b].

    Raises:
        BadInput: If a text is not KEY=VALUE, or a key or a value is not valid.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"--slurm {pair}: expected KEY=VALUE, as partition=cpu")
        try:
            # texts only: yaml would read the time 2:00:00 as a number of seconds
            values[key] = parse_yaml(value, texts_only=True)
        except yaml.YAMLError:
            raise BadInput(f"--slurm {pair}: the value is not valid yaml") from None
    return validate(SlurmSettings, values, "--slurm")
