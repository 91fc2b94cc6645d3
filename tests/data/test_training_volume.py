"""Reading volumes to train on, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.data.labels_mask import MaskRule
from emsuite.data.training_volume import Ones, load_training_volume, memory_needed
from emsuite.io.volume import create_volume

SHAPE = (6, 8, 10)
RAW = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
LABELS = np.random.default_rng(1).choice(np.array([0, 7, 2**40, 2**64 - 3], np.uint64), (4, 4, 4))


def write(folder: Path, **arrays) -> Path:
    """Arrays by name as (values, offset in voxels, voxel size in nm)."""
    path = folder / "some.zarr"
    for name, (values, offset, size) in arrays.items():
        place = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/labels_mask"}[
            name
        ]
        volume = create_volume(path / place, values.shape, values.dtype, size, Coordinate(offset) * Coordinate(size))
        volume.write(volume.roi, values)
    return path


def good(**changed):
    return {"raw": (RAW, (0, 0, 0), (40, 4, 4)), "labels": (LABELS, (1, 2, 3), (40, 4, 4))} | changed


def test_labels_are_renumbered_and_background_stays(tmp_path):
    volume = load_training_volume(write(tmp_path, **good()))
    assert torch.equal(volume.raw, torch.from_numpy(RAW))
    assert volume.labels.dtype == torch.int32
    assert np.array_equal(volume.labels == 0, LABELS == 0)
    assert volume.labels.unique().tolist() == [0, 1, 2, 3]
    for label in np.unique(LABELS):
        assert volume.labels[torch.from_numpy(label == LABELS)].unique().numel() == 1
    assert volume.mask.dtype == torch.uint8
    assert volume.mask[:, :, :].all()
    assert (volume.voxel_size, volume.raw_offset, volume.labels_offset) == ((40, 4, 4), (0, 0, 0), (40, 8, 12))


def test_a_mask_is_read_where_there_is_one(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4] = 255
    volume = load_training_volume(write(tmp_path, **good(mask=(mask, (0, 0, 0), (40, 4, 4)))))
    assert volume.mask.float().mean(dim=(1, 2)).tolist() == [0, 1, 1, 0]


def test_labels_only_inside_the_roi_and_inside_raw_with_raw_kept_whole(tmp_path):
    path = write(tmp_path, **good(labels=(LABELS, (4, 2, 3), (40, 4, 4))))
    assert load_training_volume(path).labels.shape == (2, 4, 4)
    volume = load_training_volume(path, Roi((0, 12, 0), (200, 400, 400)))
    assert volume.labels.shape == (1, 3, 4)
    assert volume.labels_offset == (160, 12, 12)
    assert volume.raw.shape == SHAPE
    assert np.array_equal(volume.labels == 0, LABELS[:1, 1:] == 0)


def test_a_mask_of_ones_is_not_kept(tmp_path):
    volume = load_training_volume(write(tmp_path, **good(mask=(np.ones(SHAPE, np.uint8), (0, 0, 0), (40, 4, 4)))))
    assert isinstance(volume.mask, Ones)
    assert volume.to("meta").mask.device == torch.device("meta")
    assert volume.to("meta").mask[1:3, :2, :2].shape == (2, 2, 2)


def test_hdf5_as_cremi_has_it(tmp_path):
    with h5py.File(tmp_path / "cremi.hdf", "w") as file:
        for name, values in (("volumes/raw", RAW), ("volumes/labels/neuron_ids", LABELS)):
            file[name] = values
            file[name].attrs["resolution"] = (40.0, 4.0, 4.0)
    assert load_training_volume(tmp_path / "cremi.hdf").mask[:, :, :].all()


def test_floats_from_0_to_1_are_raw_as_well(tmp_path):
    volume = load_training_volume(write(tmp_path, **good(raw=(RAW / 255.0, (0, 0, 0), (40, 4, 4)))))
    assert volume.raw.dtype == torch.float32
    assert volume.raw.max() == 1


NAN = np.where(RAW > 250, np.nan, RAW / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": (LABELS, (20, 0, 0), (40, 4, 4))}, "labels cover .* expected them to overlap"),
        ({"labels": (LABELS, (0, 0, 0), (8, 8, 8))}, r"voxels of \(8, 8, 8\) nm, expected raw's, \(40, 4, 4\)"),
        ({"labels": (LABELS.astype(np.float32), (0, 0, 0), (40, 4, 4))}, "holds float32, expected integers"),
        ({"labels": (-np.ones((3, 3, 3), np.int16), (0, 0, 0), (40, 4, 4))}, "holds the label -1"),
        ({"labels": (LABELS[None], (0, 0, 0), (40, 4, 4))}, r"has 4 axes \(1, 4, 4, 4\), expected 3"),
        ({"raw": (RAW.astype(np.uint64), (0, 0, 0), (40, 4, 4))}, "holds uint64, expected uint8, uint16"),
        ({"raw": (NAN, (0, 0, 0), (40, 4, 4))}, "holds NaN, in [0-9]+ voxels"),
        ({"raw": (RAW.astype(np.float32), (0, 0, 0), (40, 4, 4))}, "floats from 0 to 255, expected 0 to 1"),
        ({"raw": (RAW[0], (0, 0), (4, 4))}, r"has 2 axes \(8, 10\), expected 3"),
        ({"mask": (np.ones((2, 2, 2), np.uint8), (1, 2, 3), (40, 4, 4))}, "expected it to cover the labels"),
        ({"mask": (np.ones(SHAPE, np.uint8), (0, 0, 0), (4, 4, 4))}, "labels_mask: voxels of"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path, changed, message):
    with pytest.raises(BadInput, match=message) as refused:
        load_training_volume(write(tmp_path, **good(**changed)))
    assert "\n" not in str(refused.value)
    assert "some.zarr" in str(refused.value)


def test_a_grid_between_the_voxels_of_raw_is_refused(tmp_path):
    path = write(tmp_path, **good())
    volume = create_volume(path / "volumes/labels/neuron_ids", LABELS.shape, np.uint64, (40, 4, 4), (40, 3, 4))
    volume.write(volume.roi, LABELS)
    with pytest.raises(BadInput, match="not whole voxels from raw's"):
        load_training_volume(path)


def test_a_roi_elsewhere_or_a_volume_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nothing of"):
        load_training_volume(write(tmp_path, **good()), Roi((4000, 0, 0), (40, 4, 4)))
    with pytest.raises(BadInput, match="no such volume"):
        load_training_volume(tmp_path / "other.zarr")


@pytest.mark.parametrize("masked", [False, True])
def test_what_stays_on_disk_reads_as_what_lies_in_memory(tmp_path, masked):
    mask = {"mask": ((RAW > 99).astype(np.uint8), (0, 0, 0), (40, 4, 4))} if masked else {}
    path = write(tmp_path, **good(**mask))
    roi = Roi((40, 8, 16), (120, 16, 16))
    memory, disk = (load_training_volume(path, roi, stream) for stream in (False, True))
    assert len(memory.tensors) == (3 if masked else 2), "a mask of ones takes no memory"
    assert not disk.tensors
    assert disk.to("cpu") is disk
    box = (slice(1, 3), slice(None), slice(0, 2))
    for name in ("raw", "labels", "mask"):
        stored, loaded = getattr(disk, name), getattr(memory, name)
        assert stored.dtype == loaded.dtype
        assert tuple(stored.shape) == tuple(loaded.shape)
        assert stored.device == loaded.device
        piece = stored[box]
        assert piece.dtype == loaded.dtype
        # labels of a piece have numbers of their own
        numbers = {(int(a), int(b)) for a, b in zip(piece.flatten(), loaded[box].flatten(), strict=True)}
        assert len(numbers) == len({a for a, _ in numbers}) == len({b for _, b in numbers})
        assert name == "labels" or all(a == b for a, b in numbers)
        assert all((a == 0) == (b == 0) for a, b in numbers)


def test_the_memory_that_a_volume_needs(tmp_path):
    path = write(tmp_path, **good())
    assert memory_needed(path) == RAW.size + LABELS.size * 13
    assert memory_needed(path, Roi((40, 8, 12), (40, 16, 16))) == RAW.size + LABELS.size // 4 * 13
    floats = write(tmp_path / "floats", **good(raw=(RAW / np.float32(255), (0, 0, 0), (40, 4, 4))))
    assert memory_needed(floats) == RAW.size * 8 + LABELS.size * 13


def test_bad_voxels_on_disk_are_refused_when_they_are_read(tmp_path):
    raw = (RAW / np.float32(255)).copy()
    raw[3, 3, 3] = 2
    volume = load_training_volume(write(tmp_path, **good(raw=(raw, (0, 0, 0), (40, 4, 4)))), stream=True)
    assert volume.raw[:2, :, :].dtype == torch.float32
    with pytest.raises(BadInput, match=r"volumes/raw: floats from .* to 2, expected 0 to 1"):
        volume.raw[2:4, :, :]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_labels_that_the_rule_calls_unlabelled_are_no_object(tmp_path, stream, masked, dtype):
    """The hemibrain's -3, with and without its mask, and as a signed number."""
    labels = np.array([1, 0, 7, -3]).astype(dtype)[np.random.default_rng(0).integers(0, 4, (4, 4, 4))]
    nobodys = labels == np.array(-3).astype(dtype)
    mask = {"mask": ((~nobodys).astype(np.uint8), (1, 2, 3), (40, 4, 4))} if masked else {}
    path = write(tmp_path, **good(labels=(labels, (1, 2, 3), (40, 4, 4)), **mask))
    volume = load_training_volume(path, stream=stream, rule=MaskRule(unlabelled=(2**64 - 3,)))
    everything = (slice(None),) * 3
    assert np.array_equal(volume.mask[everything] == 0, nobodys)
    assert np.array_equal(volume.labels[everything] == 0, nobodys | (labels == 0))
    assert volume.labels[everything].unique().tolist() == [0, 1, 2]


