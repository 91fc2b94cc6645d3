"""01_data/synthesize_plate.py and 01_data/preprocess.py as a user runs them, with the configuration of the project."""

import json
from pathlib import Path

import pytest

from builders import ROOT
from emsuite.plates.plate import open_plate

SYNTHESIZE, PREPROCESS = "01_data/synthesize_plate.py", "01_data/preprocess.py"
CONFIG = ROOT / "config/preprocess.yaml"
SMALL = ("--set", "positions=5", "--set", "size=64", "--set", "slices=1")


def test_from_nothing_to_a_plate_for_training(call_script, tmp_path: Path) -> None:
    run = call_script(SYNTHESIZE, "mine/frames", *SMALL)
    assert run.out == "mine/frames: 30 frames of label-free, channels phase, nuclei, membranes\n", run.err
    run = call_script(PREPROCESS, CONFIG)
    assert run.code == 0, run.err
    bars = [f"flat field of {name}: 100% 10/10" for name in ("phase", "nuclei", "membranes")]
    for bar in (*bars, "correct: 100% 5/5", "measure: 100% 60/60", "tiles: 100% 30/30"):
        assert bar in run.err
    told = dict(line.split(": ", 1) for line in run.out.splitlines())
    assert told["resize"] == "not in the configuration"
    assert sum(json.loads(told["split"]).values()) == 5
    assert open_plate(tmp_path / "mine/preprocessed/plate.zarr").channels == ("phase", "nuclei", "membranes")
    again = call_script(PREPROCESS, CONFIG)
    assert again.out == "mine/preprocessed: already there, made with the same settings\n"
    assert "already there" in call_script(SYNTHESIZE, "mine/frames", *SMALL).out


def test_the_stains(call_script, tmp_path: Path) -> None:
    run = call_script(SYNTHESIZE, "stains", "--kind", "stains", "--set", "tile=256")
    assert run.out == "stains: 8 frames of stains, channels haematoxylin, dab\n"
    off = [word for step in ("masks", "tiles", "flat_field") for word in ("--set", f"{step}=")]
    run = call_script(PREPROCESS, CONFIG, "--input", "stains", "--output", "it's ready", *off)
    assert run.code == 0, run.err
    assert (tmp_path / "it's ready/statistics.csv").exists()


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        (PREPROCESS, ("nothing.yaml",), "nothing.yaml"),
        (PREPROCESS, (CONFIG,), "mine/frames: no such folder"),
        (
            PREPROCESS,
            (CONFIG, "--set", "normalize.scope=well"),
            "normalize.scope: expected one of dataset, position",
        ),
        (SYNTHESIZE, ("out", "--set", "cells=none"), "cells"),
        (SYNTHESIZE, ("out", "--set", "colours=3"), "colours: unknown key"),
    ],
)
def test_bad_input_is_one_line(call_script, script: str, words: tuple[str, ...], line: str) -> None:
    run = call_script(script, *words)
    assert run.code == 2
    assert line in run.err
    assert run.err.count("\n") == 1
