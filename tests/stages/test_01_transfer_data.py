"""The scripts that make data for domain transfer: filter_patches, degrade, write_pairs; and compare_volumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Ended
from emsuite.io.volume import LABELS, RAW, create_volume, open_volume

Call = Callable[..., Ended]
DEGRADE, PAIRS, FILTER = "01_data/degrade.py", "01_data/write_pairs.py", "01_data/filter_patches.py"
COMPARE = "04_segment/compare_volumes.py"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    raw = np.random.default_rng(0).integers(0, 256, (8, 64, 64), dtype=np.uint8)
    create_volume(tmp_path / "a.zarr" / RAW, raw.shape, np.uint8, (8, 8, 8), (0, 0, 0)).array[...] = raw
    create_volume(tmp_path / "a.zarr" / LABELS, raw.shape, np.uint64, (8, 8, 8), (0, 0, 0)).array[...] = raw
    return tmp_path / "a.zarr"


def test_from_a_volume_to_its_score(call_script: Call, volume: Path, tmp_path: Path) -> None:
    second, pairs = tmp_path / "b.zarr", tmp_path / "pairs.h5"
    done = call_script(DEGRADE, volume, second, "--look", "box_and_holes", "--set", "seed=3", "--workers", "1")
    assert (done.code, done.out) == (0, f"{second}: written\n"), done.err
    again = call_script(DEGRADE, volume, second, "--look", "box_and_holes", "--set", "seed=3", "--workers", "1")
    assert again.out == f"{second}: already there, made with the same settings\n"
    done = call_script(PAIRS, second / RAW, volume / LABELS, pairs, "--roi", "0:32,:,:")
    assert (done.code, done.out) == (0, f"{pairs}: images and labels of [0:32, 0:512, 0:512] (32, 512, 512) nm\n")
    assert np.array_equal(open_volume(pairs / RAW).read(), open_volume(second / RAW).read()[:4])
    done = call_script(COMPARE, volume / RAW, second / RAW, pairs / RAW, "--out", tmp_path / "rmse.json")
    assert done.code == 0, done.err
    lines, told = done.out.splitlines(), json.loads((tmp_path / "rmse.json").read_text())
    assert told["roi"] == "0:32,0:512,0:512"
    assert [line.partition(": RMSE ")[0] for line in lines] == [str(second / RAW), str(pairs / RAW)]
    assert told["differences"][0]["rmse"] == told["differences"][1]["rmse"] > 0.1
    assert f"RMSE {told['differences'][0]['rmse']:.4f}," in lines[0]


def test_patches_of_a_filter(call_script: Call, volume: Path, tmp_path: Path) -> None:
    config = tmp_path / "filter.yaml"
    config.write_text("patch: [16, 16]\n")
    labels = "--labels", volume / LABELS
    done = call_script(
        FILTER, volume / RAW, tmp_path / "out", "--config", config, *labels, "--set", "least_density=null"
    )
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}: 128 of 128 blocks kept\n"), done.err
    patch = np.asarray(Image.open(tmp_path / "out/patches/7_block_15.png"))
    assert np.array_equal(patch, open_volume(volume / RAW).read()[7, 48:, 48:])
    assert len(list((tmp_path / "out/labels").iterdir())) == 128


def test_bad_input_is_one_line(call_script: Call, volume: Path, tmp_path: Path) -> None:
    for words, message in [
        ([DEGRADE, volume, tmp_path / "b.zarr", "--set", "darkest=2"], "--set darkest=2: darkest: "),
        ([DEGRADE, volume, tmp_path / "b.zarr", "--set", "box=5"], "--set box=5: box: unknown key"),
        ([DEGRADE, volume, volume], "is the volume to read"),
        ([DEGRADE, tmp_path / "missing.zarr", tmp_path / "b.zarr"], "missing.zarr: no such volume"),
        ([PAIRS, volume / RAW, volume / RAW, tmp_path / "b"], "expected a container to write"),
        ([FILTER, volume / RAW, tmp_path / "out"], "expected room for a block"),
        ([FILTER, volume / RAW, tmp_path / "out", "--set", "patch=[0,16]"], "patch.0: "),
        ([COMPARE, volume / RAW, volume / LABELS], "expected images"),
        ([COMPARE, volume / RAW, volume / RAW, "--out", next((volume / RAW).glob("*z*r*"))], "not made by this suite"),
    ]:
        done = call_script(*words)
        assert done.code == 2, done.err
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1, done.err
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"a.zarr"}
