"""Grey values of any type, in the range of the type, a given range or a measured one."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from pydantic import ValidationError

from emsuite.common.errors import BadInput
from emsuite.data.grey_values import GreyRange, in_grey_range, is_grey, measure_range, reopened, tell_range
from emsuite.data.normalization import Normalization
from emsuite.data.raw import open_raw
from emsuite.data.training_volume import load_training_volume, load_unlabelled_volume
from emsuite.io.volume import Volume, create_volume, open_volume

VALUES = np.random.default_rng(0).integers(0, 256, (6, 7, 8)).astype(np.uint8)
UNIT = VALUES.astype(np.float32) / np.float32(255)
SIZE, NOWHERE = (8, 8, 8), (0, 0, 0)
DTYPE = Normalization()


def stored(path: Path, voxels: np.ndarray) -> Volume:
    create_volume(path / "v.zarr/volumes/raw", voxels.shape, voxels.dtype, SIZE, NOWHERE).array[...] = voxels
    return open_volume(path / "v.zarr/volumes/raw")


def said(grey_range: object) -> Normalization:
    return Normalization.model_validate({"grey_range": grey_range})


@pytest.mark.parametrize(
    "voxels",
    [
        VALUES,
        VALUES.astype(np.uint16) * 257,
        VALUES.astype(np.uint32) * 16843009,
        (VALUES.astype(np.int16) - 128).astype(np.int8),
        (VALUES.astype(np.int32) * 257 - 32768).astype(np.int16),
        (VALUES.astype(np.int64) * 16843009 - 2**31).astype(np.int32),
        UNIT,
        UNIT.astype(np.float64),
    ],
    ids=lambda voxels: str(voxels.dtype),
)
def test_values_of_any_type_become_the_same_numbers(tmp_path: Path, voxels: np.ndarray) -> None:
    volume = in_grey_range(stored(tmp_path, voxels), DTYPE)
    assert volume.dtype in (np.uint8, np.float32, np.float64)
    read = load_unlabelled_volume(tmp_path / "v.zarr").raw[:, :, :]
    unit = read / 255 if read.dtype == torch.uint8 else read
    np.testing.assert_array_equal(unit.numpy(), UNIT)
    np.testing.assert_array_equal(
        load_unlabelled_volume(tmp_path / "v.zarr", stream=True).raw[1:3, :, 2:5], read[1:3, :, 2:5]
    )


def test_booleans_and_half_floats(tmp_path: Path) -> None:
    assert in_grey_range(stored(tmp_path, VALUES > 99), DTYPE).read().tolist() == (VALUES > 99).tolist()
    half = stored(tmp_path / "half", UNIT.astype(np.float16))
    assert in_grey_range(half, DTYPE) is half


def test_uint8_and_floats_are_read_as_they_are_stored(tmp_path: Path) -> None:
    raw = stored(tmp_path, VALUES)
    assert in_grey_range(raw, DTYPE) is raw
    assert in_grey_range(raw, said([0, 255])) is raw
    assert in_grey_range(raw, said([0, 51])).read().max() == 1


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_given_range_in_any_order_of_bytes_and_axes(tmp_path: Path, dtype: str, order: str) -> None:
    how = {"shape": VALUES.shape, "chunks": (4, 4, 4), "dtype": dtype, "order": order, "zarr_format": 2}
    array = zarr.create_array(tmp_path / "v.zarr", name="raw", **how)
    array[...] = VALUES.astype(np.float64) * 4
    array.attrs.update(resolution=SIZE, offset=NOWHERE)
    read = in_grey_range(open_volume(tmp_path / "v.zarr/raw"), said([100, 500])).read()
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, ((VALUES * 4.0 - 100) / 400).clip(0, 1), rtol=0, atol=1e-6)
    again = reopened(in_grey_range(open_volume(tmp_path / "v.zarr/raw"), said([100, 500])))
    np.testing.assert_array_equal(again.read(), read)


def test_a_measured_range(tmp_path: Path) -> None:
    volumes = [stored(tmp_path / str(n), VALUES.astype(np.int16) * 16 + 1000 * n) for n in (0, 1)]
    both = np.concatenate([VALUES * 16.0, VALUES * 16.0 + 1000])
    measured = measure_range(volumes, (1, 99))
    assert measured == pytest.approx(np.percentile(both, [1, 99]))
    read = in_grey_range(volumes[0], said("percentiles"), measured).read()
    assert 0 == read.min() < read.max() < 1
    with pytest.raises(BadInput, match="percentiles, but the checkpoint records none"):
        in_grey_range(volumes[0], said("percentiles"))
    with pytest.raises(BadInput, match="percentiles 1 and 99 are 7 and 7, expected two"):
        measure_range([stored(tmp_path / "flat", np.full((3, 4, 5), 7, np.uint16))], (1, 99))


def test_no_number_stays_none(tmp_path: Path) -> None:
    odd = UNIT.copy()
    odd[0, 0] = np.nan, np.inf, -np.inf, 0.5, 0.5, 0.5, 0.5, 0.5
    stored(tmp_path, odd)
    with pytest.raises(BadInput, match="holds NaN, in 1 voxels"):
        load_unlabelled_volume(tmp_path / "v.zarr", normalization=said([0, 2]))
    with pytest.raises(BadInput, match=r"holds NaN, in 1 voxels|normalization.grey_range of network.yaml says which"):
        load_unlabelled_volume(tmp_path / "v.zarr")
    assert GreyRange(0, 2).apply(odd[0, 0])[1:4].tolist() == [1, 0, 0.25]


def test_floats_outside_name_the_setting(tmp_path: Path) -> None:
    stored(tmp_path, UNIT * 900)
    create_volume(tmp_path / "v.zarr/volumes/labels/neuron_ids", UNIT.shape, np.uint64, SIZE, NOWHERE).array[...] = 1
    with pytest.raises(BadInput, match=r"floats from 0 to 900, expected 0 to 1 \(normalization.grey_range of"):
        load_training_volume(tmp_path / "v.zarr")
    raw = load_training_volume(tmp_path / "v.zarr", normalization=said([0, 900])).raw
    np.testing.assert_allclose(raw[:, :, :].numpy(), UNIT, atol=1e-6)


def test_12_bits_in_16_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = stored(tmp_path, VALUES.astype(np.uint16) * 16)
    with caplog.at_level(logging.INFO):
        tell_range(raw, in_grey_range(raw, DTYPE))
    (line,) = caplog.messages
    assert "uint16 from 0 to 4080" in line
    assert "0 to 65535 become 0 to 1, which is far more: normalization.grey_range [0, 4095] (12 bits)" in line
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tell_range(raw, in_grey_range(raw, said([0, 4095])))
        tell_range(*[stored(tmp_path / "plain", VALUES)] * 2)
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_what_is_no_range(tmp_path: Path) -> None:
    assert [is_grey(np.dtype(name)) for name in ("u1", "i4", "?", "f2", "u8", "i8", "c8", "S1")] == [True] * 4 + [
        False
    ] * 4
    for wrong in ([5, 5], [5, 1], [0, float("nan")], [1], "all", None):
        with pytest.raises(ValidationError):
            said(wrong)


@pytest.mark.parametrize(
    ("measured", "warns"), [(GreyRange(0, 100), False), (GreyRange(10, 60), False), (GreyRange(300, 744), True)]
)
def test_raw_far_outside_a_recorded_range_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, measured: GreyRange, warns: bool
) -> None:
    path = stored(tmp_path, np.arange(4 * 5 * 5, dtype=np.uint16).reshape(4, 5, 5)).path
    open_raw(path, SIZE, said("percentiles"), measured)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert bool(told) == warns
    assert not warns or "100 % of its grey values, 0 to 99, lie outside 300 to 744" in told[0]
