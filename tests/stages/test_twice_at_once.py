"""Each stage that writes, started twice at once with one output: one run makes it, and its manifest tells the truth."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import preprocessed_plate
from builders import RECORDED, ROOT, files_in, write_array, write_network
from conftest import Cells, Ended
from emsuite.io.volume import open_volume
from emsuite.training.log import read_losses
from plates_to_score import target_and_prediction

Call = Callable[..., Ended]
BLOCKS = ("--block-size", "160,160,160", "--context", "64,64,64")


def both(script: str, *commands: Sequence[Any], delay: float = 0) -> list[tuple[int, str]]:
    """Run a script with each of the command lines, `delay` seconds apart; return exit codes and standard error."""
    running = []
    for words in commands:
        command = [sys.executable, ROOT / script, *map(str, words)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        time.sleep(delay)
    ends = [process.communicate(timeout=120)[1] for process in running]
    return list(zip([process.returncode for process in running], ends, strict=True))


def check(ends: list[tuple[int, str]]) -> set[int]:
    """Check that each run ended well, or was refused by a line that names the other; return the winners."""
    for code, errors in ends:
        if code:
            assert code == 2, errors
            assert "another run is writing it (process" in errors.splitlines()[-1]
            assert "Traceback" not in errors
    winners = {index for index, (code, _) in enumerate(ends) if code == 0}
    assert winners
    return winners


def segment(cells: Cells, out: Path) -> None:
    """Fragments, graph and lookup tables of the cells, in the folder `out`."""
    from emsuite.segmentation.agglomerate import agglomerate_fragments
    from emsuite.segmentation.extract_fragments import extract_fragments
    from emsuite.segmentation.find_segments import find_segments
    from emsuite.segmentation.settings import FragmentSettings

    affs, fragments = cells.path / "affs", out / "fragments.zarr/fragments"
    extract_fragments(affs, out, FragmentSettings(), block_size=(160,) * 3, context=(64,) * 3)
    agglomerate_fragments(affs, fragments, out / "graph/edges", "mean")
    find_segments(out / "graph/nodes", out / "graph/edges", out / "lookup", [0.1, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.1])
def test_segmentations_at_two_thresholds(call_script: Call, cells: Cells, tmp_path: Path, delay: float) -> None:
    segment(cells, tmp_path / "made")
    affs = tmp_path / "made/lookup/segments.parquet"
    assert affs.exists()
    inputs = ("--fragments", tmp_path / "made/fragments.zarr/fragments", "--lookup", tmp_path / "made/lookup")
    script, out = "04_segment/extract_segmentation.py", tmp_path / "s.zarr"
    check(both(script, *((*inputs, "--threshold", t, "--out", out) for t in (0.1, 0.9)), delay=delay))
    threshold = json.loads((tmp_path / "s.zarr.manifest.json").read_text())["settings"]["threshold"]
    assert call_script(script, *inputs, "--threshold", threshold, "--out", tmp_path / "alone.zarr").code == 0
    assert np.array_equal(open_volume(out / "segmentation").array[...],
                          open_volume(tmp_path / "alone.zarr/segmentation").array[...])  # fmt: skip


@pytest.mark.slow
def test_the_other_steps_of_the_segmentation(cells: Cells, tmp_path: Path) -> None:
    made, affs = tmp_path / "made", ("--affs", cells.path / "affs")
    segment(cells, made)
    fragments = ("--fragments", made / "fragments.zarr/fragments")
    graph = ("--nodes", made / "graph/nodes", "--edges", made / "graph/edges")
    scored = (*fragments, "--lookup", made / "lookup", "--labels", cells.path / "labels")
    steps: dict[str, list[tuple[Any, ...]]] = {
        "extract_fragments": [(*affs, *BLOCKS, "--min-seed-distance", n, "--out", tmp_path / "f") for n in (5, 10)],
        "agglomerate": [
            (*affs, *fragments, "--merge-function", f, "--out", tmp_path / "e") for f in ("mean", "hist_quant_75")
        ],
        "find_segments": [(*graph, "--thresholds", t, "--out", tmp_path / "l") for t in ("0,1,0.1", "0,1,0.5")],
        "evaluate": [(*scored, "--block-size", f"{n},{n},{n}", "--out", tmp_path / "v") for n in (80, 160)],
    }
    for name, commands in steps.items():
        check(both(f"04_segment/{name}.py", *commands))
    of = {name: json.loads(next((tmp_path / part).parent.glob(f"{Path(part).name}.manifest.json")).read_text())
          for name, part in (("extract_fragments", "f/fragments.zarr"), ("agglomerate", "e"), ("find_segments", "l"),
                             ("evaluate", "v/contingency"))}  # fmt: skip
    assert of["extract_fragments"]["settings"] == json.loads(
        (tmp_path / "f/graph/nodes.manifest.json").read_text())["settings"]  # fmt: skip
    assert of["evaluate"]["blocks"] == len(list((tmp_path / "v/contingency/pairs").glob("*.parquet")))
    assert not [name for name in files_in(tmp_path) if name.endswith((".lock", ".part", "unfinished.json"))]


def network_and_volume(folder: Path, **training: Any) -> tuple[Path, Path]:
    network = write_network(folder / "net", training={"checkpoint_every": 1} | training)
    labels = np.ones((40, 40, 40), np.uint64)
    labels[:, :, 20:] = 2
    raw = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    for name, voxels in (("raw", raw), ("labels/neuron_ids", labels)):
        write_array(folder / "v.zarr/volumes" / name, voxels, (10, 10, 10))
    return network, folder / "v.zarr"


@pytest.mark.slow
def test_two_trainings_of_one_network(call_script: Call, tmp_path: Path) -> None:
    network, volume = network_and_volume(tmp_path, checkpoint_every=100)
    command = (network, "--data", volume, "--iterations", 300, "--device", "cpu")
    check(both("02_train/train.py", command, command))
    assert [row["iteration"] for row in read_losses(network / "log/losses.csv")] == list(range(1, 301))
    assert not (network / "checkpoints/.lock").exists()
    other = network_and_volume(tmp_path / "alone", checkpoint_every=100)[0]
    assert call_script("02_train/train.py", other, *command[1:]).code == 0
    losses = [
        [(row["iteration"], row["loss"]) for row in read_losses(net / "log/losses.csv")] for net in (network, other)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_two_finders_of_a_learning_rate(tmp_path: Path) -> None:
    network, volume = network_and_volume(tmp_path)
    command = (network, "--data", volume, "--device", "cpu")
    winners = check(both("02_train/find_learning_rate.py", *((*command, "--steps", n) for n in (40, 60))))
    rows = (network / "log/learning_rates.csv").read_text().splitlines()
    assert len(rows) - 1 <= [40, 60][max(winners)]
    assert not [name for name in files_in(network / "log") if name.endswith((".lock", ".part"))]


@pytest.mark.slow
def test_two_predictions_of_two_checkpoints(call_script: Call, tmp_path: Path) -> None:
    network, volume = network_and_volume(tmp_path)
    trained = call_script("02_train/train.py", network, "--data", volume, "--iterations", 2, "--device", "cpu")
    assert trained.code == 0, trained.err
    inputs = (network, "--raw", volume / "volumes/raw", "--device", "cpu")
    script, out = "03_predict/predict.py", tmp_path / "p.zarr"
    check(both(script, *((*inputs, "--iteration", n, "--out", out) for n in (1, 2))))
    iteration = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]["iteration"]
    assert call_script(script, *inputs, "--iteration", iteration, "--out", tmp_path / "alone.zarr").code == 0
    assert np.array_equal(open_volume(out / "affs").array[...], open_volume(tmp_path / "alone.zarr/affs").array[...])


@pytest.mark.slow
def test_two_phantoms_and_two_masks(call_script: Call, tmp_path: Path) -> None:
    out = tmp_path / "phantom.zarr"
    check(both("01_data/synthesize.py", *(("--out", out, "--shape", "40,40,40", "--seed", n) for n in (1, 2))))
    seeds = [
        json.loads((tmp_path / f"phantom.{kind}.manifest.json").read_text())["seed"] for kind in ("zarr", "skeletons")
    ]
    assert seeds[0] == seeds[1]
    alone = tmp_path / "alone.zarr"
    made = call_script("01_data/synthesize.py", "--out", alone, "--shape", "40,40,40", "--seed", seeds[0])
    assert made.code == 0, made.err
    assert files_in(out) == files_in(alone)
    check(both("01_data/create_masks.py", *((out, "--dataset", "phantom") for _ in range(2))))
    mask = open_volume(out / "volumes/labels/labels_mask")
    assert mask.array[...].all()


@pytest.mark.slow
def test_two_fetches_of_two_buckets(s3: Any, tmp_path: Path) -> None:
    content = {}
    for number in range(2):
        bodies = {f"volumes/raw/0.0.{i}": bytes([i, number]) * 2000 for i in range(40)}
        content[number] = {"volumes/raw/.zarray": b"{}"} | bodies
        place = "funke/fib25/training/trvol-250-2.zarr"
        s3.public_bucket(f"twice-{number}", {f"{place}/{key}": body for key, body in content[number].items()})
    s3.faults(slowdown=0.3)
    out = ("--dataset", "fib25", "--endpoint-url", s3.url, "--out", tmp_path)
    winners = check(both("01_data/fetch_data.py", *((*out, "--bucket", f"twice-{number}") for number in range(2))))
    assert files_in(tmp_path / place) in [content[number] for number in winners]
    (source,) = {number for number in winners if f"s3://twice-{number}/" in
                 (tmp_path / f"{place}.manifest.json").read_text()}  # fmt: skip
    assert files_in(tmp_path / place) == content[source]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.1])
def test_two_conversions_of_published_weights(thin_networks: Path, tmp_path: Path, delay: float) -> None:
    local = ("--local", RECORDED / "zebrafinch/mtlsd/train_net_checkpoint_400000")
    folders = [thin_networks / "zebrafinch/mtlsd"]
    for name in ("a", "b"):
        for part in ("01_data", "02_train"):
            shutil.copytree(thin_networks.parent / part, tmp_path / name / part)
        folders.append(tmp_path / name / "02_train/zebrafinch/mtlsd")
    options: tuple[tuple[str, ...], ...] = ((), ("--without-optimizer",))
    script = "01_data/fetch_checkpoint.py"
    winners = check(both(script, *((*local, folders[0], *option) for option in options), delay=delay))
    for folder, option in zip(folders[1:], options, strict=True):
        assert both(script, (*local, folder, *option))[0][0] == 0
    made, *alone = (voxels_and_tables(folder / "checkpoints") for folder in folders)
    assert made in [alone[number] for number in winners]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with labels and membranes, predicted heads of instances, frames of a plate, a plate with its network."""
    folder = tmp_path_factory.mktemp("twice")
    labels = np.kron(np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3), np.ones((16,) * 3, np.uint64))
    inside = np.kron(np.ones((3, 3, 3), np.uint8), np.pad(np.full((14,) * 3, 255, np.uint8), 1))
    arrays = {"v.zarr/volumes/raw": inside, "v.zarr/volumes/labels/neuron_ids": labels, "m.zarr/volumes/raw": inside,
              "m.zarr/volumes/labels/membranes": (inside == 0).astype(np.uint8), "p.zarr/mask": inside,
              "p.zarr/contour": 255 - inside, "pyramid.zarr/raw": inside}  # fmt: skip
    for name, voxels in arrays.items():
        write_array(folder / name, voxels)
    frames = ("positions=5", "size=64", "slices=1")
    words = [word for text in frames for word in ("--set", text)]
    assert both("01_data/synthesize_plate.py", (folder / "mine/frames", *words))[0][0] == 0
    preprocessed_plate.write_plate(folder / "plates")
    network = preprocessed_plate.write_network(folder / "d/n", Path("plates/ready"), training={"iterations": 2})
    target_and_prediction(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert both("02_train/train.py", (network, "--device", "cpu"))[0][0] == 0
    return folder


RAW, LABELS, MASK = "v.zarr/volumes/raw", "v.zarr/volumes/labels/neuron_ids", "p.zarr/mask"
HALF, ALL = ("--roi", "0:160,:,:"), ("--roi", "0:384,:,:")
PAIRS: dict[str, tuple[str, tuple[Sequence[Any], Sequence[Any]]]] = {
    "degrade": ("01_data/degrade.py", (("v.zarr", "o.zarr", *HALF), ("v.zarr", "o.zarr", *ALL))),
    "write_pairs": ("01_data/write_pairs.py", ((RAW, LABELS, "o.zarr", *HALF), (RAW, LABELS, "o.zarr", *ALL))),
    "create_labels": ("01_data/create_labels.py", (("m.zarr", "--smallest", 1), ("m.zarr", "--smallest", 9))),
    "make_pyramid": (
        "01_data/make_pyramid.py",
        (("pyramid.zarr/raw", "--levels", 1), ("pyramid.zarr/raw", "--levels", 2)),
    ),
    "convert": ("01_data/convert.py", ((RAW, "o.zarr/raw", *HALF), (RAW, "o.zarr/raw", *ALL))),
    "synthesize_plate": (
        "01_data/synthesize_plate.py",
        (("frames", "--set", "size=64"), ("frames", "--set", "size=64", "--set", "seed=7")),
    ),
}
_out: tuple[Any, ...] = ("mine/frames", "plate.zarr")
_config = ROOT / "config/preprocess.yaml"
PAIRS["index_plate"] = ("01_data/index_plate.py", (_out, (*_out, "--pixel-size", "500,108,108")))
PAIRS["preprocess"] = ("01_data/preprocess.py", ((_config,), (_config, "--set", "normalize.scope=position")))
for _form in ("ome-zarr", "csv", "precomputed"):
    _out = ("--segmentation", LABELS, "--format", _form, "--out", f"o.{_form}".replace("ome-", ""))
    PAIRS[f"export {_form}"] = ("04_segment/export.py", ((*_out, *HALF), (*_out, *ALL)))
_out = ("--foreground", MASK, "--contour", "p.zarr/contour", "--decoding", "bc", "--out", "o.zarr")
PAIRS["decode_instances"] = ("04_segment/decode_instances.py", (_out, (*_out, "--smallest-seed", 5000)))
_out = (RAW, "o", "--set", "patch=[16,16]", "--set", "least_density=null")
PAIRS["filter_patches"] = ("01_data/filter_patches.py", (_out, (*_out, "--set", "leave_out=[2,1,1]")))
_out = ("d/n", "--device", "cpu", "--out", "o.zarr")
PAIRS["predict_images"] = ("03_predict/predict_images.py", ((*_out, "--part", "train"), (*_out, "--part", "test")))
_out = ("predicted.zarr", "--target", "target.zarr", "--out", "o")
PAIRS["evaluate_images"] = ("04_segment/evaluate_images.py", (_out, (*_out, "--metrics", "pearson,mae")))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_other_stages(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each winner's bytes are those of its command alone."""
    script, commands = PAIRS[name]
    ends = []
    for place, both_at_once in (("both", True), *((str(index), False) for index in range(len(commands)))):
        shutil.copytree(made, tmp_path / place)
        monkeypatch.chdir(tmp_path / place)
        if both_at_once:
            winners = check(both(script, *commands))
        else:
            assert both(script, commands[int(place)])[0][0] == 0
        ends.append(voxels_and_tables(tmp_path / place))
    assert ends[0] in [ends[1 + index] for index in winners]


def voxels_and_tables(folder: Path) -> dict[str, Any]:
    """All files but records, whose times differ: of scores, the scores alone."""
    kept = {name: content for name, content in files_in(folder).items()
            if not name.endswith((".manifest.json", ".labels.json", ".emsuite", "report.html"))}  # fmt: skip
    assert not [name for name in kept if name.endswith((".lock", ".part", "unfinished.json"))]
    return {name: json.loads(content)["images"] if name.endswith("o/scores.json") else content
            for name, content in kept.items()}  # fmt: skip
