"""What training reads, watched for edits: the record of weights names the voxels that they were trained on."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from emsuite.common.errors import BadInput
from emsuite.common.state.origins import Reading
from emsuite.data.training_volume import TrainingVolume
from emsuite.io.volume import is_url

Told = Sequence[Mapping[str, Any]]
"""The content of each volume, as the record has it."""


@dataclass(frozen=True)
class Watched:
    """Arrays, files and folders, as they were before the first of them was read.

    Sizes and times of files count, and what documents say; of arrays on servers, which tell of no change, the voxels.
    """

    reading: Reading
    on_servers: Sequence[str]

    @classmethod
    def of(cls, paths: Iterable[Path | str]) -> "Watched":
        """Look at what is to be read; a file that comes later counts as an edit."""
        names = dict.fromkeys(map(str, paths))
        return cls(Reading.of({name: Path(name) for name in names if not is_url(name)}), [*filter(is_url, names)])

    @property
    def made_from(self) -> dict[str, str]:
        """The identities of the runs that made what is read, as far as it has records, each once."""
        return {str(number): run for number, run in enumerate(dict.fromkeys(self.reading.made_from.values()))}

    def streamed(self, volumes: Iterable[TrainingVolume]) -> "Watched":
        """Return all but the volumes in memory, which nobody reads again once their content is recorded."""
        held = {Path(path) for volume in volumes if isinstance(volume.raw, Tensor) for path in volume.paths}
        above = {parent for path in held for parent in path.parents}  # as the folder of a plate
        names = [
            name
            for name in (*self.reading.inputs, *self.on_servers)
            if held.isdisjoint(_with_parents(name)) and Path(name) not in above
        ]
        left = [name for name in names if name in self.reading.inputs]
        return Watched(self.reading.only(left), [name for name in names if name not in self.reading.inputs])

    def check(self, recorded: Told, tell: Callable[[], Told] | None = None) -> None:
        """Raise BadInput if anything was replaced or edited since.

        Args:
            recorded: what was told of all volumes when the run began.
            tell: tells it again, and is asked if volumes lie on a server; None: these are not looked at.
        """
        self.reading.check()
        if self.on_servers and tell is not None and list(tell()) != list(recorded):
            url = re.sub(r":/(?!/)", "://", self.on_servers[0], count=1)  # a Path has lost a slash
            raise BadInput(f"{url}: was replaced or edited while it was read; train anew")


def _with_parents(name: str) -> tuple[Path, ...]:
    return Path(name), *Path(name).parents
