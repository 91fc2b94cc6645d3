"""Domains: their volumes, boxes and scales."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
from pydantic import ValidationError

from dvid_server import serve_dvid
from emsuite.common.errors import BadInput
from emsuite.data.grey_values import GreyRange
from emsuite.data.transfer.domain import Domain, load_domain
from emsuite.data.transfer.settings import Box, DomainSettings, DomainVolume
from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.data.transfer.unpaired_sampler import UnpairedSampler
from emsuite.io.volume import LABELS, MASK, create_volume
from emsuite.io.volume import RAW as RAW_NAME

VOXEL, SHAPE = (8, 8, 8), (4, 4, 4)
RAW = np.random.default_rng(0).integers(0, 256, (20, 24, 28), dtype=np.uint8)


def write(path: Path, voxels: np.ndarray = RAW, offset: tuple = (0, 0, 0), voxel_size: tuple = VOXEL) -> Path:
    create_volume(path, voxels.shape, voxels.dtype, voxel_size, offset).array[...] = voxels
    return path


def of(path: Path, name: str = "a", project: Path = Path(), **keys: Any) -> Domain:
    """The domain of one volume; keys are those of `DomainVolume` and of `DomainSettings`."""
    own = {key: keys.pop(key) for key in ("labels", "boxes", "boxes_file") if key in keys}
    settings = DomainSettings(volumes=(DomainVolume(raw=path, **own),), **keys)
    return load_domain(settings, name, VOXEL, SHAPE, project)


@pytest.mark.parametrize("stream", [True, False])
def test_boxes_are_windows_of_their_volumes(tmp_path: Path, stream: bool) -> None:
    path = write(tmp_path / "a.zarr/volumes/raw", offset=(80, 0, 0))
    boxes = [
        "120:200,8:80,:",
        Box(roi="80:112,:,0:40", class_name="sparse"),
        Box(roi="80:112,:,:", class_name="sparse"),
    ]
    domain = of(path, boxes=boxes, stream=stream)
    expected = [RAW[5:15, 1:10], RAW[0:4, :, 0:5], RAW[0:4]]
    for window, voxels in zip(domain.windows(SHAPE), expected, strict=True):
        assert np.array_equal(window.raw[:, :, :], voxels)
        assert isinstance(window.raw, torch.Tensor) != stream
    assert domain.windows(SHAPE)[0].raw_offset == (120, 8, 0)
    assert domain.probabilities == (0.5, 0.25, 0.25)


def test_statistics_are_those_of_the_boxes_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/volumes/raw")
    values = RAW[:5].astype(float) / 127.5 - 1
    statistics = of(path, boxes=["0:40,:,:"]).statistics
    assert (statistics.mean, statistics.std) == pytest.approx((values.mean(), values.std()), abs=1e-6)
    tiles = values[:4].reshape(1, 4, 6, 4, 7, 4).transpose(0, 2, 4, 1, 3, 5).reshape(42, -1)
    statistics = of(path, boxes=["0:40,:,:"], statistics="samples").statistics
    assert (statistics.mean, statistics.std) == pytest.approx((tiles.mean(), np.sqrt(tiles.var(1).mean())), abs=1e-6)
    assert of(path, statistics=(0.25, 0.5)).statistics == DomainStatistics(0.25, 0.5)
    assert of(path, scaling="signed_unit_range").statistics == DomainStatistics(0.0, 1.0)


def test_recorded_statistics_are_taken_and_nothing_is_measured(tmp_path: Path) -> None:
    path, recorded = (
        write(tmp_path / "a.zarr/volumes/raw", RAW.astype(np.uint16)),
        DomainStatistics(0.1, 2, GreyRange(0, 99)),
    )
    settings = DomainSettings(volumes=(DomainVolume(raw=path),), grey_range="percentiles")
    domain = load_domain(settings, "a", VOXEL, SHAPE, statistics=recorded)
    assert domain.statistics == recorded
    assert float(domain.windows(SHAPE)[0].raw[:, :, :].max()) == 1
    assert float((domain.windows(SHAPE)[0].raw[:, :, :] == 1).float().mean()) == pytest.approx((RAW >= 99).mean())
    measured = load_domain(settings, "a", VOXEL, SHAPE).statistics.grey_range
    assert measured == pytest.approx(np.percentile(RAW, (1, 99)))


def test_volumes_of_several_formats_are_read_where_they_lie(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.zarr/volumes/raw"), tmp_path / "a.h5/raw", tmp_path / "a.tif", tmp_path / "a.n5/raw"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
    tifffile.imwrite(paths[2], RAW, photometric="minisblack")
    (tmp_path / "a.n5/raw").mkdir(parents=True)
    (tmp_path / "a.n5/attributes.json").write_text('{"n5": "2.0.0"}')
    about = {"dimensions": [28, 24, 20], "blockSize": [28, 24, 20], "dataType": "uint8", "compression": {"type": "raw"}}
    (tmp_path / "a.n5/raw/attributes.json").write_text(json.dumps(about))
    (tmp_path / "a.n5/raw/0/0").mkdir(parents=True)
    header = b"".join(number.to_bytes(length, "big") for number, length in ((0, 2), (3, 2), (28, 4), (24, 4), (20, 4)))
    (tmp_path / "a.n5/raw/0/0/0").write_bytes(header + RAW.tobytes())
    for path in paths:  # those without a voxel size have the network's
        assert np.array_equal(of(path).windows(SHAPE)[0].raw[:, :, :], RAW), path


def test_volumes_on_a_dvid_server_are_read_as_samples_need_them() -> None:
    with serve_dvid() as server:
        url = Path(server.add("grayscale", RAW))
        domain = of(url, voxel_size=(40, 8, 4), boxes=["200:600,:,:"], stream=True, scaling="signed_unit_range")
        sample = UnpairedSampler(domain, replace(domain, name="b"), SHAPE).batch(0, 2)
    starts = {
        RAW[z : z + 4, y : y + 4, x : x + 4].tobytes() for z in range(5, 12) for y in range(21) for x in range(25)
    }
    for image in (*sample.a, *sample.b):
        assert (image[0] * 127.5 + 127.5).round().to(torch.uint8).numpy().tobytes() in starts


def test_paths_are_those_of_the_project_where_nothing_is_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "project/data/a.zarr/volumes/raw")
    monkeypatch.chdir(tmp_path)
    assert of(Path("data/a.zarr/volumes/raw"), project=tmp_path / "project").windows(SHAPE)
    with pytest.raises(BadInput, match=r"data/a.zarr: no such"):
        of(Path("data/a.zarr/volumes/raw"))


def test_boxes_are_read_from_a_file(tmp_path: Path) -> None:
    path, file = write(tmp_path / "a.zarr/volumes/raw"), tmp_path / "boxes.json"
    file.write_text(json.dumps({"boxes": [{"roi": "0:40,:,:"}, {"roi": "40:160,:,:", "class_name": "b"}]}))
    domain = of(path, boxes_file=file)
    assert [box.size for box in domain.loaded.boxes] == [(5, 24, 28), (15, 24, 28)]
    file.write_text(json.dumps({"boxes": [{"region": "0:40,:,:"}]}))
    with pytest.raises(BadInput, match=r"boxes.json: boxes.0.region: unknown key"):
        of(path, boxes_file=file)
    file.write_text('{"boxes": []}')
    with pytest.raises(BadInput, match=r"boxes.json: boxes: .* at least 1 item"):
        of(path, boxes_file=file)
    file.write_text("[]")
    with pytest.raises(BadInput, match=r"boxes.json: is missing or holds no JSON, expected boxes"):
        of(path, boxes_file=file)
    yaml = tmp_path / "boxes.yaml"
    yaml.write_text('boxes:\n  - roi: "0:40,:,:"\n')
    assert of(path, boxes_file=yaml).loaded.boxes == domain.loaded.boxes[:1]


def test_labels_lie_as_the_images_do(tmp_path: Path) -> None:
    labels = np.arange(RAW.size, dtype=np.uint64).reshape(RAW.shape)
    raw = write(tmp_path / "a.zarr/volumes/raw")
    larger = np.pad(labels, 2)  # begins two voxels before
    path = write(tmp_path / "a.zarr/volumes/labels/neuron_ids", larger, offset=(-16, -16, -16))
    window = of(raw, labels=path, boxes=["40:80,:,:"]).windows(SHAPE)[0]
    assert window.labels is not None
    assert np.array_equal(window.labels[:, :, :] - int(window.labels[0:1, 0:1, 0:1]), labels[5:10] - labels[5, 0, 0])


@pytest.mark.parametrize(
    ("voxels", "more", "message"),
    [
        (np.ones((20, 24, 28), np.uint64), {"voxel_size": (8, 8, 9)}, "voxels of .* nm, expected raw's"),
        (np.ones((20, 24, 27), np.uint64), {}, "covers .* expected all of a box of images"),
        (np.ones((20, 24, 28), np.uint64), {"offset": (8, 0, 0)}, "covers .* expected all of a box of images"),
        (np.ones((20, 24, 28), np.float32), {}, "float32 .* expected labels"),
        (np.ones((2, 20, 24, 28), np.uint8), {}, "uint8 .* expected labels"),
    ],
)
def test_labels_that_do_not_match_are_refused(tmp_path: Path, voxels: np.ndarray, more: dict, message: str) -> None:
    raw = write(tmp_path / "a.zarr/volumes/raw")
    labels = write(tmp_path / "b.zarr/volumes/labels", voxels, **more)
    with pytest.raises(BadInput, match=message):
        of(raw, labels=labels)


@pytest.mark.parametrize("stream", [True, False])
def test_labels_without_an_object_are_refused(tmp_path: Path, stream: bool) -> None:
    raw, ids = write(tmp_path / "a.zarr/raw"), np.zeros(RAW.shape, np.uint64)
    ids[19, 23, 27] = 5
    assert of(raw, labels=write(tmp_path / "b.zarr/labels", ids), stream=stream).has_labels
    with pytest.raises(BadInput, match="domain a: all its labels are 0"):
        of(raw, labels=write(tmp_path / "c.zarr/labels", ids * 0), stream=stream)


def test_labels_of_domain_b_are_refused(tmp_path: Path) -> None:
    raw, labels = write(tmp_path / "a.zarr/raw"), write(tmp_path / "a.zarr/labels", RAW.astype(np.uint64))
    with pytest.raises(BadInput, match="domain b: has labels"):
        of(raw, "b", labels=labels)


def test_volumes_that_cannot_be_sampled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a.zarr: no such"):
        of(tmp_path / "a.zarr/volumes/raw")
    path = write(tmp_path / "a.zarr/volumes/raw", voxel_size=(40, 4, 4))
    with pytest.raises(BadInput, match=r"voxel size .*40.* nm, expected the network's .*8"):
        of(path)
    assert of(path, voxel_size=(40, 4, 4)).windows(SHAPE)
    with pytest.raises(BadInput, match=r"a box of \(3, 24, 28\) voxels of domain a, expected at least .* \(4, 4, 4\)"):
        of(write(tmp_path / "b.zarr/volumes/raw"), boxes=["0:24,:,:"]).windows(SHAPE)
    with pytest.raises(BadInput, match=r"covers .* was asked for"):
        of(tmp_path / "b.zarr/volumes/raw", boxes=["0:2400,:,:"])
    channels = write(tmp_path / "c.zarr/volumes/raw", np.zeros((2, 9, 9, 9), np.uint8))
    with pytest.raises(BadInput, match=r"4 axes .* expected raw with 3"):
        of(channels)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "volumes and patches: holds neither"),
        ({"volumes": [{"raw": "a"}], "patches": "b"}, "volumes and patches: holds both"),
        ({"volumes": [{"raw": "a"}], "patch_labels": "b"}, "patch_labels: labels of patches"),
        ({"volumes": [{"raw": "a", "labels": "b"}, {"raw": "a"}]}, "expected labels of all or of none"),
        ({"volumes": [{"raw": "a", "boxes": [":,:,:"], "boxes_file": "b"}]}, "boxes and boxes_file"),
        ({"volumes": [{"raw": "a"}], "statistics": [0, 0]}, "greater than 0"),
        ({"volumes": [{"raw": "a"}], "grey_range": [5, 5]}, "expected the lower value first"),
        ({"volumes": [{"raw": "a", "boxes": ["0:1"]}]}, "expected three ranges in nm"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DomainSettings.model_validate(keys)


def test_reflection_makes_room_for_samples_of_any_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr/volumes/raw")
    window = of(path, boxes=["0:24,:,:"], reflect=True).windows((6, 5, 4))[0]
    assert np.array_equal(window.raw[:, :, :], np.pad(RAW[:3], [(3, 3), (2, 2), (2, 2)], mode="reflect"))
    assert window.raw_offset == (-24, -16, -16)


def test_the_record_changes_with_what_decides_the_samples(tmp_path: Path) -> None:
    raw, labels = write(tmp_path / "a.zarr/raw"), write(tmp_path / "a.zarr/labels", RAW.astype(np.uint64))
    records = [
        of(raw, labels=labels).record(),
        of(raw).record(),
        of(raw, boxes=["0:80,:,:"]).record(),
        of(raw, reflect=True).record(),
        of(raw, boxes=[Box(class_name="x")]).record(),
        of(write(tmp_path / "b/a.zarr/raw", 255 - RAW)).record(),
    ]
    texts = [json.dumps(record) for record in records]
    assert len(set(texts)) == len(texts)
    assert of(write(tmp_path / "c/a.zarr/raw")).record() == of(raw).record()


@pytest.mark.parametrize("stream", [True, False])
def test_the_mask_of_labels_comes_along(tmp_path: Path, stream: bool) -> None:
    """Samples tell the voxels that nobody labelled, and another mask is other data."""
    raw, labels = write(tmp_path / "v.zarr" / RAW_NAME), write(tmp_path / "v.zarr" / LABELS, RAW.astype(np.uint64))
    without = of(raw, labels=labels, stream=stream)
    known = np.zeros(RAW.shape, np.uint8)
    known[:, :, 8:] = 3
    write(tmp_path / "v.zarr" / MASK, known)
    domain = of(raw, labels=labels, stream=stream)
    (window,) = domain.windows(SHAPE)
    assert window.mask is not None
    assert np.array_equal(window.mask[:, :, :].numpy(), known != 0)
    assert domain.record() != without.record()
    sample = UnpairedSampler(domain, replace(domain, loaded=of(raw).loaded), SHAPE).batch(1, 8)
    assert sample.mask is not None
    assert 0 < sample.mask.float().mean() <= 1
    write(tmp_path / "v.zarr" / MASK, known[:10])
    with pytest.raises(BadInput, match=r"labels_mask: covers .* expected all of a box of images"):
        of(raw, labels=labels, stream=stream)


@pytest.mark.parametrize("scaling", ["signed_unit_range", "standardized"])
@pytest.mark.parametrize("stream", [True, False])
def test_images_of_one_value_are_refused(tmp_path: Path, scaling: str, stream: bool) -> None:
    voxels = np.full(RAW.shape, 7, np.uint8)
    path = write(tmp_path / "flat.zarr/raw", voxels)
    with pytest.raises(BadInput, match="domain b: all its voxels are alike"):
        of(path, "b", scaling=scaling, stream=stream)
    voxels[-1, -1, -1] = 8
    of(write(path, voxels), "b", scaling=scaling, stream=stream)