def put(path, zarr_format, **arrays):
    """The same as `write`, with the types as they are, in zarr or, for None, in HDF5."""
    place = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/labels_mask"}
    for name, values in arrays.items():
        if zarr_format is None:
            with h5py.File(path, "a") as file:
                file.create_dataset(place[name], data=values).attrs["resolution"] = (40, 4, 4)
            continue
        group = zarr.open_group(path, mode="a", zarr_format=zarr_format)
        array = group.create_array(place[name], shape=values.shape, dtype=values.dtype, chunks=(4, 4, 4))
        array[...] = values
        array.attrs["resolution"] = [40, 4, 4]
    return path


FEW = np.random.default_rng(2).integers(0, 2, SHAPE)
STORED = {"v2.zarr": 2, "v3.zarr": 3, "v.h5": None}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(
    ("labels", "raw", "mask"),
    [
        (">u8", "u1", "u1"),
        (">i4", ">f4", ">u2"),
        (">u2", ">f8", "?"),
        ("?", "<f2", ">i8"),
        ("u1", ">f2", "i1"),
        (">i8", "u1", "<u4"),
    ],
)
def test_any_byte_order_and_type_loads_as_the_native_one(tmp_path, name, stream, labels, raw, mask):
    grey = (RAW / 255).astype(np.float16) if np.dtype(raw).kind == "f" else RAW
    arrays = {"labels": FEW.astype(labels), "raw": grey.astype(raw), "mask": (RAW > 60).astype(mask)}
    native = {"labels": FEW.astype(np.uint64), "raw": grey, "mask": (RAW > 60).astype(np.uint8)}
    odd = load_training_volume(put(tmp_path / name, STORED[name], **arrays), stream=stream)
    good = load_training_volume(put(tmp_path / "native.zarr", 2, **native), stream=stream)
    for part in ("raw", "labels", "mask"):
        voxels, expected = (getattr(volume, part)[:, :, :] for volume in (odd, good))
        assert voxels.dtype == expected.dtype
        assert torch.equal(voxels, expected)


