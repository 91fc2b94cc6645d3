"""Predictions of domain transfer: one direction, without a seam, in the grey values of the other domain."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders import ROOT, command_of
from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.io.volume import open_volume
from emsuite.prediction.serving.model import Model
from emsuite.training.resume import start, start_or_resume
from emsuite.training.trainer import train
from emsuite.training.transfer.trained import load_for_prediction
from emsuite.training.volumes import load_training_data
from small_transfer import write_padded, write_valid

CPU = torch.device("cpu")


def trained(folder: Path, *overrides: str) -> Path:
    config = load_network(folder, overrides)
    train(folder, config, load_training_data(config, [], folder), 2, CPU)
    return folder


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(write_valid(tmp_path_factory.mktemp("valid") / "n"))


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    margin = {"generator": {"kind": "resnet", "width": 2, "blocks": 1, "tile_margin": [0, 8, 8]}}
    return trained(write_padded(tmp_path_factory.mktemp("padded") / "n", margin, ("mask",), training={"average": 0.9}))


def call(folder: Path, out: Path, domain: str, *words: str) -> int:
    """The exit code of `predict.py` for the volume of a domain."""
    raw = folder.parent / f"data/{domain}.zarr/volumes/raw"
    arguments = [str(folder), "--raw", str(raw), "--out", str(out), "--device", "cpu", *words]
    with pytest.raises(SystemExit) as ended:
        command_of(ROOT / "03_predict/predict.py").main(arguments)
    return int(ended.value.code or 0)


def predict(folder: Path, out: Path, domain: str, *words: str) -> np.ndarray:
    assert call(folder, out, domain, *words) == 0
    return open_volume(out / "image").read()


def whole(folder: Path, domain: str, direction: str) -> np.ndarray:
    """The image of a whole volume in one pass, its border mirrored, restored by hand."""
    made = load_for_prediction(folder, load_network(folder), None, direction)  # type: ignore[arg-type]
    raw = open_volume(folder.parent / f"data/{domain}.zarr/volumes/raw").read()
    stored = made.checkpoint.domains
    assert stored is not None
    source, target = (DomainStatistics.from_dict(stored[name.lower()]) for name in direction.split("2"))
    around = np.pad(raw, ((0, 0), (20, 26), (20, 26)), mode="reflect")[:, :122, :122]
    x = source.normalized(torch.from_numpy(around))[None, None]
    with torch.inference_mode():
        image = made.network.eval()(x)["image"][0, 0, :, 3:83, 3:83]
    return target.restored(image).numpy()


def test_tiles_of_valid_generators_equal_one_pass(valid: Path, tmp_path: Path) -> None:
    for tile in ("[1,58,74]", "[2,78,58]"):
        name = tmp_path / f"{tile[1]}.zarr"
        stitched = predict(valid, name, "a", "--direction", "A2B", "--set", f"prediction.input_shape={tile}")
        expected = whole(valid, "a", "A2B")
        assert stitched.shape == (1, 6, 80, 80)
        assert stitched.dtype == np.uint8
        assert np.abs(stitched[0].astype(int) - expected).max() <= 1  # a sum rounds as its tile is laid out
        assert (stitched[0] == expected).mean() > 0.99
    assert open_volume(name / "image").voxel_size == open_volume(valid.parent / "data/a.zarr/volumes/raw").voxel_size


def test_directions_are_different_networks_and_scales(
    valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = predict(valid, tmp_path / "there.zarr", "b", "--direction", "B2A")
    assert np.abs(there[0].astype(int) - whole(valid, "b", "B2A")).max() <= 1
    assert call(valid, tmp_path / "none.zarr", "a") == 2
    assert "expected --direction A2B or --direction B2A" in capsys.readouterr().err
    other = predict(valid, tmp_path / "there.zarr", "b", "--direction", "A2B")  # other settings: not kept, made anew
    assert (there != other).mean() > 0.5


def test_grey_values_are_clipped_and_never_wrap(valid: Path) -> None:
    config = load_network(valid)
    made = load_for_prediction(valid, config, None, "A2B")
    network = made.network.eval()
    for weight in network.get_submodule("heads.image").parameters():
        weight.detach().mul_(1e6)
    model = Model("n", network, config, CPU, 2, "", made.reads)
    raw = model.block(open_volume(valid.parent / "data/a.zarr/volumes/raw").read())
    image = model.predict(raw, raw.roi)["image"][0, :, 21:59, 21:59]
    source, target = made.reads.scales
    assert source is not None
    assert target is not None
    x = source.apply(torch.from_numpy(raw.read()).float() / 255)[None, None, :, 1:79, 1:79]
    with torch.inference_mode():
        grey = 255 * target.undo(network(x)["image"])[0, 0, :, 3:41, 3:41].numpy()
    for outside, stored in ((grey > 256, 255), (grey < -1, 0)):
        assert outside.sum() > 100
        assert set(np.unique(image[outside])) == {stored}


def test_norms_within_a_tile_are_blended_by_themselves(padded: Path, tmp_path: Path) -> None:
    image = predict(
        padded, tmp_path / "out.zarr", "a", "--direction", "A2B", "--set", "prediction.input_shape=[1,48,48]"
    )
    linear = predict(padded, tmp_path / "linear.zarr", "a", "--direction", "A2B", "--blend", "linear", "--set",
                     "prediction.input_shape=[1,48,48]")  # fmt: skip
    np.testing.assert_array_equal(image, linear)
    assert image.std() > 0


def test_heads_of_b_come_with_the_way_back(padded: Path, tmp_path: Path) -> None:
    words = (
        "--direction",
        "B2A",
        "--set",
        "prediction.heads=[image,mask]",
        "--set",
        "prediction.input_shape=[1,48,48]",
    )
    predict(padded, tmp_path / "out.zarr", "b", *words)
    assert open_volume(tmp_path / "out.zarr/mask").shape == (1, 6, 80, 80)


def test_the_average_predicts(padded: Path) -> None:
    config = load_network(padded, ["training.average=0.9"])
    made = load_for_prediction(padded, config, None, "A2B")
    for name, tensor in made.network.state_dict().items():
        torch.testing.assert_close(tensor, made.checkpoint.averages["a2b"][name])
    assert start_or_resume(padded, config, CPU).iteration == 2
    assert start(padded, config, CPU).iteration == 0


@pytest.mark.parametrize("form", ["valid", "padded"])
def test_a_served_generator_gives_what_prediction_writes(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(form)
    overrides = ["prediction.input_shape=[1,48,48]" if form == "padded" else "prediction.input_shape=[1,58,58]"]
    config = load_network(folder, overrides)
    made = load_for_prediction(folder, config, None, "A2B")
    model = Model("n A2B", made.network.eval(), config, CPU, made.iteration, made.digest, made.reads)
    raw = model.block(open_volume(folder.parent / "data/a.zarr/volumes/raw").read())
    served = model.predict(raw, raw.roi)["image"]
    assert model.describe()["heads"]["image"] == {"channels": 1, "dtype": "uint8"}
    written = predict(folder, tmp_path / "out.zarr", "a", "--direction", "A2B", "--set", overrides[0])
    assert np.abs(served.astype(int) - written).max() <= 1
    assert served.dtype == np.uint8


def test_a_supervised_network_has_no_direction(tmp_path: Path) -> None:
    folder = ROOT / "02_train/fib25/small"
    with pytest.raises(BadInput, match="is no network of domain transfer"):
        load_for_prediction(folder, load_network(folder), None, "A2B")
