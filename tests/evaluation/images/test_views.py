"""Predictions as they are written: PNG with a scale, variances beside means, the foreground of masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.evaluation.images.pairs import Chosen, Pairs
from emsuite.evaluation.images.views import InGreyValues, predicted
from emsuite.plates.frames import Frame, write_frames
from emsuite.plates.plate import open_plate
from emsuite.plates.statistics import Where
from plates_to_score import CHANNELS, voxels_of, write_plate


def png_frames(folder: Path, scales: dict[str, dict[str, float]]) -> tuple[Path, np.ndarray]:
    """Write frames of nuclei and membranes, 4 by 5 pixels, with a scale.json; return their pixels, too."""
    folder.mkdir()
    pixels, frames = np.random.default_rng(0).integers(0, 65536, (2, 4, 5)).astype(np.uint16), []
    for channel, name in enumerate(CHANNELS[1:]):
        frames.append(Frame(channel, 0, 0, 0, name, f"im_c00{channel}_z000_t000_p000.png"))
        Image.fromarray(pixels[channel]).save(folder / frames[-1].file_name)
    write_frames(folder / "frames_meta.csv", frames)
    write_json(folder / "scale.json", {"grey value": "zero + step * pixel", "channels": scales})
    return folder, pixels


def test_png_files_are_grey_values_again(tmp_path: Path) -> None:
    scales = {"nuclei": {"zero": -100.0, "step": 0.5}, "membranes": {"zero": 0.0, "step": 1.0}}
    folder, pixels = png_frames(tmp_path / "frames", scales)
    plate = predicted(open_plate(folder))
    assert plate.channels == CHANNELS[1:]
    assert plate.dtype == np.float32
    np.testing.assert_allclose(plate.read("A/1/0", 0, 0)[0], pixels[0] * 0.5 - 100)
    np.testing.assert_array_equal(plate.read("A/1/0", 0, 1)[0], pixels[1])
    (folder / "scale.json").unlink()
    assert not isinstance(predicted(open_plate(folder)), InGreyValues)


def test_a_scale_without_a_channel_is_refused(tmp_path: Path) -> None:
    folder, _ = png_frames(tmp_path / "frames", {"nuclei": {"zero": 0.0, "step": 1.0}})
    with pytest.raises(BadInput, match=r"scale.json: says no zero and step of each of nuclei, membranes"):
        predicted(open_plate(folder))


def test_variances_are_left_out_and_masks_are_a_target(tmp_path: Path) -> None:
    voxels = voxels_of(0)
    target = write_plate(tmp_path / "target.zarr", {"A/1/0": voxels}, CHANNELS, mask=True)
    names = ("nuclei", "foreground", "nuclei_variance", "foreground_variance")
    images = {"A/1/0": np.stack([voxels[:, 1]] * 4, axis=1)}
    pairs = Pairs.of(write_plate(tmp_path / "p.zarr", images, names), target, Chosen())
    assert pairs.prediction.channels == pairs.target.channels == ("nuclei", "foreground")
    assert pairs.inputs is not None
    assert pairs.inputs.channels == ("phase", "membranes")
    pair = pairs.read(Where("A/1/0", 1, 1))
    assert np.unique(pair.target).tolist() == [0, 1]
    assert (pair.target[..., :17] == 1).all()
    np.testing.assert_array_equal(pairs.read(Where("A/1/0", 1, 0)).target, voxels[1, 1])
    lone = write_plate(tmp_path / "lone.zarr", {"A/1/0": voxels[:, :1]}, ("nuclei_variance",))
    with pytest.raises(BadInput, match="has no channel nuclei_variance"):
        Pairs.of(lone, target, Chosen())
