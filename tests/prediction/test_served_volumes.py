"""Prediction of a volume on a server, which tells of no change."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import builders
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.config.network import build_network, load_network
from emsuite.io.volume import Volume, open_volume
from emsuite.prediction import predict
from emsuite.prediction.output_file import predict_into
from emsuite.prediction.predictor import make_predictor
from emsuite.prediction.settings import prediction_settings
from emsuite.prediction.tiling import BY_STRIDE
from file_server import serve_files

RAW = np.random.default_rng(3).integers(0, 256, (30, 30, 30), np.uint8)


def test_a_volume_that_changes_on_its_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction of both versions is no prediction; the next run begins anew."""
    builders.write_array(tmp_path / "served/v.zarr/raw", RAW, (10, 10, 10))
    config = load_network(builders.write_network(tmp_path / "n"))
    torch.manual_seed(0)
    network, device = build_network(config).eval(), torch.device("cpu")
    out = tmp_path / "p.zarr"

    def run(raw: Volume) -> None:
        predictor = make_predictor(network, config, device, (28, 28, 28), raw, raw.roi)
        settings = prediction_settings(config, 1, "w", raw, raw.roi, BY_STRIDE)
        predict_into(out, settings, {"raw": raw.path}, predictor, raw, raw.roi)

    predicted = predict.predict_volume

    def edited(*given: Any) -> None:
        predicted(*given)
        builders.write_array(tmp_path / "served/v.zarr/raw", RAW[::-1].copy(), (10, 10, 10))

    with serve_files(tmp_path / "served") as url:
        monkeypatch.setattr(predict, "predict_volume", edited)
        with pytest.raises(BadInput, match=r"v\.zarr/raw: was replaced or edited while it was read"):
            run(open_volume(f"{url}/v.zarr/raw"))
        assert not manifest_path(out).exists()
        monkeypatch.setattr(predict, "predict_volume", predicted)
        run(open_volume(f"{url}/v.zarr/raw"))
    again = open_volume(out / "affs").read()
    shutil.rmtree(out)
    manifest_path(out).unlink()
    run(open_volume(tmp_path / "served/v.zarr/raw"))
    assert np.array_equal(open_volume(out / "affs").read(), again)
