"""Patches in folders and in TIFFs of 4 axes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.transfer.patches import check_match, open_patches
from emsuite.data.transfer.settings import DomainSettings
from emsuite.data.transfer.volumes import load_patches

VOXEL = Coordinate(8, 8, 8)


def pngs(folder: Path, patches: np.ndarray, names: list[str] | None = None) -> Path:
    folder.mkdir()
    for number, patch in enumerate(patches):
        Image.fromarray(patch).save(folder / (names[number] if names else f"{number}_block_0.png"))
    return folder


def third_of(settings: DomainSettings) -> torch.Tensor:
    return load_patches(settings, VOXEL, Path(), None).volumes[2].raw[:, :, :]


def grey(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_4_axes_is_a_patch_for_each_first_index(tmp_path: Path, compression: str | None) -> None:
    stack = grey(5, 4, 16, 18)
    tifffile.imwrite(tmp_path / "trainA.tif", stack, photometric="minisblack", compression=compression)
    patches = open_patches(tmp_path / "trainA.tif")
    assert (len(patches), patches.shape, patches.dtype) == (5, (4, 16, 18), np.uint8)
    assert np.array_equal(patches[3], stack[3])


def test_a_folder_of_pngs_is_read_in_natural_order(tmp_path: Path) -> None:
    images = grey(3, 16, 18)
    folder = pngs(tmp_path / "trainA", images, ["2_block_10.png", "10_block_1.png", "2_block_9.png"])
    (folder / ".hidden.png").write_text("")
    (folder / "notes.txt").write_text("")
    patches = open_patches(folder)
    assert patches.names == ("2_block_9.png", "2_block_10.png", "10_block_1.png")
    assert np.array_equal(patches[0], images[2:3])


def test_a_folder_of_tiffs_holds_patches_of_3_axes(tmp_path: Path) -> None:
    images = grey(3, 4, 16, 18)
    for number, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric="minisblack")
    assert np.array_equal(open_patches(tmp_path)[2], images[2])


def test_patches_of_unequal_sizes_are_refused(tmp_path: Path) -> None:
    folder = pngs(tmp_path / "trainA", grey(2, 16, 18))
    Image.fromarray(grey(16, 17)).save(folder / "9_block_0.png")
    for stream in (True, False):
        with pytest.raises(BadInput, match=r"9_block_0.png: a patch of \(1, 16, 17\) uint8, expected \(1, 16, 18\)"):
            third_of(DomainSettings(patches=folder, stream=stream))


def test_what_holds_no_patches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder, expected patches"):
        open_patches(tmp_path / "trainA")
    with pytest.raises(BadInput, match="holds no PNG or TIFF"):
        open_patches(tmp_path)
    tifffile.imwrite(tmp_path / "flat.tif", grey(4, 16, 18), photometric="minisblack")
    with pytest.raises(BadInput, match=r"flat.tif: 3 axes .* expected 4: patches, z, y, x"):
        open_patches(tmp_path / "flat.tif")
    (tmp_path / "odd.tif").write_text("no TIFF")
    with pytest.raises(BadInput, match=r"odd.tif: cannot be read"):
        open_patches(tmp_path / "odd.tif")


def test_labels_must_match_the_images(tmp_path: Path) -> None:
    images = open_patches(pngs(tmp_path / "trainA", grey(3, 16, 18)))
    for name, labels, message in (
        ("fewer", grey(2, 16, 18), "2 patches of labels, expected 3"),
        ("smaller", grey(3, 16, 17), r"\(1, 16, 17\) voxels of labels, expected \(1, 16, 18\)"),
    ):
        with pytest.raises(BadInput, match=message):
            check_match(open_patches(pngs(tmp_path / name, labels)), images)
    others = pngs(tmp_path / "others", grey(3, 16, 18), ["0_block_0.png", "1_block_0.png", "3_block_0.png"])
    with pytest.raises(BadInput, match=r"3_block_0.png: stands for the image 2_block_0.png"):
        check_match(open_patches(others), images)
    floats = tmp_path / "floats.tif"
    tifffile.imwrite(floats, np.zeros((3, 1, 16, 18), np.float32), photometric="minisblack")
    with pytest.raises(BadInput, match="holds float32, expected labels"):
        check_match(open_patches(floats), images)


def test_labels_are_renumbered_and_grey_values_of_any_type_are_read(tmp_path: Path) -> None:
    labels = np.array([0, 70000, 5, 70000], np.uint32).reshape(1, 1, 2, 2)
    images = np.array([0, 65535, 13107, 39321], np.uint16).reshape(1, 1, 2, 2)
    for name, stack in (("trainA.tif", images), ("trainS.tif", labels)):
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack")
    settings = DomainSettings(patches=tmp_path / "trainA.tif", patch_labels=tmp_path / "trainS.tif")
    volume = load_patches(settings, VOXEL, tmp_path, None).volumes[0]
    assert isinstance(volume.labels, torch.Tensor)
    assert volume.labels.dtype == torch.int32
    assert volume.labels.flatten().tolist() == [0, 1, 2, 1]
    assert volume.raw[:, :, :].flatten().tolist() == pytest.approx([0, 1, 0.2, 0.6])
    ranged = settings.model_copy(update={"grey_range": (0.0, 13107.0)})
    assert load_patches(ranged, VOXEL, tmp_path, None).volumes[0].raw[:, :, :].flatten().tolist() == [0, 1, 1, 1]


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    labels = np.array([0, -1, 5, 7], np.int32).reshape(1, 1, 2, 2)
    for name, stack in (("trainA.tif", labels.astype(np.uint8)), ("trainS.tif", labels)):
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack")
    settings = DomainSettings(patches=tmp_path / "trainA.tif", patch_labels=tmp_path / "trainS.tif")
    with pytest.raises(BadInput, match=r"trainS\.tif/0: holds the label -1, expected 0"):
        load_patches(settings, VOXEL, tmp_path, None)


def test_an_edit_of_a_patch_that_keeps_its_size_is_seen(tmp_path: Path) -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    tifffile.imwrite(tmp_path / "trainA.tif", images, photometric="minisblack")
    settings = DomainSettings(patches=tmp_path / "trainA.tif")
    before = load_patches(settings, VOXEL, tmp_path, None).contents()
    tifffile.imwrite(tmp_path / "trainA.tif", images, photometric="minisblack")
    assert load_patches(settings, VOXEL, tmp_path, None).contents() == before
    tifffile.imwrite(tmp_path / "trainA.tif", images[::-1], photometric="minisblack")
    assert load_patches(settings, VOXEL, tmp_path, None).contents() != before


def test_floats_beyond_0_to_1_need_a_range(tmp_path: Path) -> None:
    values = np.linspace(0, 3, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    settings = DomainSettings(patches=tmp_path / "a.tif", stream=False)
    with pytest.raises(BadInput, match="floats from 0 to 3, expected 0 to 1, or the key grey_range"):
        load_patches(settings, VOXEL, tmp_path, None)
    measured = settings.model_copy(update={"grey_range": "percentiles", "percentiles": (0.0, 100.0)})
    loaded = load_patches(measured, VOXEL, tmp_path, None)
    assert loaded.grey_range == (0, 3)
    assert loaded.volumes[0].raw[:, :, :].flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
