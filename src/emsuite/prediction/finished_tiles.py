"""Which tiles of a prediction are written: their numbers, a line each, in files beside the arrays."""

import os
from pathlib import Path


class TileRecord:
    """The record `name` in `folder`; each process that adds to it has a file of its own, as lines may not mix."""

    def __init__(self, folder: Path, name: str):
        self._folder, self._name = folder, name
        self._file: int | None = None

    @property
    def begun(self) -> bool:
        """Whether there are arrays to go on with."""
        return self._main.exists()

    def begin(self) -> None:
        """An empty record, as soon as there are arrays."""
        self._main.write_text("")

    def read(self) -> set[int]:
        """Numbers of the tiles that are written; a line that a full disk cut short does not count."""
        lines = [line for path in self._folder.glob(f"{self._name}*.txt") for line in path.read_text().splitlines(True)]
        return {int(line) for line in lines if line.endswith("\n")}

    def open(self, process: str = "") -> "TileRecord":
        """Ready to add to, in a file of its own if `process` names one."""
        path = self._folder / f"{self._name}_{process}.txt" if process else self._main
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return self

    def add(self, number: int) -> None:
        """Note that a tile is written; threads may call this side by side."""
        assert self._file is not None, "not open"
        os.write(self._file, f"{number}\n".encode())

    def close(self) -> None:
        """No more is added."""
        if self._file is not None:
            os.close(self._file)

    @property
    def _main(self) -> Path:
        return self._folder / f"{self._name}.txt"
