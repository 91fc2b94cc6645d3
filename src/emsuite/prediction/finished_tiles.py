"""The tiles of a prediction that are written: their numbers, one a line, in files beside the arrays."""

import os
from pathlib import Path

from emsuite.common.files import atomic_path, write_text

_MOST_DIGITS = 20


class TileRecord:
    """The record `name` in `folder`. Each process that adds to it has its own file, since lines must not mix.

    Where outputs are blended, rows of shards are recorded instead of tiles. The names of the files hold the id of the
    `run`, see `Output.run`: tiles of another run do not count. Without it, the tiles of all runs count.
    """

    def __init__(self, folder: Path, name: str, run: str = ""):
        self._folder, self._name = folder, f"{name}.{run}" if run else name
        self._file: int | None = None

    @property
    def begun(self) -> bool:
        """Whether an earlier run created the arrays."""
        return self._main.exists()

    def begin(self) -> None:
        """Write an empty record. Call this as soon as the arrays exist."""
        self._main.write_text("")

    def read(self) -> set[int]:
        """Return the numbers of the tiles that are written.

        A line that a full disk cut short, or that is no number, does not count: its tile is computed again.
        """
        lines = [
            line for path in self._files() for line in path.read_bytes().splitlines(True) if len(line) < _MOST_DIGITS
        ]
        return {int(line) for line in lines if line.endswith(b"\n") and line.strip().isdigit()}

    def keep(self, numbers: set[int]) -> None:
        """Forget all other tiles, before any is computed again: files of theirs are gone, and others may write them."""
        write_text(self._main, "".join(f"{number}\n" for number in sorted(numbers)))
        for path in self._files():
            if path != self._main:
                path.unlink()

    def open(self, process: str = "") -> "TileRecord":
        """Open the record for `add`, in a file of its own if `process` names one. Return the record."""
        path = self._folder / f"{self._name}_{process}.txt" if process else self._main
        if path.exists():
            # a new file: the old one may be one with that of a copy, by a hard link
            recorded = path.read_bytes()
            with atomic_path(path) as temporary:
                temporary.write_bytes(recorded[: recorded.rfind(b"\n") + 1])
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return self

    def add(self, number: int) -> None:
        """Record that a tile is written. Threads may call this at the same time."""
        assert self._file is not None, "not open"
        os.write(self._file, f"{number}\n".encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob(f"{self._name}*.txt") if path.is_file()]

    @property
    def _main(self) -> Path:
        return self._folder / f"{self._name}.txt"
