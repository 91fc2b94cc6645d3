"""The scale of a domain's values, by closed forms."""

import math

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.data.grey_values import GreyRange
from emsuite.data.transfer.statistics import DomainStatistics, Moments, measure_samples, measure_voxels


def signed(raw: torch.Tensor) -> torch.Tensor:
    """What transfer_em does first: uint8 / 127.5 - 1, in float64."""
    return raw.double() / 127.5 - 1


def test_all_voxels_of_all_boxes_count_alike() -> None:
    boxes = [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in ((3, 40, 50), (17, 20, 9), (1, 1, 1))]
    values = torch.cat([signed(box).flatten() for box in boxes])
    mean, std = measure_voxels(boxes, "a")
    assert mean == pytest.approx(float(values.mean()), abs=1e-7)
    assert std == pytest.approx(float(values.std(correction=0)), abs=1e-7)


def test_statistics_of_samples_leave_out_the_variance_between_samples() -> None:
    """Two samples of 0 / 102 and of 204 / 255: means -0.6 and 0.8, standard deviations 0.4 and 0.2."""
    raw = torch.tensor([0, 102, 204, 255], dtype=torch.uint8).reshape(1, 1, 4).repeat(2, 2, 1)
    mean, std = measure_samples([raw], (2, 2, 2), "a")
    assert mean == pytest.approx(0.1, abs=1e-6)
    assert std == pytest.approx(math.sqrt((0.4**2 + 0.2**2) / 2), abs=1e-6)
    assert measure_voxels([raw], "a")[1] == pytest.approx(math.sqrt((0.4**2 + 0.2**2) / 2 + 0.7**2), abs=1e-6)


def test_samples_for_statistics_are_whole_tiles_from_the_corner() -> None:
    raw = torch.full((2, 3, 5), 255, dtype=torch.uint8)
    raw[:, :2, :4] = torch.randint(0, 256, (2, 2, 4))
    other = torch.zeros((1, 2, 2), dtype=torch.uint8)  # smaller than a sample
    assert measure_samples([raw, other], (2, 2, 2), "a") == measure_samples([raw[:, :2, :4]], (2, 2, 2), "a")
    with pytest.raises(BadInput, match=r"domain a: no box holds a sample of \(2, 2, 2\) voxels"):
        measure_samples([other], (2, 2, 2), "domain a")


def test_moments_of_pieces_are_those_of_all() -> None:
    values, moments = torch.randn(1000).double() * 3 + 1e6, Moments()
    for piece in values.split([1, 0, 499, 500]):
        moments.add(piece)
    assert moments.number == 1000
    assert moments.mean == pytest.approx(float(values.mean()), rel=1e-14)
    assert moments.variance == pytest.approx(float(values.var(correction=0)), rel=1e-9)


def test_normalized_values_have_mean_0_and_deviation_1() -> None:
    raw = torch.randint(20, 200, (10, 30, 30), dtype=torch.uint8)
    normalized = DomainStatistics(*measure_voxels([raw], "a")).normalized(raw)
    assert normalized.dtype == torch.float32
    assert float(normalized.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalized.std(correction=0)) == pytest.approx(1, abs=1e-5)
    expected = (signed(raw) - signed(raw).mean()) / signed(raw).std(correction=0)
    assert torch.allclose(normalized.double(), expected, atol=1e-5)


@pytest.mark.parametrize("statistics", [DomainStatistics(), DomainStatistics(-0.3, 0.21), DomainStatistics(0.9, 4.0)])
def test_restoring_undoes_normalizing_for_each_grey_value(statistics: DomainStatistics) -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(statistics.restored(statistics.normalized(raw)), raw)
    assert torch.equal(statistics.restored(statistics.normalized(raw / 255)), raw)


def test_restored_values_are_rounded_and_clipped_where_the_original_wraps() -> None:
    values = torch.tensor([-9.0, -1.001, -1.0, -0.997, 1.0, 1.01, 9.0, 127.6 / 127.5 - 1, 127.4 / 127.5 - 1])
    assert DomainStatistics().restored(values).tolist() == [0, 0, 0, 0, 255, 255, 255, 128, 127]
    assert DomainStatistics().restored(torch.tensor([math.inf, -math.inf])).tolist() == [255, 0]


def test_statistics_of_one_grey_value_are_refused() -> None:
    with pytest.raises(BadInput, match="domain b: all its voxels are alike"):
        measure_voxels([torch.full((3, 3, 3), 7, dtype=torch.uint8)], "domain b")


def test_what_a_checkpoint_stores_is_read_back() -> None:
    for statistics in (DomainStatistics(0.1, 0.2), DomainStatistics(0.1, 0.2, GreyRange(3, 4000))):
        assert DomainStatistics.from_dict(statistics.as_dict()) == statistics
    whole = {"mean": 0, "std": 1, "grey_range": None}
    for odd in ({}, whole | {"std": 0}, whole | {"mean": "x"}, whole | {"grey_range": [1]}, whole | {"mean": math.nan}):
        with pytest.raises(BadInput, match="statistics of a domain"):
            DomainStatistics.from_dict(odd)
