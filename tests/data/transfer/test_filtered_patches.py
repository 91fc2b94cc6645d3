"""Patches that a filter keeps, as files and boxes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from builders import files_in
from emsuite.common.errors import BadInput
from emsuite.data.transfer import filtered_patches
from emsuite.data.transfer.domain import load_domain
from emsuite.data.transfer.filter_volume import choose_blocks
from emsuite.data.transfer.filtered_patches import filter_patches
from emsuite.data.transfer.patch_filter import Likeness, PatchFilter
from emsuite.data.transfer.patches import open_patches
from emsuite.data.transfer.settings import DomainSettings, DomainVolume
from emsuite.io.volume import create_volume, open_volume

SHAPE, VOXEL, OFFSET = (5, 70, 100), (40, 4, 4), (80, 8, 0)
RAW = np.random.default_rng(0).integers(10, 200, SHAPE, dtype=np.uint8)
RAW[:, 16:48, 16:48] //= 2
LABELS = np.arange(RAW.size, dtype=np.uint64).reshape(SHAPE)
SMALL = PatchFilter(patch=(16, 16))


def write(path: Path, voxels: np.ndarray = RAW, **grid: Any) -> Path:
    create_volume(path, voxels.shape, voxels.dtype, grid.get("voxel_size", VOXEL), OFFSET).array[...] = voxels
    return path


def kept_by_hand(raw: np.ndarray) -> list[tuple[int, int, int]]:
    """Section, y and x of the blocks that the published rule keeps, one voxel after the other as CCGAN's notebook."""
    scaled = (raw.astype(float) - raw.min()) / (int(raw.max()) - int(raw.min()))
    corners = [(z, y, x) for z in range(len(raw)) for y in range(0, 64, 16) for x in range(0, 96, 16)]
    return [(z, y, x) for z, y, x in corners if scaled[z, y : y + 16, x : x + 16].mean() >= scaled[z].mean()]


def test_kept_patches_are_files_by_section_and_block(tmp_path: Path) -> None:
    kept, whole = filter_patches(write(tmp_path / "a.zarr/raw"), tmp_path / "out", SMALL)
    expected = kept_by_hand(RAW)
    assert (kept, whole) == (len(expected), 5 * 4 * 6)
    assert 0 < kept < whole
    names = {f"{z}_block_{y // 16 * 6 + x // 16}.png": (z, y, x) for z, y, x in expected}
    assert {path.name for path in (tmp_path / "out/patches").iterdir()} == names.keys()
    for name, (z, y, x) in names.items():
        pixels = (RAW[z, y : y + 16, x : x + 16].astype(float) - RAW.min()) / (int(RAW.max()) - int(RAW.min())) * 255
        assert np.abs(np.asarray(Image.open(tmp_path / "out/patches" / name)) - pixels).max() < 0.501
    rows = list(csv.DictReader((tmp_path / "out/blocks.csv").open()))
    assert sum(int(row["kept"]) for row in rows) == kept
    assert {row["distance"] for row in rows} == {""}


