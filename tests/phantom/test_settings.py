"""Settings of a phantom: derived sizes, and one line for what cannot be."""

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.phantom.settings import PhantomSettings


def test_thick_voxels_are_made_of_finer_ones():
    settings = PhantomSettings(shape=(10, 20, 30), voxel_size=(40, 4, 16))
    assert list(settings.subvoxels) == [4, 1, 2]
    assert settings.fine_shape == (40, 20, 60)
    assert np.allclose(settings.fine_voxel_size, [10, 4, 8])


def test_shifts_need_a_margin():
    settings = PhantomSettings(shape=(10, 20, 30), shifted_sections=0.1, max_shift=20)
    assert settings.fine_shape == (10, 24, 34)
    assert PhantomSettings(shape=(10, 20, 30), max_shift=20).fine_shape == (10, 20, 30)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"shape": (4, 64, 64)}, r"--shape \(4, 64, 64\): .*greater than or equal to 8"),
        ({"voxel_size": (8, 8, 0)}, r"--voxel-size \(8, 8, 0\)"),
        ({"missing_sections": 1.5}, "--missing-sections 1.5: "),
        ({"seed": -1}, "--seed -1: "),
        ({"noise": float("nan")}, "--noise nan: "),
        ({"shifted_sections": 0.2}, "--max-shift 0: moves no section"),
        ({"shifted_sections": 0.2, "max_shift": 7}, "--max-shift 7: moves no section"),
        ({"shape": (2000, 2000, 2000)}, r"--shape .*: 8000000000 voxels"),
        ({"shap": (64, 64, 64)}, "--shap"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(options: dict, line: str):
    with pytest.raises(BadInput, match=line) as error:
        PhantomSettings.of(**options)
    assert "\n" not in str(error.value)
