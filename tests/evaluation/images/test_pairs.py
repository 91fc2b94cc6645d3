"""Plates that are compared: channels, positions, sizes and masks that belong together, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.images.pairs import Chosen, Pairs
from emsuite.plates.statistics import Where
from frames_of_a_plate import write_frames
from plates_to_score import CHANNELS, target_and_prediction, voxels_of, write_plate


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return target_and_prediction(tmp_path_factory.mktemp("plates"), 2)


def test_channels_are_those_of_one_name_and_the_others_are_inputs(plates: tuple[Path, Path]) -> None:
    target, predicted = plates
    pairs = Pairs.of(predicted, target, Chosen(masks=target))
    assert pairs.target.channels == CHANNELS[1:]
    assert pairs.inputs is not None
    assert pairs.inputs.channels == ("phase",)
    assert len(pairs.volumes()) == 2 * 2 * 2
    pair = pairs.read(Where("A/1/1", 1, 1))
    np.testing.assert_array_equal(pair.target, voxels_of(1)[1, 2])
    assert pair.mask is not None
    assert pair.mask[..., :17].all()
    assert not pair.mask[..., 17:].any()


def test_channels_positions_and_masks_by_choice(plates: tuple[Path, Path]) -> None:
    target, predicted = plates
    chosen = Chosen(("2", "phase"), ("nuclei",), ("1",), masks=predicted)
    pairs = Pairs.of(predicted, target, chosen)
    assert pairs.target.channels == ("membranes", "phase")
    assert pairs.inputs is not None
    assert pairs.inputs.channels == ("nuclei",)
    assert pairs.target.positions == ("A/1/1",)
    assert pairs.masks is not None
    assert pairs.masks.read("A/1/1", 0).all()
    assert Pairs.of(target, target, Chosen()).inputs is None


def test_a_folder_of_frames_is_a_prediction_too(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", 1)
    pairs = Pairs.of(frames, frames, Chosen(("0", "1")))
    assert pairs.target.channels == ("0", "1")


def images(count: int = 2, **changed: object) -> dict[str, np.ndarray]:
    voxels = {f"A/1/{number}": voxels_of(number)[:, 1:] for number in range(count)}
    return voxels | changed  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("predicted", "channels", "chosen", "line"),
    [
        (images(1), CHANNELS[1:], {}, "p.zarr: has no position A/1/1, which .*target.zarr has; expected the same pos"),
        (images(3), CHANNELS[1:], {}, "target.zarr: has no position A/1/2, which .*p.zarr has"),
        (images(1), CHANNELS[1:], {"positions": ("1",)}, "p.zarr: has no position 1; it has A/1/0"),
        (images(**{"A/1/1": voxels_of(1)[:, 1:, :2]}), CHANNELS[1:], {},
         r"p.zarr/A/1/1: images \(t, c, z, y, x\) \(2, 2, 2, 30, 34\), expected \(2, 2, 3, 30, 34\)"),
        (images(), ("nuclei", "golgi"), {}, "target.zarr: has no channel golgi, which .*p.zarr predicts; it has phase"),
        (images(), ("nuclei", "golgi"), {"target_channels": ("nuclei",)},
         r"p.zarr: 2 channels \(nuclei, golgi\), expected 1, one for each target channel"),
        (images(), ("nuclei", "golgi"), {"target_channels": ("nuclei", "9")}, "channel 9 has no images; the channels"),
        (images(), CHANNELS[1:], {"input_channels": ("light",)}, "channel light has no images; the channels are phase"),
        (images(), CHANNELS[1:], {"masks": Path("nowhere")}, "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    plates: tuple[Path, Path], tmp_path: Path, predicted: dict[str, np.ndarray], channels: tuple[str, ...],
    chosen: dict[str, tuple[str, ...]], line: str,
) -> None:  # fmt: skip
    path = write_plate(tmp_path / "p.zarr", predicted, channels)
    with pytest.raises(BadInput, match=line):
        Pairs.of(path, plates[0], Chosen(**chosen))


def test_masks_that_do_not_fit(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    few = write_plate(tmp_path / "few.zarr", {"A/1/0": voxels_of(0)}, CHANNELS)
    with pytest.raises(BadInput, match=r"few.zarr: has no masks of position A/1/1"):
        Pairs.of(predicted, target, Chosen(masks=few))
    small = write_plate(tmp_path / "small.zarr", {f"A/1/{n}": voxels_of(n)[..., :8] for n in (0, 1)}, CHANNELS)
    with pytest.raises(BadInput, match=re.escape("A/1/0: masks (t, z, y, x) (2, 3, 30, 8), expected (2, 3, 30, 34)")):
        Pairs.of(predicted, target, Chosen(masks=small))
    with pytest.raises(BadInput, match=r"predicted.zarr/A/1/0: has no labels/foreground, expected the masks that"):
        Pairs.of(predicted, predicted, Chosen(masks=predicted))