CENTRE = np.zeros(SHAPE, np.uint8)
CENTRE[1:5, 2:6, 2:8] = 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("dtype", "label"), [(np.int64, -3), (np.int32, -1), (np.int8, -128), (">i2", -2)])
def test_negative_labels_count_where_the_mask_is_1_alone(tmp_path, stream, dtype, label):
    labels = np.where(CENTRE == 1, FEW + 1, label).astype(dtype)
    volume = load_training_volume(put(tmp_path / "v.zarr", 2, raw=RAW, labels=labels, mask=CENTRE), stream=stream)
    unsigned = labels.astype(np.dtype(dtype).newbyteorder("=")).view(f"u{labels.dtype.itemsize}")
    same = load_training_volume(put(tmp_path / "u.zarr", 2, raw=RAW, labels=unsigned, mask=CENTRE), stream=stream)
    assert torch.equal(volume.labels[:, :, :], same.labels[:, :, :]), "the same bits train as the same labels"
    labels[2, 3, 4] = label
    with pytest.raises(BadInput, match=f"holds the label {label}, expected 0 for background"):
        load_training_volume(put(tmp_path / "w.zarr", 2, raw=RAW, labels=labels, mask=CENTRE), stream=stream).labels[
            :, :, :
        ]
    box = (slice(0, 2), slice(None), slice(None))  # has none of the bad voxels
    assert load_training_volume(tmp_path / "w.zarr", stream=True).labels[box].any()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("value", [np.nan, -1.0, 7.5, np.inf])
def test_raw_counts_where_the_mask_is_1_alone(tmp_path, stream, value):
    grey = (RAW / 255).astype(np.float32)
    raw, labels = np.where(CENTRE == 1, grey, value).astype(np.float32), FEW.astype(np.uint64)[1:5]
    path = write(tmp_path, raw=(raw, (0, 0, 0), (40, 4, 4)), labels=(labels, (1, 0, 0), (40, 4, 4)))
    write(tmp_path, mask=(CENTRE[1:5], (1, 0, 0), (40, 4, 4)))
    voxels = load_training_volume(path, stream=stream).raw[:, :, :]
    assert torch.equal(voxels, torch.from_numpy(np.where(CENTRE == 1, grey, 0))), "0, as outside the volume"
    raw[2, 3, 4] = value
    write(tmp_path, raw=(raw, (0, 0, 0), (40, 4, 4)))
    with pytest.raises(BadInput, match=r"volumes/raw: (holds NaN, in 1 voxels|floats from .*), expected"):
        load_training_volume(path, stream=stream).raw[:, :, :]
