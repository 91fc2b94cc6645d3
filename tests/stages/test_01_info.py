"""What 01_data/info.py tells of files that others write, and the commands of docs/volumes.md."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import zarr
from PIL import Image
from tifffile import imwrite

from builders import ROOT, write_array
from dvid_server import Dvid, serve_dvid
from emsuite.io import description
from file_server import serve_files

SCRIPT = "01_data/info.py"
Call = Callable[..., Any]
COMMANDS = re.findall(r"^\| .* \| `python 01_data/info\.py (.+?)` \|$", (ROOT / "docs/volumes.md").read_text(), re.M)


@pytest.fixture(scope="module")
def slab(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Raw and labels of 24 sections of FIB-25, by zarr's own library."""
    group = zarr.open_group(request.getfixturevalue("fib25_slab"), mode="r")
    part = slice(100, 124), slice(20, 140), slice(30, 160)
    return tuple(np.asarray(group[name][part]) for name in ("volumes/raw", "volumes/labels/neuron_ids"))


@pytest.fixture(scope="module")
def dvid() -> Iterator[Dvid]:
    with serve_dvid() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, slab: tuple[np.ndarray, np.ndarray], fib25_slab: Path) -> Path:
    """A folder with the slab in every format of the page; each file is written by another program than the suite."""
    folder, (raw, labels) = tmp_path_factory.mktemp("files"), slab
    shutil.copytree(fib25_slab, folder / "cube.zarr", ignore=shutil.ignore_patterns("[1-9].*"))
    with h5py.File(folder / "cremi.hdf", "w") as file:
        for name, voxels in (("raw", raw), ("labels/neuron_ids", labels)):
            written = file.create_dataset(f"volumes/{name}", data=voxels, compression="gzip", chunks=(8, 64, 64))
            written.attrs["resolution"] = (8.0, 8.0, 8.0)
        file["volumes/labels/neuron_ids"].attrs["offset"] = (80.0, 0.0, 0.0)
    with h5py.File(folder / "snemi.h5", "w") as file:
        file["main"] = raw
    imwrite(folder / "stack.tif", raw, bigtiff=True, metadata=None)
    imwrite(folder / "imagej.tif", raw, imagej=True, resolution=(125, 125),
            metadata={"axes": "ZYX", "spacing": 0.008, "unit": "um"})  # fmt: skip
    size = {f"PhysicalSize{axis}": 0.008 for axis in "ZYX"}
    imwrite(folder / "cube.ome.tif", raw, tile=(64, 64), compression="zlib", metadata={"axes": "ZYX", **size})
    for kind in ("tiff", "png", "jpg"):
        (folder / f"{kind}s").mkdir()
        for z, section in enumerate(raw):
            Image.fromarray(section).save(folder / f"{kind}s/section{z}.{kind}", quality=95)
    write_with_tensorstore(folder, raw)
    image = zarr.create_group(folder / "image.ome.zarr/0")
    image.create_array("0", data=raw, dimension_names=("z", "y", "x"))
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [8, 8, 8]}]}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    return folder


def write_with_tensorstore(folder: Path, raw: np.ndarray) -> None:
    """An N5 array and a precomputed volume, both x y z in their files."""
    for driver, name, more in (
        ("n5", "cube.n5/volumes/raw", {"metadata": {"resolution": [8, 8, 8], "units": ["nm"] * 3}}),
        ("neuroglancer_precomputed", "cube.precomputed",
         {"multiscale_metadata": {"type": "image"}, "scale_metadata": {"resolution": [8, 8, 8], "encoding": "raw"}}),
    ):  # fmt: skip
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder / name}/"}, **more}
        shape = [*raw.shape[::-1], 1] if "scale_metadata" in more else raw.shape[::-1]
        store = tensorstore.open(spec, create=True, dtype="uint8", shape=shape).result()
        store[...] = raw.T.reshape(shape)


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[str]:
    """The address of a server of the folder, on loopback."""
    with serve_files(files) as address:
        yield address


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page(
    call_script: Call, files: Path, slab: Any, dvid: Dvid, server: str, command: str
) -> None:
    url = dvid.add("grayscale", slab[0])
    words = shlex.split(command.replace("dvid://127.0.0.1:8000/a1b2c3/grayscale", url))
    words = [word.replace("http://127.0.0.1:8001", server) for word in words]
    ended = call_script(SCRIPT, *words, "--json", cwd=files)
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    raw = next(each for each in told if "labels" not in each["path"])
    assert raw["problem"] is None
    stated = shlex.split(command)[1:2] == ["--voxel-size"]
    expected = [float(n) for n in shlex.split(command)[2].split(",")] if stated else [8, 8, 8]
    assert raw["voxel_size"] == (expected if "dvid" not in command else [40, 8, 4])
    assert (raw["axes"], raw["dtype"]) == ("ZYX", "uint8")
    if "cube.zarr" not in command:
        assert raw["shape"] == list(slab[0].shape)
        low, high = raw["values"]["lowest"], raw["values"]["highest"]
        near = 12 if "jpg" in command else 0
        assert abs(low - int(slab[0].min())) <= near
        assert abs(high - int(slab[0].max())) <= near


def test_the_page_names_each_format() -> None:
    assert len(COMMANDS) >= 14


