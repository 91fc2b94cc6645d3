import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
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


def of_sections(tmp_path, offset=(0, 0, 0), neighborhood=None):
    """Affinities that tell their channel and section: 10 * channel + section."""
    channels = len(neighborhood or range(3))
    values = 10 * np.arange(channels)[:, None] + np.arange(6)
    array = (values[:, :, None, None] * np.ones((2, 3))).astype(np.uint8)
    more = {} if neighborhood is None else {"neighborhood": neighborhood}
    volume = create_volume(tmp_path / "p.zarr/affs", array.shape, np.uint8, (40, 4, 4), offset, **more)
    volume.write(volume.roi, array)
    return volume


def values_of(affs, roi=None):
    return affs.read_all(roi or affs.volume.roi)[:, :, 0, 0].tolist()


@pytest.mark.parametrize("offset", [(0, 0, 0), (560, 424, 424)])
def test_a_section_takes_the_place_of_a_bad_one(tmp_path, offset):
    first = offset[0] // 40  # of the world: raw begins at 0 nm, and is 14 sections longer
    affs = affinity_volume(of_sections(tmp_path, offset), f"{first + 3}={first + 2}")
    assert affs.volume.offset == offset
    assert values_of(affs) == [[0, 1, 2, 255, 4, 5], [10, 11, 12, 12, 14, 15], [20, 21, 22, 22, 24, 25]]


def test_the_next_section_takes_the_place_of_a_bad_one(tmp_path):
    affs = affinity_volume(of_sections(tmp_path), "3=4")
    assert values_of(affs) == [[0, 1, 2, 4, 255, 5], [10, 11, 12, 14, 14, 15], [20, 21, 22, 24, 24, 25]]


def test_a_run_of_bad_sections_and_long_affinities(tmp_path):
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0]]
    affs = affinity_volume(of_sections(tmp_path, neighborhood=offsets), "3=2,4=2")
    assert values_of(affs)[0] == [0, 1, 2, 255, 255, 5]
    assert values_of(affs)[1] == [10, 11, 12, 12, 12, 15]
    assert values_of(affs)[3] == [30, 31, 32, 32, 255, 35]  # 3 is 2 now, and its partner is 1


def test_parts_read_what_the_whole_reads(tmp_path):
    affs = affinity_volume(of_sections(tmp_path), "0=5,3=2")
    whole = affs.read(affs.volume.roi)
    for z in range(6):
        part = Roi((40 * z, 4, 4), (40, 4, 8))
        np.testing.assert_array_equal(affs.read(part), whole[:, z : z + 1, 1:2, 1:3])


def test_sections_without_another_get_no_fragments(tmp_path):
    affs = affinity_volume(of_sections(tmp_path), "1,3=2,111")
    assert affs.keeps(affs.volume.roi).tolist() == [True, False, True, True, True, True]
    assert affs.keeps(Roi((80, 0, 0), (80, 8, 12))) is None
    assert values_of(affs)[1] == [10, 11, 12, 12, 14, 15]  # the affinities stay


def test_a_section_that_is_to_take_a_place_must_be_there(tmp_path):
    volume = of_sections(tmp_path, (400, 0, 0))
    assert not affinity_volume(volume, "3=2,16=15").replaced  # the volume holds 10 to 15
    with pytest.raises(BadInput, match="16 is to take the place of 15, expected one of the sections there, 10 to 15"):
        affinity_volume(volume, "15=16")


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
