"""Settings of predictions, and earlier ones in the words of today's schema."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emsuite.common.files import write_json
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import is_finished, manifest_path, output, unfinished_path
from emsuite.config.network import NetworkConfig, upgraded
from emsuite.config.trained_with import record
from emsuite.io.volume import create_volume
from emsuite.prediction.blending import Blended
from emsuite.prediction.settings import earlier_input_shape, prediction_settings, same_weights, voxels_read
from emsuite.prediction.tiling import BY_STRIDE, Original

CONTENT: dict[str, Any] = {
    "dataset": "d",
    "network": "n",
    "voxel_size": [10, 10, 10],
    "unet": {"num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]},
    "heads": {"affs": {"target": "affinities", "neighborhood": [[-1, 0, 0]]}},
    "prediction": {"input_shape": [48, 48, 48]},
    "training": {"iterations": 1, "input_shape": [48, 48, 48], "sampling": {}},
}


def today() -> dict[str, Any]:
    network = NetworkConfig.model_validate(CONTENT).model_dump(mode="json")
    return {"network": network, "iteration": 1, "weights": "abc", "tiles": "stride", "input_shape": [48, 48, 48]}


def earlier() -> dict[str, Any]:
    """Those of a version that did not know all keys, and called one otherwise."""
    settings = today()
    del settings["network"]["training"]["accumulate"]
    switch = settings["network"]["heads"]["affs"].pop("switch_to")
    settings["network"]["heads"]["affs"]["then"] = switch
    return settings


def test_settings_are_as_ever_and_in_the_same_order(tmp_path: Path) -> None:
    raw = create_volume(tmp_path / "v.zarr/raw", (8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0))
    config = NetworkConfig.model_validate(CONTENT)
    settings = prediction_settings(config, 7, "abc", raw, Roi((0, 0, 0), (80, 80, 40)), BY_STRIDE)
    assert list(settings) == ["network", "iteration", "weights", "raw", "roi", "tiles"]
    assert list(settings.values())[1:4] == [7, "abc", str(raw.path)]
    assert list(settings.values())[4:] == ["0:80,0:80,0:40", "stride"]
    names = [prediction_settings(config, 7, "", raw, raw.roi, tiling)["tiles"]
             for tiling in (Original(), Original(valid=True), Blended("linear"))]  # fmt: skip
    assert names == ["original", "original, valid", "stride, linear"]


def test_other_voxels_at_the_same_place_make_another_prediction(tmp_path: Path) -> None:
    raw = create_volume(tmp_path / "v.zarr/raw", (8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0))
    config = NetworkConfig.model_validate(CONTENT)
    settings, region = prediction_settings(config, 7, "abc", raw, raw.roi, BY_STRIDE), Roi((0, 0, 0), (20, 80, 80))
    before = settings | voxels_read(reader(), raw, region)
    raw.array[3:] = 1
    assert settings | voxels_read(reader(), raw, region) == before, "nothing that is read"
    raw.array[2, 0, 0] = 1
    now = settings | voxels_read(reader(), raw, region)
    assert {key for key in now if now[key] != before[key]} == {"raw_voxels"}
    assert same_weights(now)(before) != now
    of_earlier_version = {key: value for key, value in before.items() if key != "raw_voxels"}
    assert same_weights(now)(of_earlier_version) == now


def reader() -> Any:
    """A predictor of one tile, with a context of one voxel."""
    around = Coordinate(1, 1, 1)
    return SimpleNamespace(lsds=None, grid=lambda raw, region: region, reads=lambda grid: grid.grow(around, around))


def test_a_damaged_chunk_outside_the_region_does_not_count(tmp_path: Path) -> None:
    raw = create_volume(tmp_path / "v.zarr/raw", (8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0), chunks=(4, 8, 8))
    raw.array[...] = 5
    chunk = next((tmp_path / "v.zarr/raw").rglob("c/1/0/0"))
    chunk.write_bytes(b"damaged")
    assert voxels_read(reader(), raw, Roi((0, 0, 0), (30, 80, 80)))["raw_voxels"].startswith("sha256:")
    assert voxels_read(reader(), raw, Roi((0, 0, 0), (40, 80, 80)))["raw_voxels"].startswith("listing:")


def test_the_checkpoint_says_what_it_was_trained_with(tmp_path: Path) -> None:
    raw = create_volume(tmp_path / "v.zarr/raw", (8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0))
    before = NetworkConfig.model_validate(CONTENT)
    now = NetworkConfig.model_validate(
        CONTENT | {"training": CONTENT["training"] | {"optimizer": {"learning_rate": 0.5}, "log_every": 3}}
    )
    trained_with = {"from": 0, **record(before, [], None)}
    told = prediction_settings(now, 7, "abc", raw, raw.roi, BY_STRIDE, trained_with)
    assert told["network"]["training"]["optimizer"]["learning_rate"] == 5e-5
    assert prediction_settings(now, 7, "abc", raw, raw.roi, BY_STRIDE)["network"]["training"]["log_every"] == 3
    assert told["network"]["prediction"] == now.model_dump(mode="json")["prediction"]


def test_for_the_same_weights_training_settings_decide_nothing() -> None:
    other = today()
    other["network"]["training"]["optimizer"]["learning_rate"] = 0.5
    assert same_weights(today())(other) == today() == same_weights(today())(earlier())
    assert same_weights(today())(other | {"weights": "other"}) != today() | {"weights": "other"}
    other["network"]["prediction"]["precision"] = "bfloat16"
    assert same_weights(today())(other) != today()
    networks: list[Any] = [None, "small", {}]
    for network in networks:
        assert same_weights(today())(today() | {"network": network}) != today()


def test_earlier_settings_are_put_in_the_words_of_today() -> None:
    assert earlier() != today()
    assert upgraded(earlier()) == today() == upgraded(today())
    assert upgraded(earlier() | {"weights": "other"}) == today() | {"weights": "other"}


@pytest.mark.parametrize("network", [None, "small", {}, CONTENT | {"unknown": 1}])
def test_a_network_that_today_s_schema_refuses_stays_as_it_is(network: Any) -> None:
    settings = today() | {"network": network}
    assert upgraded(settings) == settings != today()


def test_an_earlier_output_counts_as_finished_unless_weights_differ(tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    with output(out, earlier()) as made:
        made.path.mkdir()
    assert is_finished(out, today(), upgraded)
    assert not is_finished(out, today())
    assert not is_finished(out, today() | {"weights": "other"}, upgraded)
    assert not is_finished(out, today() | {"iteration": 2}, upgraded)


@pytest.mark.parametrize(("changes", "resumed"), [({}, True), ({"weights": "other"}, False)])
def test_an_earlier_output_is_continued_unless_weights_differ(tmp_path: Path, changes: dict, resumed: bool) -> None:
    out = tmp_path / "p.zarr"
    with contextlib.suppress(KeyboardInterrupt), output(out, earlier()) as made:
        made.path.mkdir()
        raise KeyboardInterrupt
    with output(out, today() | changes, upgrade=upgraded) as made:
        assert made.resumed == resumed
        made.path.mkdir(exist_ok=True)
    assert is_finished(out, today() | changes)
    assert not unfinished_path(out).exists()


def test_the_input_shape_of_an_earlier_run_is_found(tmp_path: Path) -> None:
    out, settings = tmp_path / "p.zarr", today()
    del settings["input_shape"]
    assert earlier_input_shape(out, settings) is None
    write_json(unfinished_path(out), earlier())
    assert earlier_input_shape(out, settings) == (48, 48, 48)
    assert earlier_input_shape(out, settings | {"weights": "other"}) is None
    write_json(manifest_path(out), {"settings": earlier() | {"input_shape": [50, 50, 50]}})
    assert earlier_input_shape(out, settings) == (50, 50, 50)
    for tiles, shape in (("stride, linear", (50, 50, 50)), ("original", None), ("original, valid", None)):
        write_json(manifest_path(out), {"settings": earlier() | {"input_shape": [50, 50, 50], "tiles": tiles}})
        assert earlier_input_shape(out, settings | {"tiles": tiles}) == shape


def test_times_of_files_that_earlier_versions_did_not_record_count_as_todays() -> None:
    now = today() | {"raw_voxels": "listing:1 state:2", "mask_voxels": "sha256:3"}
    assert same_weights(now)(today() | {"raw_voxels": "listing:1"})["raw_voxels"] == now["raw_voxels"]
    for other in ("listing:2", "listing:1 state:3", "sha256:1"):
        assert same_weights(now)(today() | {"raw_voxels": other})["raw_voxels"] == other
