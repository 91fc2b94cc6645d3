"""Pairs of images and labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Coordinate
from emsuite.common.outputs import read_manifest
from emsuite.data.derived.degradations import SecondLook
from emsuite.data.derived.degrade import degrade
from emsuite.data.derived.pairs import write_pairs
from emsuite.data.raw import open_raw
from emsuite.data.training_volume import load_training_volume
from emsuite.data.transfer.domain import load_domain
from emsuite.data.transfer.settings import DomainSettings, DomainVolume
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.images.volume_difference import differences
from emsuite.io.volume import LABELS, MASK, RAW, create_volume, open_volume

VOXEL = (8, 4, 4)
IMAGE = np.random.default_rng(0).integers(0, 256, (130, 30, 40), dtype=np.uint8)
IDS = np.random.default_rng(1).integers(0, 2**40, (140, 40, 40)).astype(np.uint64)


def write(path: Path, voxels: np.ndarray, offset: tuple = (0, 0, 0), voxel_size: tuple = VOXEL) -> Path:
    create_volume(path, voxels.shape, voxels.dtype, voxel_size, offset).array[...] = voxels
    return path


def arrays(folder: Path) -> tuple[Path, Path]:
    """The image begins one section and two pixels behind the labels."""
    image = write(folder / "p.zarr/image", IMAGE, (8, 8, 8))
    return image, write(folder / "a.zarr/ids", IDS)


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_pairs_cover_what_both_cover(tmp_path: Path, ending: str) -> None:
    to = tmp_path / f"pairs.{ending}"
    region = write_pairs(*arrays(tmp_path), to)
    raw, labels = open_volume(to / RAW), open_volume(to / LABELS)
    assert raw.roi == labels.roi == region
    assert (tuple(raw.offset), raw.shape, raw.dtype, labels.dtype) == ((8, 8, 8), (130, 30, 38), np.uint8, np.uint64)
    assert np.array_equal(raw.read(), IMAGE[:, :, :38])
    assert np.array_equal(labels.read(), IDS[1:131, 2:32, 2:40])
    assert load_training_volume(to).has_labels(), "the next step trains on it"
    assert read_manifest(to)["settings"]["roi"] == "8:1048,8:128,8:160"


def test_a_region_of_one_channel_and_files_with_the_dataset_main(tmp_path: Path) -> None:
    image = write(tmp_path / "p.zarr/image", IMAGE[None])
    labels = write(tmp_path / "a.zarr/ids", IDS[:130, :30])
    write_pairs(image, labels, tmp_path / "pairs", roi="80:160,:,40:", as_main=True)
    for name, expected in (("images.h5", IMAGE), ("labels.h5", IDS[:130, :30])):
        with h5py.File(tmp_path / "pairs" / name) as file:
            assert list(file) == ["main"]
            assert np.array_equal(file["main"][:], expected[10:20, :, 10:])


def test_finished_pairs_are_kept_and_others_replaced(tmp_path: Path) -> None:
    image, labels = arrays(tmp_path)
    write_pairs(image, labels, tmp_path / "pairs.zarr")
    before = read_manifest(tmp_path / "pairs.zarr")
    write_pairs(image, labels, tmp_path / "pairs.zarr")
    assert read_manifest(tmp_path / "pairs.zarr") == before
    write(image, 255 - IMAGE, (8, 8, 8))
    write_pairs(image, labels, tmp_path / "pairs.zarr")
    assert np.array_equal(open_volume(tmp_path / "pairs.zarr" / RAW).read(), 255 - IMAGE[:, :, :38])


def test_the_mask_of_labels_comes_along(tmp_path: Path) -> None:
    image, _ = arrays(tmp_path)
    labels = write(tmp_path / "v.zarr" / LABELS, IDS)
    mask = write(tmp_path / "v.zarr" / MASK, (IDS % 2).astype(np.uint8))
    write_pairs(image, labels, tmp_path / "pairs.zarr")
    carried = open_volume(tmp_path / "pairs.zarr" / MASK)
    assert np.array_equal(carried.read(), open_volume(mask).read(carried.roi))
    assert carried.roi == open_volume(tmp_path / "pairs.zarr" / LABELS).roi


def as_domain(pairs: Path) -> Any:
    volume = DomainVolume(raw=pairs / RAW, labels=pairs / LABELS)
    return load_domain(DomainSettings(volumes=(volume,)), "a", Coordinate(VOXEL), (4, 8, 8))


@pytest.mark.parametrize("offset", [(0, 0, 96), (8000, 0, 0)])
def test_a_mask_that_does_not_cover_the_labels_is_refused(tmp_path: Path, offset: tuple[int, ...]) -> None:
    """Without it, all would count as labelled."""
    image, _ = arrays(tmp_path)
    labels = write(tmp_path / "v.zarr" / LABELS, IDS)
    write(tmp_path / "v.zarr" / RAW, IMAGE)
    write(tmp_path / "v.zarr" / MASK, (IDS % 2).astype(np.uint8), offset)
    for make in (
        lambda: write_pairs(image, labels, tmp_path / "made.zarr"),
        lambda: degrade(tmp_path / "v.zarr", tmp_path / "made.zarr", SecondLook()),
    ):
        with pytest.raises(BadInput, match=r"labels_mask: covers .*, expected it to cover the labels, "):
            make()
        assert not (tmp_path / "made.zarr").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mask_of_floats_is_refused(tmp_path: Path, dtype: type) -> None:
    """NaN is neither labelled nor not."""
    image, _ = arrays(tmp_path)
    labels = write(tmp_path / "v.zarr" / LABELS, IDS)
    write(tmp_path / "v.zarr" / RAW, IMAGE)
    write(tmp_path / "v.zarr" / MASK, np.full(IDS.shape, np.nan, dtype))
    for read in (
        lambda: write_pairs(image, labels, tmp_path / "made.zarr"),
        lambda: load_training_volume(tmp_path / "v.zarr"),
        lambda: as_domain(tmp_path / "v.zarr"),
    ):
        with pytest.raises(BadInput, match=r"labels_mask: float\d+ .*, expected "):
            read()


READERS: dict[str, Callable[[Path], Any]] = {
    "pairs": lambda pairs: write_pairs(pairs / RAW, pairs / LABELS, pairs.with_name("second.zarr")),
    "differences": lambda pairs: differences(pairs / RAW, [pairs / RAW]),
    "training": load_training_volume,
    "prediction": lambda pairs: open_raw(pairs / RAW, VOXEL),
    "domain": as_domain,
    "ground truth": lambda pairs: compare(
        open_volume(pairs.with_name("a.zarr") / "ids"), GroundTruth(open_volume(pairs / LABELS)),
        open_volume(pairs / LABELS).roi, pairs.with_name("tables"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("of", [RAW, LABELS])
def test_an_output_that_has_lost_files_is_refused(tmp_path: Path, reader: str, of: str) -> None:
    pairs = tmp_path / "first.zarr"
    write_pairs(*arrays(tmp_path), pairs)
    READERS[reader](pairs)
    for made in ("second.zarr", "tables"):
        remove(tmp_path / made)
    next(file for file in (pairs / of).rglob("*") if file.is_file() and file.name[0].isdigit()).unlink()
    with pytest.raises(BadInput, match=r"first\.zarr: .*run its stage again"):
        READERS[reader](pairs)
    assert not (tmp_path / "second.zarr").exists()


@pytest.mark.parametrize("ending", ["zarr", "h5"])
@pytest.mark.parametrize("reader", ["training", "prediction", "domain"])
def test_an_output_that_a_user_has_edited_is_read(tmp_path: Path, reader: str, ending: str) -> None:
    pairs = tmp_path / f"first.{ending}"
    write_pairs(*arrays(tmp_path), pairs)
    if ending == "h5":
        with h5py.File(pairs, "r+") as file:
            file[LABELS][:8] = 7
    else:
        open_volume(pairs / LABELS, "r+").array[:8] = 7
    READERS[reader](pairs)


@pytest.mark.parametrize(
    ("image", "labels", "keys", "message"),
    [
        ({}, {"voxel_size": (8, 4, 5)}, {}, "voxels of .* nm, expected the image's"),
        ({}, {"offset": (0, 2, 0)}, {}, "not whole voxels from the image's"),
        ({}, {"offset": (8000, 0, 0)}, {}, "expected it to overlap the image"),
        ({}, {"voxels": IDS.astype(np.float32)}, {}, "expected labels"),
        ({"voxels": np.stack([IMAGE, IMAGE])}, {}, {}, "expected images"),
        ({"voxels": IDS}, {}, {}, "expected images"),
        ({}, {"voxels": IDS[:100]}, {"roi": "0:1040,:,:"}, "covers .* was asked for"),
    ],
)
def test_pairs_that_do_not_match_are_refused(
    tmp_path: Path, image: dict[str, Any], labels: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    of_image = write(tmp_path / "p.zarr/image", image.pop("voxels", IMAGE), **image)
    of_labels = write(tmp_path / "a.zarr/ids", labels.pop("voxels", IDS), **labels)
    with pytest.raises(BadInput, match=message):
        write_pairs(of_image, of_labels, tmp_path / "pairs.zarr", **keys)
    assert not (tmp_path / "pairs.zarr").exists()


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    image, labels = arrays(tmp_path)
    with pytest.raises(BadInput, match=r"pairs.h5: expected a folder"):
        write_pairs(image, labels, tmp_path / "pairs.h5", as_main=True)
    with pytest.raises(BadInput, match=r"pairs: expected a container to write"):
        write_pairs(image, labels, tmp_path / "pairs")
    with pytest.raises(BadInput, match=r"p.zarr: is the volume to read"):
        write_pairs(image, labels, tmp_path / "p.zarr")
