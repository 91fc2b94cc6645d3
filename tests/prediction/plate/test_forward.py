"""One volume: whole, in tiles that equal the whole, and the mean over mirrored and turned copies."""

from typing import Any

import numpy as np
import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.models.network import Network
from emsuite.models.unet_settings import UNetSettings
from emsuite.prediction.plate.forward import COPIES, ImagePredictor, Tiles, check_tiles
from emsuite.targets.heads import ImageHead

CPU = torch.device("cpu")
FLAT, DEEP = [1, 3, 3], [3, 3, 3]
KINDS: dict[str, dict[str, Any]] = {
    "2-D": {"downsample_factors": [[1, 2, 2]], "padding": "same", "kernel_sizes_down": [[FLAT], [FLAT]],
            "kernel_sizes_up": [[FLAT]]},
    "2-D valid": {"downsample_factors": [[1, 2, 2]], "kernel_sizes_down": [[FLAT], [FLAT]],
                  "kernel_sizes_up": [[FLAT]]},
    "2.5-D": {"downsample_factors": [[1, 2, 2]], "padding": "same_in_plane",
              "kernel_sizes_down": [[DEEP, DEEP], [FLAT]], "kernel_sizes_up": [[FLAT]]},
    "3-D": {"downsample_factors": [[2, 2, 2]], "padding": "same", "kernel_sizes_down": [[DEEP], [DEEP]],
            "kernel_sizes_up": [[DEEP]], "upsample": "bilinear"},
    "3-D valid": {"downsample_factors": [[2, 2, 2]], "kernel_sizes_down": [[DEEP], [DEEP]],
                  "kernel_sizes_up": [[DEEP]]},
}  # fmt: skip
HEADS = {"image": ImageHead(target="image", target_channels=(0, 1))}


def predictor(kind: str, **options: Any) -> ImagePredictor:
    torch.manual_seed(3)
    network = Network(UNetSettings(num_fmaps=4, fmap_inc_factor=2, **KINDS[kind]), 2, {"image": 2})
    return ImagePredictor(network.eval(), HEADS, CPU, **options)


def image(shape: tuple[int, ...] = (7, 37, 50)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_keeps_its_size(kind: str) -> None:
    mean, variance = predictor(kind)(image())
    assert mean.shape == variance.shape == (2, 7, 37, 50)
    assert mean.dtype == variance.dtype == np.float32
    assert not variance.any()


def test_the_inside_of_an_image_is_the_networks_output() -> None:
    given, of = image((5, 20, 24)), predictor("2.5-D")
    with torch.no_grad():
        expected = of.network(torch.from_numpy(given)[None])["image"][0].numpy()
    np.testing.assert_allclose(of(given)[0][:, 2:3], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blend", ["linear", "gaussian"])
def test_tiles_equal_a_whole_pass_corners_too(kind: str, blend: str) -> None:
    whole = predictor(kind)(image())[0]
    tiles = predictor(kind, tiles=Tiles((3, 16, 20), (1, 4, 6), blend))(image())[0]
    np.testing.assert_allclose(tiles, whole, atol=1e-5)


@pytest.mark.parametrize("copies", COPIES)
def test_the_mean_over_copies_is_that_of_predictions_turned_back(copies: str) -> None:
    given, single = image((2, 16, 24)), predictor("2-D")
    several = []
    for turns, is_mirrored in COPIES[copies]:
        copy = given[..., ::-1] if is_mirrored else given
        back = np.rot90(single(np.ascontiguousarray(np.rot90(copy, turns, (2, 3))))[0], -turns, (2, 3))
        several.append(back[..., ::-1] if is_mirrored else back)
    mean, variance = predictor("2-D", copies=copies)(given)
    np.testing.assert_allclose(mean, np.mean(several, axis=0), atol=1e-6)
    np.testing.assert_allclose(variance, np.var(several, axis=0), atol=1e-6)
    square = np.arange(4).reshape(2, 2)
    seen = {str(np.rot90(square[:, ::-1] if is_mirrored else square, turns)) for turns, is_mirrored in COPIES[copies]}
    assert len(seen) == len(COPIES[copies])


def test_a_mirrored_image_has_a_mirrored_mean_over_all_copies() -> None:
    given, of = image((1, 16, 16)), predictor("2-D", copies="rotations")
    np.testing.assert_allclose(of(given[..., ::-1].copy())[0], of(given)[0][..., ::-1], atol=1e-6)


def test_tiles_may_measure_themselves() -> None:
    given = image((1, 16, 16))
    own = predictor("2-D", measures=("z_score", (1.0, 99.0)))
    np.testing.assert_allclose(own(given * 50 + 300)[0], own(given)[0], atol=1e-4)


@pytest.mark.parametrize("overlap", [(0, 16, 0), (0, -1, 0)])
def test_an_overlap_that_is_no_smaller_than_a_tile_is_refused(overlap: tuple[int, int, int]) -> None:
    with pytest.raises(BadInput, match="expected fewer voxels than a tile"):
        check_tiles(Tiles((1, 16, 16), overlap))
