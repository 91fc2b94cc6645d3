"""Flat fields: polynomials that are known, NumPy's own polynomials, and what cannot be fitted."""

from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import polynomial

from emsuite.common.errors import BadInput
from emsuite.plates.flat_field import (
    Light,
    block_medians,
    empty_sections,
    estimate_flat_field,
    fit_flat_field,
    flat_field_path,
    read_flat_field,
    sum_of_images,
    write_flat_field,
)

Y, X = np.meshgrid(np.arange(96.0), np.arange(128.0), indexing="ij")
NINE = 2 + 0.01 * X + 0.02 * Y - 1e-4 * X**2 - 5e-5 * Y**2 + 1e-4 * X * Y - 1e-9 * X**2 * Y**2 + 1e-6 * X * Y**2


def test_a_polynomial_of_nine_terms_comes_back() -> None:
    assert np.allclose(fit_flat_field(NINE, 1), NINE / NINE.mean(), rtol=0, atol=1e-12)


def test_a_plane_comes_back_from_blocks_of_any_size() -> None:
    """The median of a block of a plane is its value at the centre of the block."""
    plane = 3 + 0.01 * X + 0.005 * Y
    for block in (2, 7, 16, 32):
        assert np.allclose(fit_flat_field(plane, block), plane / plane.mean(), rtol=0, atol=1e-12)


def test_terms_outside_the_nine_do_not_come_back() -> None:
    assert abs(fit_flat_field(1 + 1e-6 * X**3, 1) - (1 + 1e-6 * X**3) / (1 + 1e-6 * X**3).mean()).max() > 0.01


def test_numpys_least_squares_give_the_same_field() -> None:
    """microDL's formula in NumPy's words: medians of whole blocks, x^m y^n with m and n at most 2, over the mean."""
    image = NINE * np.random.default_rng(0).uniform(0.8, 1.2, NINE.shape)
    block = 10
    medians = [
        [np.median(image[y : y + block, x : x + block]) for x in range(0, 120, block)] for y in range(0, 90, block)
    ]
    cy, cx = np.meshgrid(np.arange(4.5, 90, block), np.arange(4.5, 120, block), indexing="ij")
    terms = np.linalg.lstsq(polynomial.polyvander2d(cy.ravel(), cx.ravel(), [2, 2]), np.ravel(medians), rcond=None)[0]
    field = (polynomial.polyvander2d(Y.ravel(), X.ravel(), [2, 2]) @ terms).reshape(image.shape)
    assert np.allclose(fit_flat_field(image, block), field / field.mean(), rtol=1e-8)


def test_medians_and_centres_of_blocks() -> None:
    medians, y, x = block_medians(np.arange(20.0).reshape(4, 5), 2)
    assert medians.tolist() == [3, 5, 13, 15]
    assert y.tolist() == [0.5, 0.5, 2.5, 2.5]
    assert x.tolist() == [0.5, 2.5, 0.5, 2.5]


def test_bright_cells_do_not_tilt_the_field() -> None:
    rng = np.random.default_rng(1)
    cells = 1 + 20.0 * (rng.random(NINE.shape) < 0.1)
    assert np.allclose(fit_flat_field(NINE * cells, 8), NINE / NINE.mean(), atol=0.05)


def test_empty_images_do_not_count() -> None:
    volume = np.stack([NINE, np.zeros_like(NINE), NINE * 3, np.full_like(NINE, 7.0)])
    assert empty_sections(volume).tolist() == [False, True, False, True]
    field, images = estimate_flat_field([sum_of_images(volume), sum_of_images(volume[1:2])], 1, "plate")
    assert images == 2
    assert np.allclose(field, NINE / NINE.mean())


def test_the_field_of_parts_is_that_of_the_whole() -> None:
    volume = np.random.default_rng(2).random((5, 12, 12)) + 1
    parts, _ = estimate_flat_field([sum_of_images(volume[:2]), sum_of_images(volume[2:])], 2, "plate")
    whole, images = estimate_flat_field([sum_of_images(volume)], 2, "plate")
    assert images == 5
    assert np.allclose(parts, whole)
    assert np.allclose(whole, fit_flat_field(volume.mean(0), 2))


@pytest.mark.parametrize(
    ("volume", "block", "line"),
    [
        (np.ones((2, 96, 128)), 8, "plate: all images are constant"),
        (NINE[np.newaxis], 64, r"plate: images of \(96, 128\) have fewer than 3 blocks of 64"),
        (np.maximum(X - 60, 0.0)[np.newaxis], 8, "plate: the fitted light falls to -"),
    ],
)
def test_what_cannot_be_fitted(volume: np.ndarray, block: int, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        estimate_flat_field([sum_of_images(volume)], block, "plate")


LIGHT = Light(3, "GFP", NINE.shape, (108.3, 108.3))


def test_stored_fields(tmp_path: Path) -> None:
    field = NINE / NINE.mean()
    write_flat_field(tmp_path, field, LIGHT)
    assert (tmp_path / "flat-field_channel-3.npy").exists()
    assert np.array_equal(read_flat_field(tmp_path, LIGHT), field)
    assert np.array_equal(read_flat_field(tmp_path, LIGHT._replace(pixel_size_nm=None)), field)
    for change, line in (
        (lambda path: np.save(path, field[:5]), r"\(5, 128\) float64, expected floats \(96, 128\)"),
        (lambda path: np.save(path, field - 1), "not above 0"),
        (lambda path: path.write_bytes(b"no numpy"), "cannot be read as NPY"),
        (lambda path: path.unlink(), "no such file, expected the flat field of channel 3"),
    ):
        change(flat_field_path(tmp_path, 3))
        with pytest.raises(BadInput, match=line):
            read_flat_field(tmp_path, LIGHT)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"name": "RFP"}, "flat-field_channel-3.json: a flat field of channel GFP, expected RFP, channel 3"),
        ({"pixel_size_nm": (108.3, 216.6)}, r"pixels of \[108.3, 108.3\] nm \(y, x\), expected \[108.3, 216.6\]"),
        ({"size": (128, 96)}, r"expected floats \(128, 96\)"),
        ({"channel": 2}, "flat-field_channel-2.npy: no such file"),
    ],
)
def test_a_field_of_other_images(tmp_path: Path, other: dict, line: str) -> None:
    write_flat_field(tmp_path, NINE / NINE.mean(), LIGHT)
    with pytest.raises(BadInput, match=line):
        read_flat_field(tmp_path, LIGHT._replace(**other))


def test_microdls_fields_have_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_flat_field(tmp_path, NINE / NINE.mean(), LIGHT)
    record = flat_field_path(tmp_path, 3).with_suffix(".json")
    record.write_text("[]")
    with pytest.raises(BadInput, match=r"channel-3\.json: cannot be read"):
        read_flat_field(tmp_path, LIGHT)
    record.unlink()
    read_flat_field(tmp_path, LIGHT._replace(name="RFP"))
    assert "only the number tells that the field is that of RFP" in caplog.text
