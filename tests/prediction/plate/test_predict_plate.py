"""Plates predicted: grey values, every format, the same bytes after a stop and on several threads, what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import files_in, lose_a_chunk
from emsuite.common.errors import BadInput
from emsuite.common.outputs import read_manifest
from emsuite.config.network import build_network, load_network
from emsuite.models.network import Network
from emsuite.plates.plate import open_plate
from emsuite.plates.statistics import GreyScale, read_statistics
from emsuite.prediction.plate import predict_plate as module
from emsuite.prediction.plate.formats import PlateOutput, png_scale
from emsuite.prediction.plate.forward import Tiles
from emsuite.prediction.plate.predict_plate import Asked, plate_prediction
from emsuite.prediction.plate.source import Channel, PlateSource
from killed import Killed
from preprocessed_plate import HEADS, UNET, write_network, write_plate

CPU = torch.device("cpu")
TO_VECTOR = {key: value for key, value in UNET.items() if key != "kernel_sizes_up"} | {"output": "vector"}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"))


@pytest.fixture
def recorded(ready: Path) -> dict[str, Any]:
    rows = [row for row in read_statistics(ready / "statistics.csv") if row.scope == "dataset"]
    channels = {n: [row.mean, row.std] for n, row in zip(("phase", "nuclei", "membranes"), rows, strict=True)}
    return {"method": "z_score", "scope": "dataset", "percentiles": [1.0, 99.0], "channels": channels}


@pytest.fixture
def predict(tmp_path: Path, ready: Path, recorded: dict[str, Any]) -> Callable[..., Path]:
    config = load_network(write_network(tmp_path / "d/n", ready))
    torch.manual_seed(0)
    network = build_network(config)

    def run(name: str = "out.zarr", workers: int = 1, plate: Path = ready, **options: Any) -> Path:
        asked = Asked(plate, tmp_path / name, **options)
        made = plate_prediction(config, network, options.pop("recorded", recorded), CPU, asked)
        made.write(asked.settings(config), {"plate": plate}, workers)
        return tmp_path / name

    return run


def all_voxels(plate: Path) -> np.ndarray:
    opened = open_plate(plate)
    counts = opened.shape(opened.positions[0])
    return np.stack([[[opened.read(p, t, c) for c in range(counts[1])] for t in range(counts[0])]
                     for p in opened.positions])  # fmt: skip


def test_a_prediction_is_a_plate_with_the_positions_of_its_input_in_grey_values(predict, ready, recorded) -> None:
    out = open_plate(predict())
    source = open_plate(ready / "plate.zarr")
    assert out.positions == source.positions
    assert out.channels == ("nuclei", "membranes")
    assert out.dtype == np.float32
    assert out.shape("A/1/0") == (2, 2, 3, 48, 48)
    mean, deviation = recorded["channels"]["nuclei"]
    assert abs(out.read("A/1/0", 0, 0).mean() - mean) < 3 * deviation


def test_values_are_the_networks_undone(tmp_path, ready, recorded, predict) -> None:
    config = load_network(tmp_path / "d/n")
    torch.manual_seed(0)
    network = build_network(config).eval()
    assert isinstance(network, Network)
    mean, deviation = recorded["channels"]["phase"]
    grey = open_plate(ready / "plate.zarr").read("A/1/0", 1, 0)
    with torch.no_grad():
        given = torch.from_numpy((grey - mean) / deviation).float()[None, None]
        expected = network(given)["image"][0, 1].numpy() * recorded["channels"]["membranes"][1]
    found = open_plate(predict()).read("A/1/0", 1, 1)
    np.testing.assert_allclose(found, expected + recorded["channels"]["membranes"][0], rtol=1e-4)


@pytest.mark.parametrize("kind", ["tiff", "npy", "png"])
def test_frames_hold_what_the_plate_holds(predict, kind: str) -> None:
    zarr, frames = all_voxels(predict()), all_voxels(predict("frames", format=kind))
    assert frames.shape == zarr.shape
    if kind == "png":
        scale = json.loads((predict("frames", format=kind) / "scale.json").read_text())["channels"]
        zero, step = (np.array([scale[n][k] for n in ("nuclei", "membranes")])[:, None, None, None]
                      for k in ("zero", "step"))  # fmt: skip
        assert np.abs(frames * step + zero - zarr).max() <= 0.5 * step.max() + 1e-3
    else:
        np.testing.assert_array_equal(frames, zarr)


@pytest.mark.parametrize(
    ("scale", "is_variance", "expected"),
    [
        ((1000.0, 300.0), False, (0.0, 1.0)),
        ((0.2, 0.1), False, (0.2 - 0.8, 1.6 / 65535)),
        ((60_000.0, 1000.0), False, (52_000.0, 16_000 / 65535)),
        ((0.0, 1.0), False, (0.0, 1 / 65535)),
        ((1000.0, 300.0), True, (0.0, 2400.0**2 / 65535)),
    ],
)
def test_pixels_of_png_are_never_stretched_image_by_image(scale, is_variance, expected) -> None:
    assert png_scale(Channel("a", GreyScale(*scale), is_variance)) == pytest.approx(expected)


def test_copies_add_a_variance_in_squared_grey_values(predict) -> None:
    out = open_plate(predict(copies="flips", variance=True))
    assert out.channels == ("nuclei", "membranes", "nuclei_variance", "membranes_variance")
    assert out.read("A/1/0", 0, 2).min() >= 0
    assert out.read("A/1/0", 0, 2).max() > 0


@pytest.mark.parametrize("kind", ["zarr", "png"])
def test_positions_that_a_stopped_run_lost_are_predicted_again(
    predict, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"format": kind, "tiles": Tiles((1, 24, 24), (0, 8, 8))}
    straight = files_in(predict("straight/out", **options))

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module.PlateOutput, "finish", dying)
        with pytest.raises(Killed):
            predict("stopped/out", **options)
    voxels = [name for name in straight if name.endswith("png") or ("/c/" in name and not name.endswith("json"))]
    out = predict("straight/out", **options).parents[1] / "stopped/out"
    (out / min(voxels)).unlink()
    (out / max(voxels)).write_bytes(b"")
    assert files_in(predict("stopped/out", **options)) == straight


@pytest.mark.parametrize("kind", ["zarr", "png"])
def test_threads_and_a_stop_change_no_byte(predict, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"format": kind, "tiles": Tiles((1, 24, 24), (0, 8, 8))}
    straight = files_in(predict("straight/out", **options))
    assert files_in(predict("two/out", 2, **options)) == straight
    volumes, volume = list[str](), module.PlatePrediction._volume

    def some(self: Any, position: str, time: int) -> np.ndarray:
        volumes.append(position)
        if len(volumes) == 4:
            raise KeyboardInterrupt
        return volume(self, position, time)

    monkeypatch.setattr(module.PlatePrediction, "_volume", some)
    with pytest.raises(KeyboardInterrupt):
        predict("stopped/out", **options)
    assert files_in(predict("stopped/out", **options)) == straight
    assert len(volumes) == 4 + 6  # of four positions with two times each, the first was whole


def test_a_whole_prediction_is_left_alone(predict, tmp_path, ready, recorded) -> None:
    predict()
    config = load_network(tmp_path / "d/n")
    asked = Asked(ready, tmp_path / "out.zarr")
    made = plate_prediction(config, build_network(config), recorded, CPU, asked)
    assert not made.write(asked.settings(config), {"plate": ready}, 1)


def test_files_that_were_lost_are_never_read_as_zeros(predict, tmp_path, ready, recorded) -> None:
    whole = files_in(predict())
    lose_a_chunk(tmp_path / "out.zarr")
    with pytest.raises(BadInput, match=r"out.zarr: A/1/3/0: \d+ files, of \d+ that were written"):
        open_plate(tmp_path / "out.zarr")
    assert files_in(predict()) == whole
    own = write_plate(tmp_path / "own")
    lose_a_chunk(own / "plate.zarr")
    for plate in (own, own / "plate.zarr"):
        with pytest.raises(BadInput, match=r"ready: plate.zarr/A/1/3/0: \d+ files, of \d+ that were written"):
            predict("other.zarr", plate=plate)


def test_a_part_or_some_positions(predict, ready: Path) -> None:
    split = json.loads((ready / "split.json").read_text())
    assert list(open_plate(predict("part", part="test")).positions) == split["test"]
    assert open_plate(predict("some", positions=("2", "A/1/0"))).positions == ("A/1/2", "A/1/0")


def test_a_part_without_positions_of_the_plate_is_refused(predict, tmp_path: Path) -> None:
    ready = write_plate(tmp_path / "plate")
    split = json.loads((ready / "split.json").read_text())
    for part, message in (([], "no positions in 'test', expected some"),
                          ([*split["test"], "A/1/99"], "test: the plate has no position A/1/99")):  # fmt: skip
        (ready / "split.json").write_text(json.dumps(split | {"test": part}))
        with pytest.raises(BadInput, match=message):
            predict("other.zarr", plate=ready, part="test")
        assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize("name", ["part.zarr", "part.csv"])
def test_a_part_whose_positions_have_changed_is_predicted_again(predict, tmp_path, recorded, name: str) -> None:
    ready, kind = write_plate(tmp_path / "plate"), name.rpartition(".")[2]
    sections = {"unet": TO_VECTOR, "heads": HEADS} if kind == "csv" else {}
    config = load_network(write_network(tmp_path / "d/other", ready, **sections))
    asked = Asked(ready, tmp_path / name, part="test", format=kind)

    def write() -> bool:
        made = plate_prediction(config, build_network(config), recorded, CPU, asked)
        return made.write(asked.settings(config), {"plate": ready}, 1)

    assert write()
    assert not write()
    split = json.loads((ready / "split.json").read_text())
    split["val"], split["test"] = split["test"], split["val"]
    (ready / "split.json").write_text(json.dumps(split))
    assert write()
    told = read_manifest(tmp_path / name)["settings"]
    assert (told["part"], told["positions"]) == ("test", sorted(split["test"]))


@pytest.mark.parametrize("kind", ["tiff", "npy", "png"])
def test_frames_of_some_positions_keep_their_numbers(predict, ready: Path, kind: str) -> None:
    """A position by itself must not pass for the first one of the plate."""
    last = open_plate(ready / "plate.zarr").positions[-1]
    assert not last.endswith("/0")
    assert open_plate(predict("out", positions=(last,), format=kind)).positions == (last,)


def test_frames_have_no_names_for_wells(tmp_path: Path) -> None:
    out = PlateOutput(tmp_path / "out", "tiff", [], ["A/1/0", "B/1/0"], None)
    with pytest.raises(BadInput, match=r"no name for position B/1/0, expected --format zarr"):
        out.check()


@pytest.mark.parametrize("scope", ["position", "volume", "tile"])
def test_a_new_plate_is_normalized_by_its_own_statistics(tmp_path, ready, recorded, scope: str) -> None:
    of = recorded | {"scope": scope}
    with_statistics, alone = (PlateSource(path, ["phase"], of) for path in (ready, ready / "plate.zarr"))
    np.testing.assert_allclose(with_statistics.read("A/1/0", 0), alone.read("A/1/0", 0), atol=1e-4)
    values = np.stack([alone.read("A/1/0", t) for t in range(2)])
    if scope != "tile":
        assert abs(values.mean()) < 1e-3 if scope == "position" else abs(values[0].mean()) < 1e-3


def test_a_plate_of_frames_is_predicted_as_it_is(predict, ready: Path) -> None:
    np.testing.assert_array_equal(all_voxels(predict("a", plate=ready.parent / "frames")), all_voxels(predict("b")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": ("9",)}, "has no position 9"),
        ({"tiles": Tiles((1, 8, 8), (0, 8, 0))}, "expected fewer voxels than a tile"),
        ({"recorded": None}, "was not trained on a plate"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, ready, recorded, options: dict, message: str) -> None:
    config = load_network(write_network(tmp_path / "d/n", ready))
    of = options.pop("recorded", recorded)
    with pytest.raises(BadInput, match=message) as refused:
        plate_prediction(config, build_network(config), of, CPU, Asked(ready, tmp_path / "out.zarr", **options))
    assert "\n" not in str(refused.value)


def test_a_plate_without_the_channels_of_training_is_refused(tmp_path, ready, recorded) -> None:
    del recorded["channels"]["phase"]
    with pytest.raises(BadInput, match="trained on the channels nuclei, membranes, not phase"):
        PlateSource(ready, ["phase"], recorded).read("A/1/0", 0)
    with pytest.raises(BadInput, match="channel dapi has no images"):
        _ = PlateSource(ready, ["dapi"], recorded).numbers


@pytest.fixture
def to_vector(tmp_path: Path, ready: Path) -> Any:
    return load_network(write_network(tmp_path / "d/v", ready, unet=TO_VECTOR, heads=HEADS))


def test_a_network_to_a_vector_writes_a_table_of_means(tmp_path, ready, recorded, to_vector) -> None:
    torch.manual_seed(0)
    network = build_network(to_vector).eval()
    assert isinstance(network, Network)
    asked = Asked(ready, tmp_path / "out.csv", positions=("0",), format="csv")
    made = plate_prediction(to_vector, network, recorded, CPU, asked)
    assert made.write(asked.settings(to_vector), {"plate": ready}, 2)
    assert not made.write(asked.settings(to_vector), {"plate": ready}, 1)
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["position"], row["time"], row["channel"]) for row in rows] == [
        ("A/1/0", str(t), name) for t in range(2) for name in ("nuclei", "membranes")
    ]
    x = torch.from_numpy(made.source.read("A/1/0", 1))[None]
    with torch.no_grad():
        tiles = [network(x[:, :, z : z + 1, y : y + 16, x0 : x0 + 16])["image"][0, 1].item()
                 for z in range(3) for y in range(0, 48, 16) for x0 in range(0, 48, 16)]  # fmt: skip
    mean, deviation = recorded["channels"]["membranes"]
    assert float(rows[3]["value"]) == pytest.approx(np.mean(tiles) * deviation + mean, rel=1e-5)


def test_vectors_and_images_have_formats_of_their_own(tmp_path, ready, recorded, to_vector) -> None:
    with pytest.raises(BadInput, match="predicts vectors, expected --format csv"):
        plate_prediction(to_vector, build_network(to_vector), recorded, CPU, Asked(ready, tmp_path / "out.zarr"))
    images = load_network(write_network(tmp_path / "d/n", ready))
    with pytest.raises(BadInput, match="predicts images, expected another --format"):
        plate_prediction(images, build_network(images), recorded, CPU, Asked(ready, tmp_path / "o", format="csv"))
