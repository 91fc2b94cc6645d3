import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.io.values import ROUNDING, check_not_empty, in_unit_range
from emsuite.io.volume import open_volume


def test_rounding_is_clipped_and_more_is_outside():
    for value in (1.0000001, 1 + ROUNDING, -1e-7):
        given = np.array([0.5, value])
        assert in_unit_range(given).tolist() == [0.5, min(max(value, 0), 1)]
        assert given[1] == value
    for value in (1.00001, -1e-5, np.nan, np.inf, 255):
        assert in_unit_range(np.array([0.5, value], np.float32)) is None
    assert in_unit_range(np.empty(0)).size == 0
    kept = np.array([0.0, 1.0])
    assert in_unit_range(kept) is kept


def test_an_array_without_voxels_is_told(tmp_path):
    write_array(tmp_path / "v.zarr/raw", np.zeros((0, 4, 4), np.uint8))
    with pytest.raises(BadInput, match=r"raw: shape \(0, 4, 4\) holds no voxel"):
        check_not_empty(open_volume(tmp_path / "v.zarr/raw"))
