"""The parts of a preprocessed plate: which slices, what they hold, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emsuite.augment.mirror import MirrorTranspose
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.images.image_volume import ImageVolume
from emsuite.data.images.settings import PlateInput
from emsuite.data.images.volumes import ImageLoader, ReadyPlate
from emsuite.data.sampler import Sampler
from emsuite.data.training_volume import Ones
from emsuite.plates.plate import MASK, ZarrPlate
from emsuite.plates.preprocess import preprocess
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.statistics import read_statistics
from emsuite.plates.synthesize import synthesize_frames
from emsuite.targets.images import BORDERS, FOREGROUND, ImageName
from preprocessed_plate import SET, write_plate

NAMES = [ImageName("nuclei"), ImageName(2), ImageName("nuclei", False), ImageName(FOREGROUND, False)]


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"))


def loader(ready: Path, names=tuple(NAMES), **keys: Any) -> ImageLoader:
    plate = PlateInput(**{"path": ready, "input_channels": ["phase"]} | keys)
    return ImageLoader(ReadyPlate(ready), plate, list(names), Coordinate(1000, 1000, 1000))


def with_split(ready: Path, tmp_path: Path, by: str, **parts: list) -> Path:
    """The same plate with another split."""
    copy = tmp_path / "ready"
    copy.mkdir()
    for name in ("plate.zarr", "statistics.csv"):
        (copy / name).symlink_to(ready / name)
    record = json.loads((ready / "preprocessing.json").read_text())
    for step in record["steps"]:
        if step["step"] == "split":
            step["settings"]["by"] = by
    (copy / "preprocessing.json").write_text(json.dumps(record))
    (copy / "split.json").write_text(json.dumps({"by": by, "train": [], "val": [], "test": []} | parts))
    return copy


def places(volumes: list[ImageVolume]) -> set[str]:
    return {str(volume.content["volume"]) for volume in volumes}


def test_positions_of_a_part_come_without_empty_slices(ready: Path) -> None:
    split = json.loads((ready / "split.json").read_text())
    plate, expected = ZarrPlate(ready / "plate.zarr"), set()
    for position in split["train"]:
        expected |= {f"{position} t{t} z0:3" for t in range(2) if plate.read(position, t, 0).any()}
    assert places(loader(ready).load("train")) == expected
    every = [p for part in ("train", "val", "test") for p in places(loader(ready).load(part))]
    assert len(every) == len(set(every)) == 7  # of 8, one has no light


def test_images_are_normalized_by_their_channel_or_stay_as_they_are(ready: Path) -> None:
    plate, rows = ZarrPlate(ready / "plate.zarr"), read_statistics(ready / "statistics.csv")
    volume = loader(ready).load("test")[0]
    position = Path(volume.name).relative_to(plate.path).as_posix()
    time = int(str(volume.content["volume"]).split(" t")[1][0])
    whole = {row.channel: row for row in rows if row.scope == "dataset"}
    images = {name: volume.images[name.array] for name in NAMES}
    for name, channel in ((NAMES[0], 1), (NAMES[1], 2)):
        expected = (plate.read(position, time, channel) - whole[channel].mean) / whole[channel].std
        np.testing.assert_allclose(images[name], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(images[NAMES[2]], plate.read(position, time, 1))
    np.testing.assert_array_equal(images[NAMES[3]], plate.read(position, time, 0, MASK))
    np.testing.assert_array_equal(volume.mask, plate.read(position, time, 0, MASK))
    grey, row = plate.read(position, time, 0), whole[0]
    np.testing.assert_allclose(volume.raw, ((grey - row.low) / (row.high - row.low) + 1) / 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scope", ["position", "volume"])
def test_the_scope_of_preprocessing_counts(tmp_path: Path, scope: str) -> None:
    ready = write_plate(tmp_path, normalize={"scope": scope})
    for volume in loader(ready).load("train"):
        if scope == "volume":
            image = volume.images[NAMES[0].array]
            assert abs(float(image.mean())) < 1e-4
            assert abs(float(image.std(correction=0)) - 1) < 1e-4
        assert volume.scales is not None
        assert not volume.measured_images
    scales = {volume.scales[0] for volume in loader(ready).load("train") if volume.scales}
    assert len(scales) == {"position": 2, "volume": len(loader(ready).load("train"))}[scope]


def test_samples_measure_themselves_where_tiles_are_the_scope(tmp_path: Path) -> None:
    volume = loader(write_plate(tmp_path, normalize={"scope": "tile"})).load("train")[0]
    assert volume.scales is None
    assert volume.measured_images == {NAMES[0].array, NAMES[1].array}


@pytest.mark.parametrize(
    ("by", "train", "expected"),
    [
        ("slice", [0, 2], {"z0:1", "z2:3"}),
        ("slice", [1, 2], {"z1:3"}),
        ("time", [1], {"t1 z0:3"}),
        ("index", ["A/1/0 t0 z1"], {"A/1/0 t0 z1:2"}),
    ],
)
def test_a_split_deals_out_runs_of_slices_with_the_stack_as_context(ready, tmp_path, by, train, expected) -> None:
    volumes = loader(with_split(ready, tmp_path, by, train=train)).load("train")
    found = places(volumes)
    assert {place for place in found if not any(place.endswith(end) for end in expected)} == set()
    assert {end for end in expected if any(place.endswith(end) for place in found)} == expected
    for volume in volumes:
        begin = int(str(volume.content["volume"]).rpartition("z")[2].split(":")[0])
        assert volume.raw.shape[0] == 3
        assert volume.labels_offset == Coordinate(1000 * begin, 0, 0)


def test_what_lies_at_the_border_is_context_alone(ready: Path) -> None:
    here = loader(ready)
    deep = ImageLoader(here.ready, here.settings, here.names, here.voxel_size, (1, 4, 8))
    whole, volume = here.load("val")[0], deep.load("val")[0]
    assert volume.raw.shape == (3, 48, 48)
    assert volume.labels_offset == Coordinate(1000, 4000, 8000)
    for name, image in volume.images.items():
        assert torch.equal(image, whole.images[name][1:2, 4:-4, 8:-8])
    assert torch.equal(volume.mask[:], whole.mask[1:2, 4:-4, 8:-8])
    with pytest.raises(BadInput, match="no image with light in stacks of at least 5 slices"):
        ImageLoader(here.ready, here.settings, here.names, here.voxel_size, (2, 0, 0)).load("val")


def test_border_weights_are_an_image(ready: Path) -> None:
    weights = loader(ready, [ImageName(BORDERS, False)]).load("val")[0].images[ImageName(BORDERS, False).array]
    assert weights.min() > 0


def test_without_masks_all_voxels_are_foreground(tmp_path: Path) -> None:
    ready = write_plate(tmp_path, masks=None, border_weights=None)
    assert all(isinstance(volume.mask, Ones) for volume in loader(ready, NAMES[:1]).load("train"))
    with pytest.raises(BadInput, match=r"has no foreground, expected `masks`"):
        loader(ready).load("train")
    with pytest.raises(BadInput, match=r"no foreground for plate.min_fraction"):
        loader(ready, NAMES[:1], min_fraction=0.2).load("train")


def test_the_least_foreground_is_that_of_preprocessing_or_the_networks(tmp_path: Path) -> None:
    ready = write_plate(tmp_path, tiles={"size": [16, 16], "min_fraction": 0.1})
    assert loader(ready).load("train")[0].min_fraction == 0.1
    assert loader(ready, min_fraction=0.3).load("train")[0].min_fraction == 0.3


@pytest.mark.parametrize(
    ("keys", "names", "message"),
    [
        ({"input_channels": ["dapi"]}, NAMES[:1], "channel dapi has no images; the channels are phase, nuclei"),
        ({}, [ImageName(7)], "channel 7 has no images"),
    ],
)
def test_missing_channels_are_refused_in_one_line(ready, keys, names, message) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        loader(ready, names, **keys).load("train")
    assert "\n" not in str(refused.value)


def test_odd_folders_and_splits_are_refused_in_one_line(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no plate.zarr"):
        loader(tmp_path).load("train")
    channels = with_split(ready, tmp_path, "channel", train=[0])
    with pytest.raises(BadInput, match="splits by channel"):
        loader(channels).load("train")
    (channels / "split.json").write_text(json.dumps({"by": "position", "train": [], "val": [], "test": []}))
    record = json.loads((channels / "preprocessing.json").read_text())
    for step in record["steps"]:
        step.get("settings", {}).pop("by", None)
    (channels / "preprocessing.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match=r"has no split.json"):
        loader(channels).load("train")
    (channels / "preprocessing.json").write_text("[]")
    with pytest.raises(BadInput, match="no record of preprocessing"):
        loader(channels, NAMES[:1]).load("train")


def test_frames_of_one_value_stay_empty_behind_a_flat_field(tmp_path: Path) -> None:
    synthesize_frames("label-free", SET, tmp_path / "frames")
    for path in (tmp_path / "frames").glob("im_*.png"):
        pixels = np.array(Image.open(path))
        if not pixels.any():
            Image.fromarray(np.full_like(pixels, 700)).save(path)
    steps = {"split": {"train": 0.5, "val": 0.25, "test": 0.25}, "flat_field": {"block_size": 8}}
    out = tmp_path / "ready"
    preprocess(PreprocessSettings(input=tmp_path / "frames", output=out, **steps))
    count = sum(len(loader(out, NAMES[:1]).load(part)) for part in ("train", "val", "test"))
    assert count == 7  # of 8, one has no light


def test_a_part_without_light_is_refused(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no image with light in the part 'val'"):
        loader(with_split(ready, tmp_path, "time", train=[0])).load("val")


def test_other_voxels_than_the_networks_are_refused(ready: Path) -> None:
    of = loader(ready)
    of.ready.plate.voxel_size_nm = (1000.0, 200.0, 200.0)
    with pytest.raises(BadInput, match=r"voxels of \(1000.0, 200.0, 200.0\) nm, expected the network's"):
        of.load("train")


def test_the_record_changes_with_the_voxels(ready: Path) -> None:
    first, second = (loader(ready).load("val")[0] for _ in range(2))
    assert first.content == second.content
    others = loader(ready, NAMES[:1]).load("val")[0]
    assert first.content["voxels"] != others.content["voxels"]


def test_volumes_on_disk_give_the_same_samples_and_the_same_record(ready: Path) -> None:
    here = loader(ready)
    disk = ImageLoader(here.ready, here.settings, here.names, here.voxel_size, stream=True)
    volumes = [of.load("train") for of in (here, disk)]
    assert [v.content for v in volumes[0]] == [v.content for v in volumes[1]]
    assert not any(volume.tensors for volume in volumes[1])
    steps = [MirrorTranspose(name="mirror_transpose", mirror=(1, 2), transpose=(1, 2))]
    samplers = [Sampler(part, (1, 16, 16), (1, 16, 16), augmentations=steps) for part in volumes]
    assert [sampler.in_memory for sampler in samplers] == [True, False]
    for number in range(3):
        first, second = (sampler.batch(number, 2) for sampler in samplers)
        assert all(torch.equal(first[name], second[name]) for name in first.arrays)


def test_a_volume_moves_with_all_its_arrays(ready: Path) -> None:
    volume = loader(ready).load("val")[0]
    assert len(volume.tensors) == 2 + len(NAMES)
    moved = volume.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.tensors} == {"meta"}
