import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.volume import create_volume
from emsuite.segmentation.affinity_volume import affinity_volume


def opened(tmp_path, array, voxel_size=(8, 8, 8), **attributes):
    volume = create_volume(
        tmp_path / "p.zarr/affs", array.shape, array.dtype, voxel_size, [0] * len(voxel_size), **attributes
    )
    volume.write(volume.roi, array)
    return volume


def test_the_neighborhood_says_which_channels_to_read(tmp_path):
    array = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((2, 3, 4), np.uint8)
    offsets = [[-3, 0, 0], [0, 0, -1], [0, -1, 0], [0, -9, 0], [-1, 0, 0]]
    affs = affinity_volume(opened(tmp_path, array, neighborhood=offsets))
    assert affs.read(affs.volume.roi)[:, 0, 0, 0].tolist() == [4, 2, 1]


def test_without_a_neighborhood_the_first_three_are_read(tmp_path):
    affs = affinity_volume(opened(tmp_path, np.arange(48, dtype=np.uint8).reshape(6, 2, 2, 2)))
    np.testing.assert_array_equal(affs.read(affs.volume.roi), np.arange(24).reshape(3, 2, 2, 2))


def test_floats_become_uint8(tmp_path):
    affs = affinity_volume(opened(tmp_path, np.full((3, 2, 2, 2), 0.5, np.float32)))
    assert affs.read(affs.volume.roi).dtype == np.uint8
    assert (affs.read(affs.volume.roi) == 128).all()


def test_floats_that_rounding_moved_out_are_clipped(tmp_path):
    array = np.full((3, 2, 2, 2), np.nextafter(np.float32(1), np.float32(2)))
    array[0] = -np.finfo(np.float32).eps
    affs = affinity_volume(opened(tmp_path, array))
    assert affs.read(affs.volume.roi)[:, 0, 0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1, 1.00001, 255])
def test_floats_that_are_no_affinities_are_refused(tmp_path, value):
    array = np.full((3, 2, 2, 2), 0.5, np.float32)
    array[1, 1, 1, 1] = value
    affs = affinity_volume(opened(tmp_path, array))
    with pytest.raises(BadInput, match=r"expected affinities in \[0, 1\]"):
        affs.read(affs.volume.roi)


@pytest.mark.parametrize(
    ("array", "attributes", "line"),
    [
        (np.zeros((4, 4, 4), np.uint8), {}, r"3 axes \(4, 4, 4\), expected affinities with 4"),
        (np.zeros((2, 4, 4, 4), np.uint8), {}, "holds 2 channels, expected affinities to the next voxel"),
        (
            np.zeros((40, 48, 56, 3), np.uint8),
            {},
            r"shape \(40, 48, 56, 3\) has 40 channels, expected the order \(c, z",
        ),
        (np.zeros((12, 48, 56, 3), np.uint8), {}, r"shape \(12, 48, 56, 3\) has 12 channels, expected the order"),
        (np.zeros((40, 48, 3, 56), np.uint8), {}, r"has 40 channels, expected the order"),
        (np.zeros((3, 0, 4, 4), np.uint8), {}, r"shape \(3, 0, 4, 4\) holds no voxel"),
        (np.zeros((3, 4, 4, 4), np.uint64), {}, "uint64, expected affinities as uint8"),
        (np.zeros((3, 4, 4, 4), np.uint8), {"neighborhood": [[-9, 0, 0], [0, -9, 0], [0, 0, -9]]}, "holds offsets"),
    ],
)
def test_arrays_that_are_no_affinities_are_refused(tmp_path, array, attributes, line):
    with pytest.raises(BadInput, match=line):
        affinity_volume(opened(tmp_path, array, **attributes))
