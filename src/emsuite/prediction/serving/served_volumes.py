"""Whether a served volume is still what it was when the server began: a chunk that is gone reads as zeros."""

from collections.abc import Mapping

from emsuite.common.errors import BadInput
from emsuite.data.grey_values import reopened
from emsuite.io.fingerprint import state
from emsuite.io.volume import Volume, is_url


class Changed(Exception):
    """A volume was moved, removed or edited; the server must begin anew to serve it."""


class ServedVolumes:
    """The files of volumes as they are now, to be compared later; about 5 us each."""

    def __init__(self, volumes: Mapping[str, Volume]):
        """Look at all files."""
        self._volumes, self._states = volumes, {name: state(raw.path)[0] for name, raw in volumes.items()}

    def check(self, name: str) -> None:
        """Raise Changed if the files of a volume are others by now, or if its server has it no longer."""
        raw = self._volumes[name]
        try:
            if is_url(raw.path):
                reopened(raw)
            is_same = state(raw.path)[0] == self._states[name]
        except (BadInput, OSError):
            is_same = False
        if not is_same:
            raise Changed(f"volume {name} was moved, removed or edited since the server began; begin it again")
