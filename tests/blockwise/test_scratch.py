import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from emsuite.blockwise.scratch import scratch_folder

HOLD = """
import time
from emsuite.blockwise.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_it_goes_with_its_run(tmp_path: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        (folder / "file").touch()
    assert not any(tmp_path.iterdir())


def test_that_of_a_killed_run_is_removed_and_others_stay(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(process.stdout.readline().strip()) for process in running if process.stdout]
    for name in ("emsuite-run-old", "emsuite-run-new", "emsuite-of-somebody"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "emsuite-run-old", (1, 1))
    running[0].send_signal(signal.SIGKILL)
    running[0].wait()
    try:
        with scratch_folder() as folder:
            kept = {folder.name, folders[1].name, "emsuite-run-new", "emsuite-of-somebody"}
            assert {path.name for path in tmp_path.iterdir()} == kept
    finally:
        running[1].kill()
        for process in running:
            process.communicate()
