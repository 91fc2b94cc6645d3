"""All steps on small plates: each against its own function, the same bytes after a kill, and what is refused."""

import json
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from builders import files_in, lose_a_chunk
from emsuite.common.errors import BadInput
from emsuite.plates import correct_positions as module
from emsuite.plates.corrections import equalized, flattened, resized
from emsuite.plates.flat_field import estimate_flat_field, sum_of_images
from emsuite.plates.foreground_mask import border_weights, foreground_of_channels
from emsuite.plates.index_plate import index_plate
from emsuite.plates.plate import MASK, WEIGHTS, ZarrPlate, open_plate
from emsuite.plates.preprocess import preprocess
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.split import read_split
from emsuite.plates.statistics import read_statistics
from emsuite.plates.synthesize import LabelFreeSettings, synthesize_frames
from killed import MOMENTS, Killed, check_removals

SET = LabelFreeSettings(positions=4, times=2, slices=2, size=48, cells=6, empty=0.2)
ALL = {
    "flat_field": {"block_size": 8, "slices": [0]},
    "resize": {"scale": 0.75},
    "masks": {"channels": ["nuclei", 2], "radius": 1},
    "border_weights": {"sigma": 3},
    "clip": {"channels": ["nuclei"]},
    "clahe": {"kernel_size": 12, "channels": ["membranes"]},
    "normalize": {"scope": "position"},
    "tiles": {"size": [12, 12], "min_fraction": 0.3},
    "split": {"by": "position", "train": 0.5, "val": 0.25, "test": 0.25},
}
KILLED = """
import json, os, signal, sys
from emsuite.plates.plate import FieldImage
from emsuite.plates.preprocess import preprocess
from emsuite.plates.settings import PreprocessSettings

writes, write = [], FieldImage.write

def some(self, *all):
    writes.append(all)
    if len(writes) > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *all)

FieldImage.write = some
preprocess(PreprocessSettings(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "frames"
    synthesize_frames("label-free", SET, folder)
    return folder


@pytest.fixture(scope="module")
def whole(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of all steps."""
    return made(frames, tmp_path_factory.mktemp("whole") / "out", **ALL)


def made(source: Path, out: Path, workers: int = 2, **steps: Any) -> Path:
    preprocess(PreprocessSettings(input=source, output=out, **steps), workers)
    return out


def plate_of(out: Path) -> ZarrPlate:
    plate = open_plate(out / "plate.zarr")
    assert isinstance(plate, ZarrPlate)
    return plate


def test_each_step_is_its_own_function(frames: Path, whole: Path) -> None:
    source, plate = open_plate(frames), plate_of(whole)
    assert plate.positions == source.positions
    assert plate.channels == source.channels
    assert plate.dtype == np.float32
    fields = []
    for channel in range(3):
        first = [source.read(p, t, channel)[:1] for p in source.positions for t in range(2)]
        fields.append(estimate_flat_field(map(sum_of_images, first), 8, "")[0])
        assert np.array_equal(np.load(whole / f"flat_field/flat-field_channel-{channel}.npy"), fields[channel])
    dark = [(p, t) for p in source.positions for t in range(2) if not source.read(p, t, 0).any()]
    assert len(dark) == 2
    nuclei = []
    for position in source.positions:
        for time in range(2):
            volumes = [resized(flattened(source.read(position, time, c), fields[c]), (1, 0.75, 0.75)) for c in range(3)]
            mask = foreground_of_channels(volumes[1:], "otsu", 1, whole=False)
            assert np.array_equal(plate.read(position, time, 0, MASK) > 0, mask)
            weights = np.stack([border_weights(section, 10, 3) for section in mask])
            assert np.array_equal(plate.read(position, time, 0, WEIGHTS), weights)
            assert np.array_equal(plate.read(position, time, 0), volumes[0])
            assert np.array_equal(plate.read(position, time, 2), equalized(volumes[2], 12, 0.01))
            nuclei.append((plate.read(position, time, 1), volumes[1], (position, time) in dark))
    lit = np.concatenate([before for _, before, is_dark in nuclei if not is_dark])
    low, high = (np.percentile(lit, q) for q in (2, 98))
    near = (lit.max() - lit.min()) / 60_000
    for after, before, _ in nuclei:
        assert np.allclose(after, np.clip(before, low, high), atol=near)


