"""Degraded copies of volumes."""

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from builders import files_in
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, read_manifest
from emsuite.data.derived import arrays as derived_arrays
from emsuite.data.derived.degradations import BoxAndHoles, SecondLook
from emsuite.data.derived.degrade import degrade
from emsuite.io.volume import LABELS, MASK, RAW, array_names, create_volume, open_volume
from killed import MOMENTS, Killed, check_removals, killed_at_rename

SHAPE, VOXEL = (140, 60, 70), (8, 4, 4)


def source(folder: Path, dtype: type = np.uint8, name: str = "a.zarr") -> Path:
    random = np.random.default_rng(0)
    raw = random.random(SHAPE).astype(dtype) if dtype == np.float32 else random.integers(0, np.iinfo(dtype).max, SHAPE)
    create_volume(folder / name / RAW, SHAPE, dtype, VOXEL, (80, 0, 0)).array[...] = raw
    labels = random.integers(0, 9, (100, 50, 70)).astype(np.uint64)
    create_volume(folder / name / LABELS, labels.shape, np.uint64, VOXEL, (160, 8, 0)).array[...] = labels
    create_volume(folder / name / MASK, labels.shape, np.uint8, VOXEL, (160, 8, 0)).array[...] = labels > 3
    return folder / name


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_raw_is_changed_and_labels_are_carried_along(tmp_path: Path, ending: str) -> None:
    a, b = source(tmp_path), tmp_path / f"b.{ending}"
    look = BoxAndHoles(seed=4)
    assert degrade(a, b, look)
    raw, new = open_volume(a / RAW), open_volume(b / RAW)
    assert (new.voxel_size, new.offset, new.dtype) == (raw.voxel_size, raw.offset, np.uint8)
    grey, box = raw.read() / 127.5 - 1, tuple(slice(0, n) for n in SHAPE)
    blurred = BoxAndHoles(hole_rate=0).apply(grey, box, box, SHAPE, 0)
    expected = look.apply(grey, box, box, SHAPE, float(blurred.mean()))
    assert np.abs(new.read() - (expected + 1) * 127.5).max() < 0.5 + 1e-9
    for name in (LABELS, MASK):
        assert np.array_equal(open_volume(b / name).read(), open_volume(a / name).read())
        assert open_volume(b / name).roi == open_volume(a / name).roi
    assert not degrade(a, b, look), "it is there already"
    manifest = read_manifest(b)
    assert manifest["settings"]["look"] == look.model_dump(mode="json")
    assert manifest["seed"] == 4
    assert degrade(a, b, SecondLook(), with_labels=False)
    assert array_names(b) == [RAW]


def test_a_region_is_a_piece_of_the_whole(tmp_path: Path) -> None:
    a = source(tmp_path)
    degrade(a, tmp_path / "whole.zarr", SecondLook())
    degrade(a, tmp_path / "part.zarr", SecondLook(), roi="160:400,20:200,:")
    part, whole = open_volume(tmp_path / "part.zarr" / RAW), open_volume(tmp_path / "whole.zarr" / RAW)
    assert np.array_equal(part.read(), whole.read(part.roi))
    labels = open_volume(tmp_path / "part.zarr" / LABELS)
    assert labels.roi == part.roi.intersect(open_volume(a / LABELS).roi)
    assert np.array_equal(labels.read(), open_volume(a / LABELS).read(labels.roi))


@pytest.mark.parametrize(("look", "section"), [(SecondLook(), 9), (BoxAndHoles(), 9), (BoxAndHoles(), 139)])
def test_an_edit_outside_the_region_counts_where_the_region_depends_on_it(
    tmp_path: Path, look: SecondLook | BoxAndHoles, section: int
) -> None:
    a, b, roi = source(tmp_path), tmp_path / "b.zarr", "160:400,:,:"  # sections 10 to 39
    degrade(a, b, look, roi=roi)
    open_volume(a / RAW, "r+").array[section] = 255
    assert degrade(a, b, look, roi=roi), "made of other voxels"
    degrade(a, tmp_path / "fresh.zarr", look, roi=roi)
    assert np.array_equal(open_volume(b / RAW).read(), open_volume(tmp_path / "fresh.zarr" / RAW).read())
    open_volume(a / LABELS, "r+").array[99] = 7
    assert not degrade(a, b, look, roi=roi), "labels count within the region alone"


