"""Prediction: tiles against one whole pass, the volume's border, bad raw, a killed run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from funlib.geometry import Roi

from emsuite import predict
from emsuite.errors import BadInput
from emsuite.network import Network
from emsuite.network_config import NetworkConfig
from emsuite.output import Output, output
from emsuite.volume import Volume, create_volume, open_volume

ANISOTROPIC = {"downsample_factors": [[1, 2, 2], [2, 3, 3]]}
STEM = {"downsample_factors": [[2, 2, 2]], "stem": {"kernel": [4, 4, 4], "factor": [2, 2, 2]}, "norm": "batch"}


def config(unet: dict, precision: str = "bfloat16") -> NetworkConfig:
    """A small network with both heads; voxels of 10 nm."""
    heads = {
        "lsds": {"target": "lsds", "sigma": 40},
        "affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
    }
    shape = [48, 48, 48]
    content = {"dataset": "d", "network": "n", "voxel_size": [10, 10, 10], "heads": heads}
    content |= {
        "unet": {"num_fmaps": 4, "fmap_inc_factor": 2} | unet,
        "prediction": {"input_shape": shape, "precision": precision},
    }
    content |= {"training": {"iterations": 1, "input_shape": shape, "sampling": {}}}
    return NetworkConfig.model_validate(content)


def network(unet: dict, precision: str = "bfloat16") -> Network:
    """Random weights, spread so that predictions are not all alike."""
    torch.manual_seed(1)
    made = Network(config(unet, precision)).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for parameter in made.heads.parameters():
        parameter.data.mul_(3)
    return made


def volume(path: Path, shape: tuple[int, ...], offset: tuple[int, ...] = (0, 0, 0)) -> Volume:
    """Random raw."""
    made = create_volume(path / "raw.zarr/raw", shape, np.uint8, (10, 10, 10), offset)
    made.array[...] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return open_volume(made.path)


def run(made: Network, raw: Volume, out: Path, largest: tuple[int, ...], roi: Roi | None = None) -> dict:
    """Predict and read everything back."""
    predictor = predict.make_predictor(made, torch.device("cpu"), largest, raw, roi or raw.roi)
    with output(out, {"tile": largest}) as unfinished:
        predict.predict_volume(predictor, raw, roi or raw.roi, unfinished)
    return {name: open_volume(out / name) for name in ("affs", "lsds")}


DEEP = STEM | {"downsample_factors": [[2, 2, 2], [2, 2, 2]], "padding": "same"}


@pytest.mark.parametrize("unet", [ANISOTROPIC, STEM, DEEP, ANISOTROPIC | {"padding": "same"}])
def test_tiles_equal_one_whole_pass_voxel_for_voxel(tmp_path: Path, unet: dict) -> None:
    raw = volume(tmp_path, (37, 50, 61))
    made = network(unet)
    whole = run(made, raw, tmp_path / "whole.zarr", (500, 500, 500))
    small = made.reach.input_for([4 * s for s in made.reach.stride])
    stitched = run(made, raw, tmp_path / "stitched.zarr", small)
    for name in ("affs", "lsds"):
        assert whole[name].shape[1:] == raw.shape
        assert whole[name].read().std() > 1
        np.testing.assert_array_equal(stitched[name].read(), whole[name].read())


def test_in_float32_tiles_equal_the_whole_pass_but_for_the_order_of_sums(tmp_path: Path) -> None:
    raw = volume(tmp_path, (37, 50, 61))
    made = network(ANISOTROPIC, "float32")
    whole = run(made, raw, tmp_path / "whole.zarr", (500, 500, 500))["affs"].read()
    stitched = run(made, raw, tmp_path / "stitched.zarr", (60, 60, 60))["affs"].read()
    difference = np.abs(stitched.astype(int) - whole)
    assert difference.max() <= 1  # a float32 sum in another order, next to where uint8 rounds
    assert (difference > 0).mean() < 2e-4


def test_the_inside_equals_the_network_applied_by_hand(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC, "float32"), volume(tmp_path, (40, 60, 66))
    predicted = run(made, raw, tmp_path / "p.zarr", (500, 500, 500))["affs"].read()
    shape = made.reach.largest_within(raw.shape)
    x = torch.from_numpy(raw.read()).float()[None, None, : shape[0], : shape[1], : shape[2]] / 127.5 - 1
    with torch.no_grad():
        expected = (torch.sigmoid(made(x)["affs"])[0] * 255).round().numpy()
    inside = tuple(slice(o, o + n) for o, n in zip(made.reach.offset, expected.shape[1:], strict=True))
    difference = np.abs(predicted[:, *inside].astype(int) - expected)
    assert difference.max() <= 1  # float32 sums in another order may round the other way
    assert (difference > 0).mean() < 1e-3


def test_a_region_equals_the_same_region_of_the_whole(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66), (100, 0, 50))
    whole = run(made, raw, tmp_path / "whole.zarr", (60, 60, 60))["affs"]
    roi = Roi((170, 110, 220), (130, 310, 190))
    part = run(made, raw, tmp_path / "part.zarr", (60, 60, 60), roi)["affs"]
    assert part.roi == roi
    np.testing.assert_array_equal(part.read(), whole.read(roi))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 90, 4)])
def test_volumes_smaller_than_a_tile_are_predicted_whole(tmp_path: Path, shape: tuple[int, ...]) -> None:
    predicted = run(network(ANISOTROPIC), volume(tmp_path, shape), tmp_path / "p.zarr", (48, 48, 48))
    assert predicted["affs"].shape == (3, *shape)
    assert predicted["lsds"].shape == (10, *shape)


def test_the_valid_part_leaves_the_context_out(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66), (100, 0, 50))
    valid = predict.valid_roi(made, raw, raw.roi)
    assert tuple(valid.shape / raw.voxel_size) == tuple(
        n - c for n, c in zip(raw.shape, made.reach.context, strict=True)
    )
    inside = Roi(valid.offset, (10, 10, 10))
    assert predict.valid_roi(made, raw, inside.grow((500, 500, 500), (0, 0, 0))) == inside
    small = volume(tmp_path / "small", (10, 60, 66))
    with pytest.raises(BadInput, match="no more than the network's context"):
        predict.valid_roi(made, small, small.roi)
    with pytest.raises(BadInput, match=r"nothing of .* has real context"):
        predict.valid_roi(made, raw, Roi(raw.offset, (20, 20, 20)))


def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, raw, largest = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66)), (60, 60, 60)
    expected = run(made, raw, tmp_path / "whole.zarr", largest)
    predicted_tiles = []
    original = predict._predict_tile

    def stop_at_the_fourth(*arguments: object) -> None:
        predicted_tiles.append(arguments)
        if len(predicted_tiles) == 4:
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(predict, "_predict_tile", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(made, raw, tmp_path / "stopped.zarr", largest)
    with pytest.raises(BadInput, match="unfinished"):
        open_volume(tmp_path / "stopped.zarr/affs")
    monkeypatch.setattr(predict, "_predict_tile", lambda *a: predicted_tiles.append(a) or original(*a))
    continued = run(made, raw, tmp_path / "stopped.zarr", largest)
    predictor = predict.make_predictor(made, torch.device("cpu"), largest, raw, raw.roi)
    tiles = list(predict.tiles.grid(made.reach, predictor.input_shape, (0, 0, 0), raw.shape))
    assert len(predicted_tiles) == len(tiles) + 1  # the stopped one twice, no other again
    for name, array in expected.items():
        np.testing.assert_array_equal(continued[name].read(), array.read())


def test_raw_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="voxel size"):
        predict.check_raw(volume(tmp_path, (8, 8, 8)), (40, 4, 4))
    four = create_volume(tmp_path / "v.zarr/four", (3, 8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0))
    with pytest.raises(BadInput, match="4 axes"):
        predict.check_raw(four, (10, 10, 10))
    labels = create_volume(tmp_path / "v.zarr/labels", (8, 8, 8), np.uint64, (10, 10, 10), (0, 0, 0))
    with pytest.raises(BadInput, match="uint64"):
        predict.check_raw(labels, (10, 10, 10))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "holds NaN"), (np.inf, "to inf"), (-0.1, "from -0.1 to")])
def test_floats_that_are_no_grey_values_are_refused(tmp_path: Path, value: float, message: str) -> None:
    raw = create_volume(tmp_path / "raw.zarr/raw", (20, 20, 20), np.float32, (10, 10, 10), (0, 0, 0))
    raw.array[...] = 0.5
    made = run(network(ANISOTROPIC), raw, tmp_path / "good.zarr", (48, 48, 48))
    raw.array[19, 18, 17] = value
    with pytest.raises(BadInput, match=f"raw.zarr/raw: holds .*{message.removeprefix('holds ')}"):
        run(network(ANISOTROPIC), raw, tmp_path / "p.zarr", (48, 48, 48))
    assert made["affs"].read().any()
    assert not (tmp_path / "p.zarr.manifest.json").exists()


def test_a_network_that_yields_nan_fails_and_leaves_nothing_whole(tmp_path: Path) -> None:
    made = network(ANISOTROPIC)
    made.heads["affs"].bias.data.fill_(torch.nan)
    raw = volume(tmp_path, (20, 20, 20))
    with pytest.raises(predict.RunFailed, match="NaN"):
        run(made, raw, tmp_path / "p.zarr", (48, 48, 48))
    assert not (tmp_path / "p.zarr.manifest.json").exists()


def test_predictions_clip_and_never_wrap() -> None:
    out = predict._to_uint8("affs", torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1]))
    assert out.tolist() == [0, 0, 128, 255, 255]


def test_arrays_carry_their_place(tmp_path: Path) -> None:
    raw = volume(tmp_path, (12, 13, 14), (70, 80, 90))
    predictor = predict.make_predictor(network(ANISOTROPIC), torch.device("cpu"), (48, 48, 48), raw, raw.roi)
    (tmp_path / "p.zarr").mkdir()
    predict.predict_volume(predictor, raw, raw.roi, Output(tmp_path / "p.zarr", False))
    affs = open_volume(tmp_path / "p.zarr/affs")
    assert dict(affs.array.attrs) == {
        "voxel_size": [10, 10, 10],
        "resolution": [10, 10, 10],
        "offset": [70, 80, 90],
        "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    }
