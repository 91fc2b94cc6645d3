"""Pyramids: every level equals windows of the level before, lies where it did, and is listed for other programs."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from builders import files_in
from emsuite.common.errors import BadInput
from emsuite.data import pyramid
from emsuite.data.downsample import downsample, factors
from emsuite.data.pyramid import make_pyramid
from emsuite.io.levels import is_coarser_level, level_path, levels_of
from emsuite.io.volume import create_volume, open_volume
from emsuite.visualization.contents import data_layers
from killed import MOMENTS, check_removals

SIZE, OFFSET = (40, 8, 8), (80, 16, -8)


def volume_of(container: Path, voxels: np.ndarray, name: str = "volumes/raw", **options: Any) -> Path:
    volume = create_volume(container / name, voxels.shape, voxels.dtype, SIZE, OFFSET, **options)
    volume.write(volume.roi, voxels)
    return volume.path


def noise(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 9, shape).astype(dtype)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("dtype", "kind"), [(np.uint8, "mean"), (np.uint64, "mode"), (np.float32, "mean")])
@pytest.mark.parametrize("shape", [(20, 150, 131), (2, 20, 70, 131)])
def test_each_level_is_made_from_the_one_before_and_begins_with_it(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, kind: Any, zarr_format: Any
) -> None:
    path = volume_of(tmp_path / "v.zarr", noise(shape, dtype), zarr_format=zarr_format)
    levels = make_pyramid(path)
    assert [level.name for level in levels] == ["1", "2"]
    finer = open_volume(path)
    for level in map(open_volume, levels):
        window = factors(tuple(finer.voxel_size), tuple(finer.spatial_shape))
        np.testing.assert_array_equal(level.read(), downsample(finer.read(), window, kind))
        assert tuple(level.voxel_size) == tuple(a * b for a, b in zip(finer.voxel_size, window, strict=True))
        assert (tuple(level.offset), level.dtype) == (OFFSET, dtype)
        finer = level
    assert levels_of(path) == [path, *levels]
    attributes: Any = dict(zarr.open_group(path.parent, mode="r").attrs)
    image = (attributes["ome"] if zarr_format == 3 else attributes)["multiscales"][0]
    assert image["type"] == kind
    starts = [dataset["coordinateTransformations"][1]["translation"][-3:] for dataset in image["datasets"]]
    assert starts == [[80, 16, -8], [80, 20, -4], [80, 28, 4]], "centres of voxels, against the first"
    assert not list(tmp_path.glob("*unfinished*"))
    assert (tmp_path / "v.zarr.volumes.raw_levels.manifest.json").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_metadata_of_the_group_alone_say_where_levels_lie(tmp_path: Path, zarr_format: Any) -> None:
    path = volume_of(tmp_path / "v.zarr", noise((20, 150, 131)), zarr_format=zarr_format)
    make_pyramid(path)
    for level in levels_of(path):
        array = zarr.open_array(level, mode="r+")
        before = open_volume(level)
        for key in list(array.attrs):
            del array.attrs[key]
        assert (open_volume(level).voxel_size, open_volume(level).roi) == (before.voxel_size, before.roi)


def test_the_number_of_workers_and_the_size_of_blocks_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = noise((70, 260, 140), np.uint32)
    one, two = (volume_of(tmp_path / f"{name}.zarr", voxels) for name in ("one", "two"))
    make_pyramid(one, workers=1)
    monkeypatch.setattr(pyramid, "_MOST_BYTES", 1)
    make_pyramid(two, workers=2)
    assert files_in(tmp_path / "one.zarr") == files_in(tmp_path / "two.zarr")


def test_a_run_again_with_other_levels_replaces_those_of_before(tmp_path: Path) -> None:
    path = volume_of(tmp_path / "v.zarr", noise((20, 150, 131)))
    volume_of(tmp_path / "v.zarr", noise((5, 5, 5)), "volumes/mask")
    assert len(make_pyramid(path, levels=3)) == 3
    assert len(make_pyramid(path, levels=1, kind="mode")) == 1
    assert [level.name for level in levels_of(path)] == ["raw", "1"]
    assert not (tmp_path / "v.zarr/volumes/raw_levels/2").exists()
    assert sorted(layer.name for layer in data_layers([tmp_path / "v.zarr"])) == ["mask", "raw"], "levels are no layers"
    assert is_coarser_level(level_path(path, 1))
    assert not is_coarser_level(path)
    assert not is_coarser_level(tmp_path / "no.zarr")
    with pytest.raises(BadInput, match="has no level 2, expected one of 2 from 0 up"):
        level_path(path, 2)


def test_a_new_array_of_that_name_has_no_levels(tmp_path: Path) -> None:
    path = volume_of(tmp_path / "v.zarr", noise((20, 150, 131)))
    make_pyramid(path)
    volume_of(tmp_path / "v.zarr", noise((20, 150, 131)))
    assert levels_of(path) == [path]


def test_what_no_levels_can_be_written_beside_is_refused(tmp_path: Path) -> None:
    small = volume_of(tmp_path / "v.zarr", noise((4, 64, 64)))
    root = zarr.open_group(tmp_path / "plate.ome.zarr", mode="w", zarr_format=2)
    for name in ("0", "1"):
        root.create_array(name, data=noise((80, 80, 80)))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scales: list[Any] = [(n, [{"type": "scale", "scale": [8 * 2**n] * 3}]) for n in range(2)]
    datasets = [{"path": str(n), "coordinateTransformations": steps} for n, steps in scales]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    plain = zarr.create_array(tmp_path / "alone.zarr", data=noise((80, 80, 80)))
    plain.attrs["resolution"] = [8, 8, 8]
    turned = zarr.open_group(tmp_path / "t.zarr", mode="w").create_array("raw", data=noise((80, 80, 80)))
    turned.attrs.update({"voxel_size": [8, 8, 8], "axis_names": ["x", "y", "z"]})
    for path, complaint in [
        (small, "(4, 64, 64) voxels are one chunk"),
        (tmp_path / "plate.ome.zarr/0", "has levels of another program, as "),
        (tmp_path / "plate.ome.zarr", "expected an array in zarr"),
        (tmp_path / "alone.zarr", "expected an array in zarr"),
        (tmp_path / "t.zarr/raw", "expected an array in zarr with axes (c), z, y, x"),
        (tmp_path / "v.zarr/no", "has no array 'no'"),
    ]:
        before = files_in(tmp_path)
        with pytest.raises(BadInput) as error:
            make_pyramid(path)
        assert complaint in str(error.value)
        assert files_in(tmp_path) == before
    assert [path.name for path in levels_of(tmp_path / "plate.ome.zarr")] == ["0", "1"]
    assert level_path(tmp_path / "plate.ome.zarr", 1) == tmp_path / "plate.ome.zarr/1"
    assert len(make_pyramid(small, levels=1)) == 1, "asked for"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_in_any_removal_changes_no_byte(tmp_path: Path, moment: str) -> None:
    def run(folder: Path) -> None:
        path = folder / "a.zarr/volumes/raw"
        if not path.exists():
            make_pyramid(volume_of(folder / "a.zarr", noise((70, 140, 70))), kind="mode")
        make_pyramid(path, kind="mean")

    check_removals(run, tmp_path, 3, moment)


def test_every_stop_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = noise((70, 260, 140))
    whole, path = (volume_of(tmp_path / f"{name}.zarr", voxels) for name in ("whole", "stopped"))
    make_pyramid(whole)
    for name in ("create_volume", "downsample", "list_levels", "remove"):
        real = getattr(pyramid, name)
        for stop in itertools.count(1):
            calls = itertools.count(1)

            def stopping(*args: Any, real: Any = real, calls: Any = calls, stop: int = stop, **more: Any) -> Any:
                if next(calls) == stop:
                    raise KeyboardInterrupt
                return real(*args, **more)

            with monkeypatch.context() as patched:
                patched.setattr(pyramid, "_MOST_BYTES", 1)
                patched.setattr(pyramid, name, stopping)
                try:
                    make_pyramid(path, kind="mean" if stop % 2 else None)
                    break
                except KeyboardInterrupt:
                    pass
        make_pyramid(path)
        assert files_in(path.parents[1]) == files_in(whole.parents[1]), name
