"""Temporary folders of runs: each is removed when its run ends, or by a later run if its own was killed.

TMPDIR/emsuite-run-XXXX/.lock    the lock of the run, see `emsuite.common.state.lock`
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emsuite.common.state.lock import judge, owned

_PREFIX, _LOCK = "emsuite-run-", ".lock"
_HOUR = 3600


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new temporary folder, and remove it when the block ends; remove those of runs that were killed."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with owned(folder / _LOCK, folder) as lock:
            _remove_leftovers(folder.parent, lock.path)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path, clock: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if folder.is_symlink() or about.st_uid != os.getuid() or folder == clock.parent:
                continue
            # a run without a lock was killed as it began
            has_lock = (folder / _LOCK).exists()
            if judge(folder / _LOCK, clock)[0] == "dead" and (has_lock or time.time() - about.st_mtime > _HOUR):
                shutil.rmtree(folder, ignore_errors=True)
