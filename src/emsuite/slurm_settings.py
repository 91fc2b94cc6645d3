"""What Slurm is asked for, when it starts workers."""

import json
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import Field, PositiveInt

from emsuite.errors import BadInput
from emsuite.settings import Settings, validate


class SlurmSettings(Settings):
    """What Slurm is asked for, per worker; what is not said is left to the cluster's own defaults."""

    workers: PositiveInt = Field(4, description="jobs at a time")
    partition: str | None = None
    account: str | None = None
    time: str | None = Field(None, description="limit per job, as Slurm writes it: 2:00:00")
    memory: str | None = Field(None, description="per job, as 8G")
    cpus: PositiveInt = 1
    extra: tuple[str, ...] = Field((), description="further options of srun, as --constraint=avx2")

    @property
    def options(self) -> list[str]:
        """For srun's command line."""
        named = {"partition": self.partition, "account": self.account, "time": self.time, "mem": self.memory}
        given = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*given, f"--cpus-per-task={self.cpus}", *self.extra]

    @property
    def arguments(self) -> list[str]:
        """`--workers slurm --slurm KEY=VALUE ...` of the stage scripts; the inverse of `read_slurm_settings`."""
        given = self.model_dump(exclude_unset=True, mode="json")
        pairs = [f"{key}={json.dumps(value)}" for key, value in given.items()]  # json is yaml
        return ["--workers", "slurm", *(word for pair in pairs for word in ("--slurm", pair))]


def read_slurm_settings(pairs: Sequence[str]) -> SlurmSettings:
    """Settings from KEY=VALUE texts, lists as [--a, --b]; raises BadInput."""
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"--slurm {pair}: expected KEY=VALUE, as partition=cpu")
        try:
            # a time as 2:00:00 would be a number of seconds to yaml
            given[key] = yaml.load(value, yaml.BaseLoader)
        except yaml.YAMLError:
            raise BadInput(f"--slurm {pair}: the value is not valid yaml") from None
    return validate(SlurmSettings, given, "--slurm")