def test_grey_values_of_other_types_are_those_of_their_range(tmp_path: Path) -> None:
    plain = SecondLook(blur=(0, 0, 0), noise=0, shot_noise=0, gamma=1, darkest=0, brightest=1, inverted=False)
    for dtype, most in ((np.uint16, 65535), (np.float32, 1)):
        a = source(tmp_path, dtype, f"{dtype.__name__}.zarr")
        degrade(a, tmp_path / "b.zarr", plain)
        expected = open_volume(a / RAW).read().astype(float) / most * 255
        assert np.abs(open_volume(tmp_path / "b.zarr" / RAW).read() - expected).max() <= 0.501


def test_workers_and_stops_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, look = source(tmp_path), SecondLook(seed=2)
    monkeypatch.setattr(derived_arrays, "_BLOCK", 64)
    degrade(a, tmp_path / "one.zarr", look)
    degrade(a, tmp_path / "two.zarr", look, workers=2)
    written = derived_arrays._WriteBlock.__call__
    blocks = list[int]()

    def stop(self: object, block: derived_arrays.Block) -> None:
        blocks.append(block.index)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        written(self, block)

    monkeypatch.setattr(derived_arrays._WriteBlock, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        degrade(a, tmp_path / "three.zarr", look)
    assert not manifest_path(tmp_path / "three.zarr").exists()
    degrade(a, tmp_path / "three.zarr", look)
    assert blocks.count(0) == 3, "once for each array; the block of raw that was written was not written again"
    for name in ("two.zarr", "three.zarr"):
        assert files_in(tmp_path / name) == files_in(tmp_path / "one.zarr")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["b.zarr", "b.h5"])
def test_a_kill_in_any_removal_changes_no_byte(tmp_path: Path, name: str, moment: str) -> None:
    a = source(tmp_path)
    check_removals(lambda folder: degrade(a, folder / name, SecondLook()), tmp_path, int(name == "b.zarr"), moment)


def test_a_kill_at_any_rename_of_a_file_is_no_end(tmp_path: Path) -> None:
    a, b = source(tmp_path), tmp_path / "b.h5"
    for number in itertools.count():
        with contextlib.suppress(Killed), killed_at_rename(number) as calls:
            degrade(a, b, SecondLook(seed=number))
        degrade(a, b, SecondLook(seed=number))
        assert read_manifest(b)["seed"] == number
        if next(calls) <= number:
            break
    assert number > 4


def test_what_cannot_be_degraded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a.zarr: no such"):
        degrade(tmp_path / "a.zarr", tmp_path / "b.zarr", SecondLook())
    a = source(tmp_path)
    with pytest.raises(BadInput, match=r"a.zarr: is the volume to read"):
        degrade(a, a, SecondLook())
    with pytest.raises(BadInput, match=r"b.tif: expected a container to write, as VOLUME.zarr"):
        degrade(a, tmp_path / "b.tif", SecondLook())
    with pytest.raises(BadInput, match=r"covers .* was asked for"):
        degrade(a, tmp_path / "b.zarr", SecondLook(), roi="0:80,:,:")
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr/notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"mine.zarr: exists but was not made by this suite"):
        degrade(a, tmp_path / "mine.zarr", SecondLook())
    create_volume(tmp_path / "c.zarr" / RAW, (9, 9, 9), np.uint64, VOXEL, (0, 0, 0))
    with pytest.raises(BadInput, match=r"uint64 .* expected raw"):
        degrade(tmp_path / "c.zarr", tmp_path / "b.zarr", SecondLook())
    create_volume(tmp_path / "d.zarr" / RAW, (9, 9, 9), np.float32, VOXEL, (0, 0, 0)).array[...] = 2.0
    with pytest.raises(BadInput, match=r"floats from 2 to 2, expected floats in .0, 1."):
        degrade(tmp_path / "d.zarr", tmp_path / "b.zarr", SecondLook())
    assert not (tmp_path / "b.zarr.manifest.json").exists()