def test_what_is_told_of_a_container(call_script: Call, files: Path, slab: Any) -> None:
    ended = call_script(SCRIPT, files / "cremi.hdf/volumes")
    lines = ended.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        f"{files}/cremi.hdf/volumes/labels/neuron_ids", f"{files}/cremi.hdf/volumes/raw"]  # fmt: skip
    assert "hdf5, 24 x 120 x 130 uint64 (ZYX), 3 MB" in ended.out
    assert "voxel size:    8,8,8 nm, offset 80,0,0 nm, covers 80:272,0:960,0:1040" in ended.out
    assert "stored in:     chunks of 8 x 64 x 64, packed by gzip" in ended.out
    objects = len(np.unique(slab[1][slab[1] > 0]))
    assert f"{objects:,} different ones but 0; {100 * (slab[1] == 0).mean():.3g} % are 0" in ended.out
    marks = " ".join(str(n) for n in np.percentile(slab[0], (1, 50, 99), method="nearest"))
    assert f"percentiles (1 % 50 % 99 %) {marks}; of all voxels" in ended.out


def test_a_folder_tells_of_all_volumes_below(call_script: Call, files: Path) -> None:
    ended = call_script(SCRIPT, files, "--no-values")
    assert ended.code == 0, ended.err
    paths = {line.removeprefix(f"{files}/") for line in ended.out.splitlines() if not line.startswith(" ")}
    assert paths == {"cremi.hdf/volumes/raw", "cremi.hdf/volumes/labels/neuron_ids", "cube.ome.tif", "imagej.tif",
                     "cube.n5/volumes/raw", "cube.precomputed/8_8_8", "image.ome.zarr/0/0",
                     "cube.zarr/volumes/raw", "cube.zarr/volumes/labels/neuron_ids", "snemi.h5/main", "stack.tif",
                     "tiffs", "pngs", "jpgs"}  # fmt: skip
    assert "values:" not in ended.out
    assert ended.out.count("no attribute 'resolution' or 'voxel_size'") == 5


def test_a_file_that_says_otherwise_is_refused(call_script: Call, files: Path) -> None:
    for words, message in [
        (["imagej.tif", "--voxel-size", "40,4,4"], "says a voxel size of 8,8,8 nm, but --voxel-size says 40,4,4 nm"),
        (["cremi.hdf/volumes/labels", "--offset", "1,2,3"], "says a offset of 80,0,0 nm, but --offset says 1,2,3 nm"),
        (["missing.tif"], "missing.tif: no such volume"),
        (["missing.zarr"], "missing.zarr: no such volume"),
        (["cube.zarr/volumes/other"], "cube.zarr: has no array 'volumes/other'; it holds volumes/labels/neuron_ids"),
        (["cremi.hdf", "--voxel-size", "8,8"], "expected three lengths in nm, as 40,4.6,4.6"),
        (["cremi.hdf", "--voxel-size", "8,0,8"], "expected three lengths above 0 nm"),
        (["cremi.hdf", "--offset", "nan,0,8"], "expected three lengths in nm"),
        (["cremi.hdf", "--offset", "raw=0,0,8"], "--offset raw=: expected paths before ="),
        ([], "Missing argument"),
    ]:
        ended = call_script(SCRIPT, *words, cwd=files)
        assert ended.code == 2, words
        assert message in ended.err
        assert len(ended.err.strip().splitlines()) == 1


def test_damaged_files_are_one_line(call_script: Call, files: Path, tmp_path: Path) -> None:
    for name in ("stack.tif", "cube.ome.tif", "snemi.h5"):
        content = (files / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        ended = call_script(SCRIPT, tmp_path / name, "--voxel-size", "8,8,8")
        assert ended.code == 2
        assert re.fullmatch(rf"error: {tmp_path}/{name}: .*\n", ended.err)
    (tmp_path / "empty").mkdir()
    assert "holds no volume" in call_script(SCRIPT, tmp_path / "empty").err


def test_the_endpoint_of_s3_by_option(call_script: Call, tmp_path: Path, s3, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    write_array(tmp_path / "a.zarr/raw", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    objects = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    s3.public_bucket("info-by-option", objects)
    ended = call_script(SCRIPT, "s3://info-by-option/a.zarr/raw", "--endpoint-url", s3.url)
    assert ended.code == 0, ended.err
    assert "values:        0 to 23" in ended.out
    assert "AWS_ENDPOINT_URL_S3" not in os.environ


def test_a_large_array_is_sampled(call_script: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_WHOLE", 1000)
    monkeypatch.setattr(description, "_BLOCK", 64)
    monkeypatch.setattr(description, "_PATIENCE", -1)
    voxels = np.arange(40 * 50 * 60, dtype=np.float32).reshape(40, 50, 60)
    voxels[0, 0, 0] = voxels[-1, -1, -1] = np.nan
    write_array(tmp_path / "a.zarr/raw", voxels)
    ended = call_script(SCRIPT, tmp_path / "a.zarr")
    assert re.search(r"; of 1,\d\d\d of 120,000 voxels", ended.out)
    assert f"{tmp_path}/a.zarr/raw: values:" in ended.err, "progress"
    monkeypatch.setattr(description, "_WHOLE", 10**6)
    ended = call_script(SCRIPT, tmp_path / "a.zarr")
    assert "values:        1 to 119998" in ended.out
    assert "2 are NaN or infinite" in ended.out


def test_masks_and_odd_arrays(call_script: Call, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mask"] = np.arange(24).reshape(2, 3, 4) > 20
        file["mask"].attrs["resolution"] = (40, 4, 4)
        file["table"] = np.zeros((5, 2))
        file["empty"] = np.zeros((0, 4, 4), np.uint8)
        file["five"] = np.zeros((1, 2, 3, 4, 5), np.uint8)
    ended = call_script(SCRIPT, tmp_path / "a.h5", "--json")
    told = {Path(each["path"]).name: each for each in json.loads(ended.out)}
    assert told["mask"]["values"]["listed"] == [0, 1]
    assert told["mask"]["values"]["zeros"] == pytest.approx(21 / 24)
    assert told["empty"]["values"] is None
    assert all(told[name]["problem"] for name in ("table", "empty", "five"))
    assert call_script(SCRIPT, tmp_path / "a.h5").code == 0
