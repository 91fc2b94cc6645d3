"""Inputs that nobody should write, by the hundred: one line each, or a legal run, in bounded time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import ROOT

PROGRAM = ROOT / "tests/system/hostile_inputs.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "least"),
    [
        (("networks", "datasets", "bundles"), 330),
        (("command_lines", "manifests", "checkpoints"), 290),
        (("plates",), 180),
    ],
)
def test_each_gets_one_line(tmp_path: Path, kinds: tuple[str, ...], least: int) -> None:
    """`EMSUITE_HOSTILE_INPUTS=20` searches longer, and elsewhere in each run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, *kinds],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    last = (tmp_path / "input").read_text() if (tmp_path / "input").exists() else "none"
    assert run.returncode == 0, f"{run.returncode} at {last[:1000]}: {run.stderr[-3000:]}"
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["inputs"] >= least
    assert found["refused"] > found["inputs"] / 2