def test_statistics_are_those_of_the_voxels_that_were_written(whole: Path) -> None:
    plate, rows = plate_of(whole), read_statistics(whole / "statistics.csv")
    assert {row.scope for row in rows} == {"dataset", "position", "volume"}
    for row in rows:
        times = range(2) if row.time == "" else [row.time]
        positions = [row.position] if row.position else plate.positions
        read = [plate.read(p, int(t), row.channel) for p in positions for t in times]
        sections = [section for volume in read for section in volume if section.min() < section.max()]
        assert row.empty == sum(map(len, read)) - len(sections)
        if sections:
            assert row.mean == pytest.approx(np.mean(sections, dtype=np.float64))
            assert row.std == pytest.approx(np.std(sections, dtype=np.float64))


def test_tiles_have_enough_foreground(whole: Path) -> None:
    plate, rows = plate_of(whole), read_statistics(whole / "tiles.csv")
    counted = 0
    for position in plate.positions:
        for t, z in np.ndindex(2, 2):
            mask = plate.read(position, t, 0, MASK)[z]
            counted += 3 * sum(mask[y : y + 12, x : x + 12].mean() >= 0.3 for y in (0, 12, 24) for x in (0, 12, 24))
    assert len(rows) == counted > 0
    for row in rows[::7]:
        z, y, x = int(row.z), int(row.y), int(row.x)
        tile = plate.read(row.position, int(row.time), row.channel)[z, y : y + 12, x : x + 12]
        assert row.mean == pytest.approx(tile.mean(dtype=np.float64))
        assert float(row.foreground) >= 0.3


def test_every_step_is_recorded_done_or_not(frames: Path, whole: Path, tmp_path: Path) -> None:
    steps = json.loads((whole / "preprocessing.json").read_text())["steps"]
    assert [step["step"] for step in steps if step["done"]] == list(ALL)
    assert steps[0]["result"]["phase"]["images"] == 6, "two of eight have no light"
    assert steps[6]["result"]["empty_images"]["phase"] == 4
    assert sum(steps[8]["result"].values()) == 4
    few = json.loads((made(frames, tmp_path / "few") / "preprocessing.json").read_text())["steps"]
    assert [step["step"] for step in few if step["done"]] == ["normalize"]
    assert all(step["why"] == "not in the configuration" for step in few if not step["done"])
    source, plate = open_plate(frames), plate_of(tmp_path / "few")
    assert plate.dtype == np.uint16
    assert np.array_equal(plate.read("A/1/3", 1, 1), source.read("A/1/3", 1, 1)), "voxels keep their type and values"


def test_a_plate_of_zarr_gives_what_its_frames_give(frames: Path, whole: Path, tmp_path: Path) -> None:
    index_plate(frames, tmp_path / "plate.zarr", voxel_size_nm=(500, 100, 100))
    out = made(tmp_path / "plate.zarr", tmp_path / "out", **ALL)
    assert plate_of(out).voxel_size_nm == pytest.approx((500, 100 / 0.75, 100 / 0.75))
    assert (out / "statistics.csv").read_bytes() == (whole / "statistics.csv").read_bytes()


def test_the_same_bytes_on_one_thread(frames: Path, whole: Path, tmp_path: Path) -> None:
    assert files_in(made(frames, tmp_path / "out", workers=1, **ALL)) == files_in(whole)


