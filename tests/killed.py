"""Runs that are killed while they remove a folder: nothing that would follow, and no handler of errors, is done."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from builders import files_in

MOMENTS = ("before", "renamed", "half")
"""Of a removal: before anything, when the folder has another name, and when half of its files are gone."""


class Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def killed(number: int, moment: str) -> Iterator[list[Path]]:
    """Within the block, die in the removal of a folder, the first is 0; yield all that began, for the caller to see."""
    begun: list[Path] = []
    rename, rmtree = Path.rename, shutil.rmtree

    def renaming(path: Path, target: Any) -> Any:
        if str(target).endswith(".emsuite.removed"):
            begun.append(path)
            if len(begun) == number + 1 and moment == "before":
                raise Killed
        return rename(path, target)

    def removing(path: Any, *args: Any, **more: Any) -> None:
        if len(begun) != number + 1:
            return rmtree(path, *args, **more)
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())  # hidden names, as of marks, first
        for file in files[: -(-len(files) // 2)] if moment == "half" else ():
            file.unlink()
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "rename", renaming)
        patched.setattr(shutil, "rmtree", removing)
        patched.setattr("emsuite.common.outputs._mark_stopped", lambda _: None)
        yield begun


@contextmanager
def killed_at_rename(number: int) -> Iterator[Iterator[int]]:
    """Within the block, die instead of a rename, the first is 0: of a file that was written, or of a folder.

    Yields the numbers of renames; the next one is the number of all that were tried.
    """
    calls = count()

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def renaming(*args: Any, **more: Any) -> Any:
            if next(calls) == number:
                raise Killed
            return real(*args, **more)

        return renaming

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emsuite.common.outputs._mark_stopped", lambda _: None)
        for owner, name in ((os, "replace"), (Path, "rename"), (Path, "replace")):
            patched.setattr(owner, name, dying(getattr(owner, name)))
        yield calls


def check_removals(run: Callable[[Path], Any], folder: Path, least: int, moment: str) -> None:
    """Kill a run in each of its removals in turn, and run it again: all files must be as without the kill.

    Args:
        run: Writes its outputs below the folder that it gets; it may be called again there.
        folder: For all of them.
        least: So many folders are removed at least.
        moment: Of each removal, see `MOMENTS`.
    """
    (folder / "whole").mkdir()
    run(folder / "whole")
    number = 0
    while True:
        place = folder / str(number)
        place.mkdir()
        try:
            with killed(number, moment) as begun:
                run(place)
        except Killed:
            run(place)
            found, whole = _kept(place), _kept(folder / "whole")
            assert found.keys() == whole.keys(), begun[-1]
            assert [name for name in whole if found[name] != whole[name]] == [], begun[-1]
            number += 1
        else:
            assert number >= least
            return


def _kept(folder: Path) -> dict[str, bytes]:
    """All files but those that hold times and names of runs."""
    return {
        name: b"" if name.endswith((".manifest.json", ".emsuite")) else content
        for name, content in files_in(folder).items()
    }
