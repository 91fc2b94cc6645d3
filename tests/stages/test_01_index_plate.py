"""01_data/index_plate.py as a user runs it."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.plates.plate import open_plate
from frames_of_a_plate import voxels_of, write_frames

SCRIPT = "01_data/index_plate.py"


def test_frames_become_a_plate(run_script, tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", 2)
    words = ("frames", "mine/plate.zarr", "--channel-names", "phase,nuclei", "--pixel-size", "500,100,100")
    run = run_script(SCRIPT, *words)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "mine/plate.zarr: 2 positions, channels phase, nuclei\n"
    plate = open_plate(tmp_path / "mine/plate.zarr")
    assert np.array_equal(plate.read("A/1/1", 0, 1), voxels_of(1)[0, 1])
    assert plate.voxel_size_nm == (500, 100, 100)


def test_names_by_order_by_channel_and_by_expression(call_script, tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 2, "im_p{p}_t{t}_z{z}_c{c}.png")
    write_frames(tmp_path / "b", 2, "img_ch{c}_t{t}_p{p}_z{z}.png")
    write_frames(tmp_path / "c", 2, "exp7_{p}-{t}-{z}-{c}.png")
    expression = r"exp7_(?P<p>\d)-(?P<t>\d)-(?P<z>\d)-(?P<c>\d)"
    for folder, words in (
        ("a", ("--order", "ptzc")),
        ("b", ("--name-parser", "sms")),
        ("c", ("--expression", expression)),
    ):
        run = call_script(SCRIPT, folder, f"{folder}.zarr", *words)
        assert run.code == 0, run
        plate = open_plate(tmp_path / f"{folder}.zarr")
        assert np.array_equal(plate.read("A/1/1", 1, 0), voxels_of(1)[1, 0])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("frames", "plate"), "plate: expected a name that ends in .zarr"),
        (("nothing", "plate.zarr"), "nothing: no such folder"),
        (("frames", "plate.zarr", "--order", "cz"), "order cz: expected the letters c, z, t, p"),
        (("frames", "plate.zarr", "--order", "cztp", "--expression", "a"), "exclude each other"),
        (("frames", "plate.zarr", "--pixel-size", "1,2"), "expected three lengths in nm"),
        (("frames", "plate.zarr", "--channel-names", "a,b,c"), "channel 2 (c) has no images"),
    ],
)
def test_bad_input_is_one_line(call_script, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    write_frames(tmp_path / "frames", 1)
    run = call_script(SCRIPT, *words)
    assert run.code == 2
    assert line in run.err
    assert run.err.count("\n") == 1
