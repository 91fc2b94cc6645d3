"""The baselines: lines that are known, NumPy's least squares, and images as they are."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.images.baselines import fit_lines, score_baselines
from emsuite.evaluation.images.pairs import Chosen, Pairs
from emsuite.evaluation.images.scores import means
from plates_to_score import CHANNELS, target_and_prediction, voxels_of, write_plate


def in_order(function, places):
    return [function(place) for place in places]


def test_a_target_that_is_a_line_of_the_input(tmp_path: Path) -> None:
    target, predicted = target_and_prediction(tmp_path, 2)
    pairs = Pairs.of(predicted, target, Chosen())
    nuclei, membranes = fit_lines(pairs, pairs.target.positions)
    assert nuclei.constant == pytest.approx(-50, abs=0.01)
    assert nuclei.factors == pytest.approx([3], abs=1e-4)
    values = np.stack([voxels_of(n) for n in range(2)])
    phase, other = values[:, :, 0].ravel().astype(float), values[:, :, 2].ravel().astype(float)
    reference = np.polyfit(phase, other, 1)
    assert (membranes.factors[0], membranes.constant) == pytest.approx(tuple(reference), rel=1e-5)
    scored = score_baselines(pairs, [nuclei, membranes], "xy", ("r2", "pearson"), in_order)
    assert list(scored) == ["linear", "identity phase"]
    first = {name: means([s for s in scores if s.where.channel == 0]) for name, scores in scored.items()}
    assert first["linear"]["r2"] == pytest.approx(1, abs=1e-6)
    assert first["identity phase"]["pearson"] == pytest.approx(1, abs=1e-6)
    assert first["identity phase"]["r2"] < 0


def test_two_inputs_and_only_the_positions_to_fit_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {}
    for number, (a, b) in enumerate([(2, -1), (9, 9)]):
        x, y = rng.normal(1000, 20, (2, 1, 2, 8, 8))
        images[f"A/1/{number}"] = np.stack([x, y, a * x + b * y + 7], axis=1).astype(np.float32)
    images["A/1/2"] = images["A/1/0"].copy()
    images["A/1/2"][:, 2, 0] = 0  # a slice without light
    images["A/1/3"] = np.zeros_like(images["A/1/0"])
    target = write_plate(tmp_path / "t.zarr", images, CHANNELS)
    predicted = write_plate(tmp_path / "p.zarr", {n: v[:, 2:] for n, v in images.items()}, CHANNELS[2:])
    pairs = Pairs.of(predicted, target, Chosen())
    (line,) = fit_lines(pairs, ["A/1/0", "A/1/2", "A/1/3"])
    assert line.factors == pytest.approx([2, -1], abs=1e-3)
    assert line.constant == pytest.approx(7, abs=1.0)
    np.testing.assert_allclose(line.predict(images["A/1/0"][0, :2]), images["A/1/0"][0, 2], atol=0.01)
    with pytest.raises(BadInput, match=r"t.zarr, channel membranes: all images are constant, expected some with light"):
        fit_lines(pairs, ["A/1/3"])
