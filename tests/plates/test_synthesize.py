"""The sets to try a pipeline on: light that a flat field can undo, frames without light, the same bytes."""

from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import polynomial
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

from builders import files_in
from emsuite.common.errors import BadInput
from emsuite.plates.flat_field import estimate_flat_field, sum_of_images
from emsuite.plates.plate import open_plate
from emsuite.plates.synthesize import (
    LabelFreeSettings,
    StainsSettings,
    label_free,
    shading_of,
    stains,
    synthesize_frames,
)

SMALL = LabelFreeSettings(positions=5, times=2, slices=3, size=64, cells=8, empty=0.2)


def test_light_is_a_polynomial_of_the_nine_terms() -> None:
    light = shading_of(48, 0.6, 1.0)
    assert light.max() == pytest.approx(1)
    assert light.min() == pytest.approx(0.4)
    y, x = np.meshgrid(*[np.linspace(-1, 1, 48)] * 2, indexing="ij")
    terms = polynomial.polyvander2d(y.ravel(), x.ravel(), [2, 2])
    fitted = terms @ np.linalg.lstsq(terms, light.ravel(), rcond=None)[0]
    assert np.allclose(fitted, light.ravel(), atol=1e-12)


def test_frames_have_signal_and_some_have_no_light() -> None:
    frames = list(label_free(SMALL))
    assert [(one.position, one.time) for one in frames] == [(p, t) for p in range(5) for t in range(2)]
    dark = [not one.frames.any() for one in frames]
    assert sum(dark) == 2
    assert not dark[0]
    for one, is_dark in zip(frames, dark, strict=True):
        assert one.frames.shape == (3, 3, 64, 64)
        assert is_dark or all(image.std() > 50 and image.min() > 0 for stack in one.frames for image in stack)


def test_the_flat_field_that_is_estimated_is_the_light() -> None:
    """The light is known, and the same set with even light: dividing by the field brings it back."""
    dim, even = (list(label_free(LabelFreeSettings(slices=1, shading=shading))) for shading in (0.7, 0.0))
    for channel, angle in enumerate((0.4, 2.2, 4.0)):
        stacks = [one.frames[channel] for one in dim]
        field, images = estimate_flat_field(map(sum_of_images, stacks), 16, "set")
        assert images == 22
        light = shading_of(128, 0.7, angle)
        assert np.sqrt(np.mean((field / (light / light.mean()) - 1) ** 2)) < 0.06
        expected = np.concatenate([one.frames[channel] for one in even]).ravel()
        before, after = np.concatenate(stacks).ravel(), np.concatenate([stack / field for stack in stacks]).ravel()
        lit = expected > 0
        assert np.corrcoef(after[lit], expected[lit])[0, 1] > 0.98
        assert np.corrcoef(before[lit], expected[lit])[0, 1] < 0.94


def test_phase_says_where_targets_are() -> None:
    """The mean of a nucleus differs from that of the cell around it, in phase too: the task can be learned."""
    one = next(label_free(LabelFreeSettings(positions=1, times=1, slices=1, shading=0.0, noise=0.0, empty=0.0)))
    phase, nuclei, membranes = one.frames[:, 0].astype(float)
    assert abs(np.corrcoef(phase.ravel(), nuclei.ravel())[0, 1]) > 0.2
    assert phase[membranes > 2500].mean() > phase[membranes < 1400].mean() + 50


def test_the_stains_are_those_of_scikit_image() -> None:
    tiles = list(stains(StainsSettings(tile=128)))
    assert len(tiles) == 16
    density = rgb2hed(immunohistochemistry())
    for number, (y, x) in ((0, (0, 0)), (6, (128, 256))):
        for channel, stain in enumerate((0, 2)):
            expected = np.clip(density[y : y + 128, x : x + 128, stain], 0, 1)
            assert np.allclose(tiles[number].frames[channel, 0] / 65535, expected, atol=1e-5)
    assert len(list(stains(StainsSettings(tile=200)))) == 4


@pytest.mark.parametrize(("kind", "settings"), [("label-free", SMALL), ("stains", StainsSettings(tile=256))])
def test_the_same_settings_give_the_same_bytes(tmp_path: Path, kind: str, settings) -> None:
    assert synthesize_frames(kind, settings, tmp_path / "a")
    assert not synthesize_frames(kind, settings, tmp_path / "a"), "it is whole"
    assert synthesize_frames(kind, settings, tmp_path / "b")
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    plate = open_plate(tmp_path / "a")
    assert plate.channels == (("phase", "nuclei", "membranes") if kind == "label-free" else ("haematoxylin", "dab"))
    for one in (label_free if kind == "label-free" else stains)(settings):
        assert np.array_equal(plate.read(f"A/1/{one.position}", one.time, 1), one.frames[1])


def test_another_seed_gives_other_cells(tmp_path: Path) -> None:
    first, second = (next(label_free(SMALL.model_copy(update={"seed": seed}))).frames for seed in (0, 1))
    assert not np.array_equal(first, second)
    with pytest.raises(BadInput, match="settings of another kind"):
        synthesize_frames("stains", SMALL, tmp_path / "c")
