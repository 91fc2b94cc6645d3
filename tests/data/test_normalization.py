"""Grey values to the range of the network, and back."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emsuite.data.normalization import GreyScale, Normalization, normalized, stack_scales, to_unit_range


def test_the_published_range_on_paper() -> None:
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert normalized(raw).tolist() == pytest.approx([-1, -0.6, 1])
    assert to_unit_range(raw).tolist() == pytest.approx([0, 0.2, 1])
    assert torch.equal(normalized(torch.tensor([0.25], dtype=torch.float16)), torch.tensor([-0.5]))


def test_all_ways_to_the_published_range_give_the_same_bits() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    scale = Normalization().fixed
    assert scale is not None
    assert torch.equal(normalized(raw), scale.apply(to_unit_range(raw)))
    assert torch.equal(normalized(raw), to_unit_range(raw) * 2.0 - 1.0)


@pytest.mark.parametrize("method", ["signed_unit_range", "unit_range", "z_score", "percentile"])
def test_what_is_normalized_can_be_undone(method: str) -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    scale = Normalization(method=method).measure(values)
    torch.testing.assert_close(scale.undo(scale.apply(values)), values, atol=1e-6, rtol=0)


def test_z_scores_and_percentiles_are_numpys() -> None:
    values = torch.rand(5000, generator=torch.Generator().manual_seed(1)) ** 2
    scores = Normalization(method="z_score").measure(values).apply(values).numpy()
    np.testing.assert_allclose(scores, (values - values.mean()).numpy() / values.numpy().std(), atol=1e-4)
    low, high = np.percentile(values.numpy(), [5, 90])
    scale = Normalization(method="percentile", percentiles=(5, 90)).measure(values)
    assert scale.apply(torch.tensor([low, high])).tolist() == pytest.approx([-1, 1], abs=1e-4)


def test_a_constant_image_stays_finite() -> None:
    for method in ("z_score", "percentile"):
        scale = Normalization(method=method).measure(torch.full((10,), 0.5))
        assert abs(float(scale.apply(torch.tensor(0.5)))) <= 1


def test_samples_and_volumes_are_measured_apart() -> None:
    batch = torch.stack([torch.full((1, 2, 3, 4), 0.25), torch.linspace(0, 1, 24).view(1, 2, 3, 4)])
    z_score = Normalization(method="z_score", scope="tile")
    scores = z_score.measure_samples(batch).apply(batch)
    assert scores[0].abs().max() == 0
    assert scores[1].mean().item() == pytest.approx(0, abs=1e-6)
    volumes = [torch.zeros(50, 4, 4, dtype=torch.uint8), torch.full((50, 4, 4), 255, dtype=torch.uint8)]
    together = z_score.measure_volumes(volumes)
    assert (together.gain, together.shift) == pytest.approx((2, -1))
    stacked = stack_scales([GreyScale(2.0, -1.0), GreyScale(1.0, 0.0)], batch)
    assert torch.equal(stacked.apply(batch)[1], batch[1])
    assert Normalization().measure_samples(batch) == GreyScale(2.0, -1.0)


def test_percentiles_must_ascend() -> None:
    with pytest.raises(ValidationError, match="expected the lower one first"):
        Normalization(percentiles=(99, 1))