@pytest.mark.parametrize("writes", [3, 13])
def test_a_killed_run_gives_the_same_bytes(frames: Path, whole: Path, tmp_path: Path, writes: int, monkeypatch) -> None:
    words = json.dumps({"input": str(frames), "output": str(tmp_path / "out"), **ALL})
    killed = subprocess.run([sys.executable, "-c", KILLED, words, str(writes)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(BadInput, match="unfinished"):
        open_plate(tmp_path / "out/plate.zarr")
    assert len(list((tmp_path / "out/done").iterdir())) == writes // 10
    created, create = [], module.new_image
    monkeypatch.setattr(module, "new_image", lambda *all: created.append(all[1]) or create(*all))
    assert files_in(made(frames, tmp_path / "out", **ALL)) == files_in(whole)
    assert ("A/1/0" in created) == (writes < 10), "whole positions are not written twice"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_in_any_removal_changes_no_byte(frames: Path, tmp_path: Path, moment: str) -> None:
    check_removals(lambda folder: made(frames, folder / "out", **ALL), tmp_path, 1, moment)


@pytest.mark.parametrize("image", ["0", "labels/foreground/0"])
def test_positions_that_a_stopped_run_lost_are_made_again(
    frames: Path, whole: Path, tmp_path: Path, image: str, monkeypatch
) -> None:
    def dying(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("emsuite.plates.preprocess.write_statistics", dying)
        with pytest.raises(Killed):
            made(frames, tmp_path / "out", **ALL)
    lost = tmp_path / "out/plate.zarr/A/1/1" / image
    min(file for file in lost.rglob("*") if file.is_file() and file.suffix != ".json").unlink()
    assert files_in(made(frames, tmp_path / "out", **ALL)) == files_in(whole)


def test_a_whole_output_is_left_alone_until_a_setting_or_the_input_changes(frames: Path, tmp_path: Path) -> None:
    index_plate(frames, tmp_path / "plate.zarr")
    settings = PreprocessSettings(input=tmp_path / "plate.zarr", output=tmp_path / "out")
    assert preprocess(settings)
    assert not preprocess(settings)
    zarr.open_array(tmp_path / "plate.zarr/A/1/0/0", mode="r+")[0, 0, 0] = 77
    assert preprocess(settings)
    assert (plate_of(tmp_path / "out").read("A/1/0", 0, 0)[0] == 77).all()
    assert preprocess(settings.model_copy(update={"channels": (1,)}))
    assert plate_of(tmp_path / "out").channels == ("nuclei",)


def test_files_that_were_lost_are_never_read_as_zeros(frames: Path, tmp_path: Path) -> None:
    index_plate(frames, tmp_path / "plate.zarr")
    settings = PreprocessSettings(input=tmp_path / "plate.zarr", output=tmp_path / "out")
    preprocess(settings)
    before = files_in(tmp_path / "out")
    lose_a_chunk(tmp_path / "out/plate.zarr")
    with pytest.raises(BadInput, match=r"out: plate.zarr/A/1/3/0: \d+ files, of \d+ that were written; remove .* run"):
        open_plate(tmp_path / "out/plate.zarr")
    assert preprocess(settings), "not finished"
    assert files_in(tmp_path / "out") == before
    lose_a_chunk(tmp_path / "plate.zarr")
    with pytest.raises(BadInput, match=r"plate.zarr: A/1/3/0: \d+ files, of \d+ that were written; remove .* run"):
        preprocess(settings)
    index_plate(frames, tmp_path / "plate.zarr")
    preprocess(settings)
    assert files_in(tmp_path / "out") == before


def test_a_split_and_flat_fields_are_used_again(frames: Path, whole: Path, tmp_path: Path) -> None:
    again = {"split": {"by": "position", "file": str(whole / "split.json"), "seed": 5}}
    again["flat_field"] = {"folder": str(whole / "flat_field")}
    out = made(frames, tmp_path / "out", **again)
    assert read_split(out / "split.json") == read_split(whole / "split.json")
    assert (out / "flat_field/flat-field_channel-1.npy").read_bytes() == (
        whole / "flat_field/flat-field_channel-1.npy"
    ).read_bytes()


@pytest.mark.parametrize(
    ("by", "chosen", "line"),
    [
        ("time", {"times": [1, 0, 2, 3]}, "time 0 was 1 and is 2 in .*A/1/0, expected the same choice"),
        ("slice", {"slices": [2, 1, 0]}, "slice 0 was 2 and is 4 in .*A/1/0"),
        ("index", {"times": [1, 0, 2, 3]}, "index 0 was 1 and is 2"),
        ("channel", {"channels": [2, 1, 0]}, "channel 0 was phase and is membranes"),
        ("position", {"times": [1], "slices": [1]}, ""),
    ],
)
def test_a_split_of_another_choice(frames: Path, tmp_path: Path, by: str, chosen: dict, line: str) -> None:
    """Its values are places in the plate: what trained would test."""
    source = frames if by in ("channel", "position") else numbered(tmp_path / "images", (1, 2, 3, 4), (2, 3, 4))
    first = made(source, tmp_path / "first", split={"by": by})
    again = {"split": {"by": by, "file": str(first / "split.json")}}
    assert read_split(made(source, tmp_path / "same", **again) / "split.json") == read_split(first / "split.json")
    if not line:
        made(source, tmp_path / "other", **again, **chosen)
        return
    with pytest.raises(BadInput, match=line):
        made(source, tmp_path / "other", **again, **chosen)


@pytest.mark.parametrize("kept", [[1], [1, 0]])
def test_a_flat_field_is_that_of_its_channel_whatever_is_left_out(
    frames: Path, whole: Path, tmp_path: Path, kept
) -> None:
    stored = {"folder": str(whole / "flat_field")}
    every = plate_of(made(frames, tmp_path / "every", flat_field=stored))
    some = plate_of(made(frames, tmp_path / "some", channels=kept, flat_field=stored))
    for place, number in enumerate(kept):
        assert np.array_equal(some.read("A/1/2", 1, place), every.read("A/1/2", 1, number))
    assert sorted(p.stem[-1] for p in (tmp_path / "some/flat_field").glob("*.npy")) == sorted(map(str, kept))
    told = json.loads((tmp_path / "some/preprocessing.json").read_text())["steps"][0]["result"]
    assert {name: one["channel"] for name, one in told.items()} == {some.channels[n]: c for n, c in enumerate(kept)}


def test_a_flat_field_of_another_plate(frames: Path, whole: Path, tmp_path: Path) -> None:
    """Of the part of a plate that an earlier run wrote, where channels are numbered from 0 again."""
    part = made(frames, tmp_path / "part", channels=["nuclei"])
    with pytest.raises(BadInput, match=r"0\.json: a flat field of channel phase, expected nuclei, channel 0"):
        made(part / "plate.zarr", tmp_path / "out", flat_field={"folder": str(whole / "flat_field")})
    assert not (tmp_path / "out.manifest.json").exists()


PART = {
    "masks": {"channels": [1], "radius": 1},
    "clip": {"channels": [1]},
    "clahe": {"channels": [2], "kernel_size": 12},
}


def test_numbers_are_those_of_the_input_also_where_channels_are_left_out(frames: Path, tmp_path: Path) -> None:
    every = plate_of(made(frames, tmp_path / "every", **PART))
    for kept in ([1, 2], [2, 1]):
        some = plate_of(made(frames, tmp_path / "".join(map(str, kept)), channels=kept, **PART))
        assert some.channels == tuple(every.channels[n] for n in kept)
        assert np.array_equal(some.read("A/1/2", 1, 0, MASK), every.read("A/1/2", 1, 0, MASK))
        for place, number in enumerate(kept):
            assert np.array_equal(some.read("A/1/2", 1, place), every.read("A/1/2", 1, number))
    record = json.loads((tmp_path / "21/preprocessing.json").read_text())
    assert (record["channels"], record["channel_numbers_in_input"]) == (["membranes", "nuclei"], [2, 1])


@pytest.mark.parametrize("step", ["flat_field", "masks", "clip", "clahe"])
def test_a_step_of_a_channel_that_is_left_out(frames: Path, tmp_path: Path, step: str) -> None:
    with pytest.raises(BadInput, match=r"channel 0 \(phase\) is not among those that are kept: 1 \(nuclei\)"):
        made(frames, tmp_path / "out", channels=[1], **{step: {"channels": [0]}})
    assert not (tmp_path / "out").exists()


def write_masks(folder: Path, size: int, value: int = 255) -> Path:
    """Two channels of masks in quarters, of 4 positions, 2 times, 2 slices."""
    folder.mkdir()
    for p, t, z, c in np.ndindex(4, 2, 2, 2):
        mask = np.zeros((size, size), np.uint8)
        mask[: size // 2, c * size // 2 : (c + 1) * size // 2] = value
        Image.fromarray(mask).save(folder / f"im_c{c:03}_z{z:03}_t{t:03}_p{p:03}.png")
    return folder


@pytest.mark.parametrize("size", [48, 24])
def test_masks_from_elsewhere(frames: Path, tmp_path: Path, size: int) -> None:
    """Of the size of the images, before or after the resize; channels are OR-ed."""
    masks = write_masks(tmp_path / "masks", size)
    out = made(frames, tmp_path / "out", masks={"folder": str(masks)}, resize={"scale": 0.5})
    top = np.zeros((2, 24, 24), bool)
    top[:, :12] = True
    assert np.array_equal(plate_of(out).read("A/1/2", 1, 0, MASK) > 0, top)
    one = made(frames, tmp_path / "one", masks={"folder": str(masks), "channels": [1]}, resize={"scale": 0.5})
    top[:, :, :12] = False
    assert np.array_equal(plate_of(one).read("A/1/2", 1, 0, MASK) > 0, top)


def numbered(folder: Path, times: tuple[int, ...], slices: tuple[int, ...], size: int = 48) -> Path:
    """Frames of a position; that of time t and slice z has 4 t + z + 1 pixels of 200 in a line."""
    folder.mkdir()
    for t, z in product(times, slices):
        image = np.zeros((size, size), np.uint8)
        image[2, : 4 * t + z + 1] = 200
        Image.fromarray(image).save(folder / f"im_c0_z{z:03}_t{t:03}_p0.png")
    return folder


def pixels(out: Path) -> list[list[int]]:
    """The pixels of foreground of each time and slice."""
    plate = plate_of(out)
    times = range(plate.shape("A/1/0", MASK)[0])
    return [(plate.read("A/1/0", t, 0, MASK) > 0).sum((1, 2)).tolist() for t in times]


@pytest.mark.parametrize("stored", ["frames", "plate", "preprocessed"])
def test_masks_belong_to_the_numbers_of_times_and_slices(tmp_path: Path, stored: str) -> None:
    """Images from time 1 and slice 2 on, masks from 0 on: none gets that of its predecessor."""
    source = numbered(tmp_path / "images", (1, 2, 3), (2, 3))
    masks = {"folder": str(numbered(tmp_path / "masks", (0, 1, 2, 3), (0, 1, 2, 3)))}
    if stored != "frames":
        index_plate(source, tmp_path / "plate.zarr")
        source = tmp_path / "plate.zarr"
    if stored == "preprocessed":
        source = made(source, tmp_path / "first", times=[1, 2]) / "plate.zarr"
    expected = [[4 * t + z + 1 for z in (2, 3)] for t in (1, 2, 3)][-3 if stored != "preprocessed" else -2 :]
    assert pixels(made(source, tmp_path / "out", masks=masks)) == expected
    assert pixels(made(source, tmp_path / "last", masks=masks, times=[1], slices=[1])) == [expected[1][1:]]
    index_plate(Path(masks["folder"]), tmp_path / "masks.zarr")
    assert pixels(made(source, tmp_path / "zarr", masks={"folder": str(tmp_path / "masks.zarr")})) == expected


def test_masks_of_a_resize_along_z_have_no_numbers(tmp_path: Path) -> None:
    source = numbered(tmp_path / "images", (1,), (2, 3, 4, 5))
    masks = {"folder": str(numbered(tmp_path / "masks", (1,), (0, 1)))}
    assert pixels(made(source, tmp_path / "out", masks=masks, resize={"scale": [0.5, 1, 1]})) == [[5, 6]]


@pytest.mark.parametrize(
    ("times", "slices", "line"),
    [
        ((0, 1, 2), (2, 3), "A/1/0: has no mask of time 3, expected one for each time of .*images; it has 0, 1, 2"),
        ((1, 2, 3), (0, 1, 2), "A/1/0: has no mask of slice 3, expected one for each slice .* it has 0, 1, 2"),
    ],
)
def test_a_mask_that_is_missing(tmp_path: Path, times: tuple[int, ...], slices: tuple[int, ...], line: str) -> None:
    source = numbered(tmp_path / "images", (1, 2, 3), (2, 3))
    with pytest.raises(BadInput, match=line):
        made(source, tmp_path / "out", masks={"folder": str(numbered(tmp_path / "masks", times, slices))})
    assert not (tmp_path / "out").exists()


def lit(folder: Path) -> Path:
    """4 positions of 2 channels and 2 slices in uneven light; slice 1 of position 2 is empty, in channel 0 at 400."""
    folder.mkdir()
    light = 1 + np.add.outer(np.arange(48.0), np.arange(48.0)) / 96
    for p, c, z in np.ndindex(4, 2, 2):
        noise = np.random.default_rng((p, c, z)).uniform(900, 1100, (48, 48))
        noise[10:20, 8 * p : 8 * p + 12] *= 3
        image = np.full((48, 48), 400 * (1 - c)) if (p, z) == (2, 1) else noise * light
        Image.fromarray(image.astype(np.uint16)).save(folder / f"im_c{c}_z{z}_t0_p{p}.png")
    return folder


@pytest.mark.parametrize("scale", [None, 0.5, [0.5, 1, 1]])
def test_frames_of_one_value_are_empty_in_all_steps(tmp_path: Path, scale) -> None:
    steps = {"flat_field": {"block_size": 8}, "masks": {"channels": [0, 1], "radius": 1}, "tiles": {"size": [12, 12]}}
    steps |= {"clip": {"percentiles": [20, 80]}, "clahe": {"channels": [1], "kernel_size": 12}}
    steps |= {"resize": {"scale": scale}} if scale else {}
    out = made(lit(tmp_path / "frames"), tmp_path / "out", **steps)
    plate, slices = plate_of(out), 1 if isinstance(scale, list) else 2
    assert all(np.ptp(plate.read("A/1/2", 0, channel)[-1]) == 0 for channel in range(2))
    assert not plate.read("A/1/2", 0, 0, MASK)[-1].any()
    for row in read_statistics(out / "statistics.csv"):
        of_one = row.position in ("", "A/1/2")
        assert row.empty == of_one, row
        kept = [plate.read(p, 0, row.channel)[z] for p in plate.positions for z in range(slices)
                if row.position in ("", p) and (p, z) != ("A/1/2", slices - 1)]  # fmt: skip
        assert row.voxels == sum(section.size for section in kept)
        assert row.mean == pytest.approx(np.mean(kept, dtype=np.float64) if kept else 0)
    tiles = read_statistics(out / "tiles.csv")
    assert {(row.position, row.z) for row in tiles if row.empty} == {("A/1/2", slices - 1)}
    record = json.loads((out / "preprocessing.json").read_text())["steps"]
    assert record[0]["result"]["0"]["images"] == 7
    told = record[6]["result"]
    assert told["empty_images"] == {"0": 1, "1": 1}
    assert told["empty"][0] == {"position": "A/1/2", "time": 0, "channel": "0", "slice": slices - 1}


def spoiled(frames: Path, folder: Path, value: float) -> Path:
    """A plate of one channel of floats: constant, or with one NaN in it."""
    folder.mkdir()
    for p in range(2):
        image = np.random.default_rng(p).random((48, 48)).astype(np.float32)
        if np.isnan(value):
            image[3, p] = np.nan
        else:
            image[:] = value
        np.save(folder / f"im_c0_z0_t0_p{p}.npy", image)
    return folder


@pytest.mark.parametrize(
    ("steps", "value", "line"),
    [
        ({}, 7.0, "channel 0: all images are constant, expected some with light"),
        ({"flat_field": {"block_size": 8}}, 7.0, "channel 0: all images are constant"),
        ({}, np.nan, r"im_c0_z0_t0_p0.npy: pixel \(3, 0\) is no finite number"),
        ({"channels": ["actin"]}, 7.0, "channel actin has no images; the channels are 0"),
    ],
)
def test_constant_images_nan_and_missing_channels(frames: Path, tmp_path: Path, steps, value: float, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        made(spoiled(frames, tmp_path / "spoiled", value), tmp_path / "out", **steps)
    assert not (tmp_path / "out.manifest.json").exists()


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ({"masks": {"channels": [1], "radius": 20}}, "the mask is empty, no position has foreground"),
        ({"masks": {"folder": "masks0"}}, "masks0: the mask is empty"),
        ({"masks": {"folder": "masks40"}}, r"masks of \(40, 40\), expected \(48, 48\)"),
        ({"flat_field": {"block_size": 20}}, "fewer than 3 blocks of 20"),
        ({"tiles": {"size": [64, 64]}}, "48 voxels along an axis, expected at least the 64 of a tile"),
        (
            {"tiles": {"size": [40, 40], "min_fraction": 1.0}, "masks": {"channels": [2], "radius": 1}},
            "no tile has 1 of foreground",
        ),
        ({"split": {"by": "time"}}, "split by time: 2 values for 3 parts"),
        ({"times": [5]}, "has no time 5"),
        ({"split": {"file": "split.json"}}, "split.json: no split"),
    ],
)
def test_settings_that_do_not_fit_the_plate(frames: Path, tmp_path: Path, monkeypatch, steps, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_masks(tmp_path / "masks0", 48, 0)
    write_masks(tmp_path / "masks40", 40)
    with pytest.raises(BadInput, match=line):
        made(frames, tmp_path / "out", **steps)
    assert not (tmp_path / "out.manifest.json").exists()
