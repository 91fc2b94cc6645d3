"""The cropped decoder of a same-padded network: its shapes on paper, its values against the whole pass."""

import pytest
import torch

from emsuite.models.crop import centre_crop
from emsuite.models.receptive_field import smallest_input
from emsuite.models.unet import UNet
from emsuite.models.unet_settings import Stem, UNetSettings
from emsuite.prediction.decoder_cropping import coarse_shapes, trimmed

FACTORS = ((2, 2, 2), (1, 2, 2))
SAME = UNetSettings(num_fmaps=4, fmap_inc_factor=2, downsample_factors=FACTORS, padding="same")
STEM = SAME.model_copy(update={"stem": Stem(kernel=(4, 4, 4), factor=(2, 2, 2))})


def test_shapes_on_paper() -> None:
    """For 8 kept, two 3x3x3 on level 0 need 12, which are 6 of level 1. Two there need 10, along y and x 5, or 6."""
    assert coarse_shapes(SAME, (40, 40, 40), (8, 8, 8)) == [(6, 6, 6), (10, 6, 6)]
    # 16 kept are 8 of level 0 behind a stem; of an odd number of voxels an odd number lies in the centre
    assert coarse_shapes(STEM, (80, 80, 80), (16, 16, 16)) == [(6, 6, 6), (10, 6, 6)]
    assert coarse_shapes(SAME, (44, 44, 44), (8, 8, 8)) == [(6, 6, 6), (10, 5, 5)]


def test_no_more_comes_up_than_there_is() -> None:
    assert coarse_shapes(SAME, (8, 8, 8), (8, 8, 8)) == [(4, 4, 4), (4, 2, 2)]


@pytest.mark.parametrize("settings", [SAME, STEM])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_centre_is_the_whole_pass_s(settings: UNetSettings, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    unet, x = UNet(settings).eval().to(precision), torch.randn((1, 1, 48, 64, 64)).to(precision)
    scale = settings.stem.factor[0] if settings.stem else 1
    with torch.inference_mode():
        whole = unet(x)
        for kept in ((8, 8, 16), (16, 24, 8), (48, 64, 64)):
            with trimmed(unet, x.shape[2:], kept):
                features = unet(x)
            inner = [n // scale for n in kept]
            expected = centre_crop(whole, inner)
            tolerance = {"rtol": 0.0, "atol": 0.0} if precision == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(centre_crop(features, inner), expected, **tolerance)
            assert kept == (48, 64, 64) or features.numel() < 0.5 * whole.numel()
        torch.testing.assert_close(unet(x), whole, rtol=0, atol=0)  # nothing stays behind


def test_valid_networks_stay_as_they_are() -> None:
    settings = SAME.model_copy(update={"padding": "valid"})
    unet, x = UNet(settings).eval(), torch.randn((1, 1, *smallest_input(settings)))
    with torch.inference_mode():
        with trimmed(unet, x.shape[2:], (2, 2, 2)):
            features = unet(x)
        assert torch.equal(features, unet(x))