def test_boxes_are_the_same_blocks_of_the_volume(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/raw")
    filter_patches(path, tmp_path / "out", PatchFilter(patch=(16, 16), grey_range="dtype"))
    volume = DomainVolume(raw=path, boxes_file=tmp_path / "out/boxes.json")
    boxes = load_domain(DomainSettings(volumes=(volume,)), "a", VOXEL, (1, 16, 16)).windows((1, 16, 16))
    files = load_domain(DomainSettings(patches=tmp_path / "out/patches"), "a", VOXEL, (1, 16, 16)).windows((1, 16, 16))
    assert len(boxes) == len(files) > 9
    for one, other in zip(boxes, files, strict=True):
        assert np.array_equal(one.raw[:, :, :], other.raw[:, :, :])


@pytest.mark.parametrize("stack", [True, False])
def test_labels_are_those_of_the_same_voxels(tmp_path: Path, stack: bool) -> None:
    raw, labels = write(tmp_path / "a.zarr/raw"), write(tmp_path / "a.zarr/labels", LABELS)
    settings = PatchFilter(patch=(16, 16), depth=2, least_density=None, leave_out=(1, 1, 1))
    kept, whole = filter_patches(raw, tmp_path / "out", settings, labels=labels, stack=stack)
    assert (kept, whole) == (1 * 2 * 4, 2 * 4 * 6)
    ending = ".tif" if stack else ""
    images, ids = open_patches(tmp_path / f"out/patches{ending}"), open_patches(tmp_path / f"out/labels{ending}")
    assert images.shape == ids.shape == (2, 16, 16)
    first = LABELS[2:4, 16:32, 16:32]
    assert np.array_equal(ids[0], first)
    if not stack:
        assert images.names[0] == "2_block_7.tif"


def test_the_border_and_the_rest_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/raw")
    settings = PatchFilter(patch=(16, 16), least_density=None, leave_out=(1, 1, 2))
    kept = {(block.section, block.row, block.column) for block in choose_blocks(path, settings) if block.kept}
    assert kept == {(z, y, x) for z in (1, 2, 3) for y in (1, 2) for x in (2, 3)}


def test_blocks_like_the_target_are_kept(tmp_path: Path) -> None:
    """The target is dark throughout: the dark part of the volume is like it."""
    raw = np.full((2, 64, 64), 200, np.uint8)
    raw[:, :32, :32] = 50
    raw[0, 0, 0], raw[0, 0, 1] = 0, 255
    target = np.full((1, 64, 64), 50, np.uint8)
    target[0, 0, 0], target[0, 0, 1] = 0, 255
    likeness = Likeness(target=write(tmp_path / "b.zarr/raw", target), share=0.25, foreground_weight=0)
    settings = PatchFilter(patch=(16, 16), least_density=None, likeness=likeness)
    blocks = choose_blocks(write(tmp_path / "a.zarr/raw", raw), settings)
    assert {(block.row, block.column) for block in blocks if block.kept} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert sum(block.kept for block in blocks) == 8
    assert max(block.distance for block in blocks if block.kept) < 0.05 < 0.5 < max(block.distance for block in blocks)


def test_foreground_likeness_follows_the_shares_of_the_target(tmp_path: Path) -> None:
    raw = np.zeros((1, 16, 64), np.uint8)
    for column, share in enumerate((0, 4, 8, 16)):
        raw[0, :share, 16 * column : 16 * column + 16] = 255
    target = np.zeros((1, 16, 32), np.uint8)
    target[0, :8] = 255
    likeness = Likeness(target=write(tmp_path / "b.zarr/raw", target), share=1, intensity_weight=0)
    path = write(tmp_path / "a.zarr/raw", raw)
    blocks = choose_blocks(path, PatchFilter(patch=(16, 16), least_density=None, likeness=likeness))
    assert [block.distance for block in blocks] == pytest.approx([0.5, 0.25, 0, 0.5])
    dark = likeness.model_copy(update={"foreground": "dark"})
    blocks = choose_blocks(path, PatchFilter(patch=(16, 16), least_density=None, likeness=dark))
    assert [block.foreground for block in blocks] == pytest.approx([1, 0.75, 0.5, 0])


def test_sections_are_resized_before_they_are_cut(tmp_path: Path) -> None:
    settings = PatchFilter(patch=(16, 16), scale=0.5, least_density=None)
    labels = write(tmp_path / "a.zarr/labels", LABELS)
    kept, whole = filter_patches(write(tmp_path / "a.zarr/raw"), tmp_path / "out", settings, labels=labels)
    assert kept == whole == 5 * 2 * 3
    assert not (tmp_path / "out/boxes.json").exists()
    assert np.isin(open_patches(tmp_path / "out/labels")[0], LABELS[0, :32, :32]).all()


def test_the_picture_shows_what_is_kept(tmp_path: Path) -> None:
    filter_patches(write(tmp_path / "a.zarr/raw"), tmp_path / "out", PatchFilter(patch=(16, 16), grey_range="dtype"))
    shown = np.asarray(Image.open(tmp_path / "out/kept.png")).astype(float)
    expected = RAW[2] * 0.4
    for z, y, x in kept_by_hand(RAW):
        if z == 2:
            expected[y : y + 16, x : x + 16] = RAW[2, y : y + 16, x : x + 16]
    assert np.abs(shown - expected).max() < 0.501


def test_a_corrected_voxel_size_makes_boxes_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/raw")
    filter_patches(path, tmp_path / "out", SMALL)
    before = (tmp_path / "out/boxes.json").read_text()
    volume = open_volume(path)
    voxels, half = volume.read(), volume.voxel_size / 2
    create_volume(path, voxels.shape, voxels.dtype, half, (0, 0, 0)).array[...] = voxels
    filter_patches(path, tmp_path / "out", SMALL)
    filter_patches(path, tmp_path / "fresh", SMALL)
    assert before != (tmp_path / "out/boxes.json").read_text() == (tmp_path / "fresh/boxes.json").read_text()


def test_the_same_filter_gives_the_same_bytes_and_is_not_run_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/raw")
    first = filter_patches(path, tmp_path / "one", SMALL)
    filter_patches(path, tmp_path / "two", SMALL)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    before = (tmp_path / "one/kept.png").stat().st_mtime_ns
    assert filter_patches(path, tmp_path / "one", SMALL) == first
    assert (tmp_path / "one/kept.png").stat().st_mtime_ns == before
    other = filter_patches(path, tmp_path / "one", PatchFilter(patch=(16, 16), least_density=None))
    assert other[0] == other[1]


def test_what_cannot_be_filtered_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/raw")
    with pytest.raises(
        BadInput, match=r"5 sections of \(70, 100\) pixels after scaling, expected room for a block of 1"
    ):
        filter_patches(path, tmp_path / "out", PatchFilter())
    with pytest.raises(BadInput, match="none of 120 blocks is kept"):
        filter_patches(path, tmp_path / "out", PatchFilter(patch=(16, 16), least_density=9))
    assert not (tmp_path / "out").exists()
    others = (LABELS[:4], {}), (LABELS, {"voxel_size": (40, 4, 8)}), (LABELS.astype(np.float32), {})
    for (voxels, grid), message in zip(others, ("those of", "those of", "labels"), strict=True):
        labels = write(tmp_path / "b.zarr/labels", voxels, **grid)
        with pytest.raises(BadInput, match=f"expected {message}"):
            filter_patches(path, tmp_path / "other", SMALL, labels=labels)
    flat = write(tmp_path / "c.zarr/raw", np.full(SHAPE, 9, np.uint8))
    with pytest.raises(BadInput, match="all voxels are 9, expected different grey values"):
        filter_patches(flat, tmp_path / "flat", SMALL)
    with pytest.raises(BadInput, match=r"expected images \(z, y, x\)"):
        filter_patches(write(tmp_path / "d.zarr/raw", LABELS), tmp_path / "ids", SMALL)


def test_patches_of_a_stopped_run_are_refused_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written = write(tmp_path / "a.zarr/raw"), filtered_patches._write_table

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(filtered_patches, "_write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        filter_patches(path, tmp_path / "out", SMALL)
    assert (tmp_path / "out/patches").exists()
    for read in (open_patches, lambda folder: load_domain(DomainSettings(patches=folder), "a", VOXEL, (1, 16, 16))):
        with pytest.raises(BadInput, match="unfinished"):
            read(tmp_path / "out/patches")
    monkeypatch.setattr(filtered_patches, "_write_table", written)
    kept, _ = filter_patches(path, tmp_path / "out", SMALL)
    assert len(open_patches(tmp_path / "out/patches")) == kept


def test_a_stack_is_a_tiff_of_4_axes(tmp_path: Path) -> None:
    kept, _ = filter_patches(write(tmp_path / "a.zarr/raw"), tmp_path / "out", SMALL, stack=True)
    assert tifffile.imread(tmp_path / "out/patches.tif").shape == (kept, 1, 16, 16)
