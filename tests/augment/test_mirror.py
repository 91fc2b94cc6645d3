"""Mirrored and transposed axes."""

from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.resample import read_linear
from emsuite.augment.warp import Warp
from emsuite.common.geometry import Roi

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def draw(settings: MirrorTranspose, seed: int, shape=(4, 6, 6)):
    centre = (np.array(shape) - 1) / 2
    return settings.draw(Roi((0, 0, 0), shape), centre, np.random.default_rng(seed))


def test_all_orientations_come_equally_often_and_no_others():
    settings = MirrorTranspose(name="mirror_transpose", mirror=(0, 1, 2), transpose=(1, 2))
    volume = torch.arange(4 * 6 * 6).view(4, 6, 6).float()
    expected = {
        tuple(turned.flip([axis for axis in range(3) if mirror >> axis & 1]).flatten().tolist())
        for turned in (volume, volume.transpose(1, 2))
        for mirror in range(8)
    }
    box = Roi((0, 0, 0), volume.shape)
    read = [read_linear(volume, Warp().with_upstream(draw(settings, seed)), box, (0, 0, 0)) for seed in range(800)]
    seen = Counter(tuple(turned.flatten().tolist()) for turned in read)
    assert set(seen) == expected
    assert all(20 < count < 90 for count in seen.values())


@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 7, 7)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_without_diagonals_it_is_one_of_microdls_six(shape, device):
    """microDL's `BaseDataSet._augment_image`: as it is, np.fliplr, np.flipud, np.rot90 once, twice, three times."""
    settings = MirrorTranspose(name="mirror_transpose", mirror=(1, 2), transpose=(1, 2), diagonals=False)
    volume = torch.arange(float(np.prod(shape))).view(shape).to(device)
    image = volume.cpu().numpy()
    original = [image, image[:, :, ::-1], image[:, ::-1], *(np.rot90(image, k, axes=(1, 2)) for k in (1, 2, 3))]
    box = Roi((0, 0, 0), shape)
    seen = Counter()
    for seed in range(600):
        read = read_linear(volume, Warp().with_upstream(draw(settings, seed, shape)), box, (0, 0, 0))
        assert read.device.type == device
        seen[read.cpu().numpy().tobytes()] += 1
    assert set(seen) == {np.ascontiguousarray(turned).tobytes() for turned in original}
    assert all(65 < count < 140 for count in seen.values())


@pytest.mark.parametrize("axes", [{"mirror": (1, 2)}, {"mirror": (0, 1), "transpose": (1, 2)},
                                  {"mirror": (0, 1, 2), "transpose": (0, 1, 2)}])  # fmt: skip
def test_six_orientations_are_of_two_axes(axes):
    with pytest.raises(ValidationError, match="diagonals: false is for two axes, but mirror names"):
        MirrorTranspose(name="mirror_transpose", diagonals=False, **axes)


def test_axes_that_are_not_named_stay():
    settings = MirrorTranspose(name="mirror_transpose", mirror=(0,), transpose=())
    seen = {tuple(draw(settings, seed).matrix.flatten()) for seed in range(30)}
    assert seen == {(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 1, 0, 0, 0, 1)}


def test_three_axes_take_all_six_orders():
    settings = MirrorTranspose(name="mirror_transpose", mirror=(), transpose=(2, 0, 1))
    assert len({draw(settings, seed).matrix.tobytes() for seed in range(100)}) == 6


def test_odd_and_even_axes_are_exchanged_on_whole_voxels():
    settings = MirrorTranspose(name="mirror_transpose", transpose=(0, 1, 2))
    assert all(draw(settings, seed, (5, 8, 11)).only_permutes_axes for seed in range(50))


@pytest.mark.parametrize("wrong", [{"mirror": (3,)}, {"transpose": (1, 1)}, {"mirror": (-1,)}])
def test_axes_that_do_not_exist_or_come_twice_are_refused(wrong):
    with pytest.raises(ValidationError):
        MirrorTranspose(name="mirror_transpose", **wrong)
