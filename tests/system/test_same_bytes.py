"""The same seed gives the same files: all stages run twice, in two folders, and their outputs are compared as bytes.

Manifests, logs, scores.json and the report tell when a run was and how long it took. All other files must be the same.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import builders
from emsuite.common.provenance import published
from emsuite.config.network import load_network
from emsuite.published.published import convert

TELLS_TIMES = re.compile(
    r"\.(manifest|masks)\.json$|\.pt\.emsuite$|events\.out\.tfevents|^d/n/log/losses\.csv$|scores\.json$|report\.html$"
)
CUBE = ["--shape", "40,40,40", "--voxel-size", "10,10,10", "--seed", "3"]


def run_all(call: Callable, folder: Path, stop: int | None) -> Path:
    """Run every stage in `folder`; the training stops after `stop` iterations, and another run ends it."""
    folder.mkdir()
    builders.write_network(folder / "d/n", training={"checkpoint_every": 2, "snapshot_every": 2, "average": 0.9})
    volume, pieces = "v.zarr/volumes", ["--workers", 1]
    commands = [
        ["01_data/synthesize.py", "--out", "v.zarr", *CUBE],
        ["01_data/create_masks.py", "v.zarr", "--dataset", "phantom"],
        *[["02_train/train.py", "d/n", "--data", "v.zarr", "--iterations", n, "--seed", 1] for n in (stop, 4) if n],
        ["03_predict/predict.py", "d/n", "--raw", f"{volume}/raw", "--out", "p.zarr"],
        ["04_segment/extract_fragments.py", "--affs", "p.zarr/affs", "--out", ".", "--block-size", "200,200,200",
         "--context", "50,50,50", *pieces],
        ["04_segment/agglomerate.py", "--affs", "p.zarr/affs", "--fragments", "fragments.zarr/fragments", "--out",
         "graph/edges", *pieces],
        ["04_segment/find_segments.py", "--nodes", "graph/nodes", "--edges", "graph/edges", "--out", "lookup",
         "--thresholds", "0.2,0.8,0.2"],
        ["04_segment/evaluate.py", "--fragments", "fragments.zarr/fragments", "--lookup", "lookup", "--out", ".",
         "--labels", f"{volume}/labels/neuron_ids", "--raw", f"{volume}/raw", "--skeletons", "v.skeletons", "--edges",
         "graph/edges", *pieces],
        ["04_segment/extract_segmentation.py", "--fragments", "fragments.zarr/fragments", "--lookup", "lookup",
         "--scores", "scores.json", "--out", "s.zarr", *pieces],
    ]  # fmt: skip
    for command in commands:
        ended = call(*command, cwd=folder)
        assert ended.code == 0, (command, ended.err)
    return folder


@pytest.mark.slow
def test_two_runs_give_the_same_files(call_script: Callable, tmp_path: Path) -> None:
    straight, stopped = run_all(call_script, tmp_path / "a", None), run_all(call_script, tmp_path / "b", 2)
    shutil.rmtree(stopped / "d/n/snapshots/batch_3.zarr")  # the first batch of the run that went on
    first, second = builders.files_in(straight), builders.files_in(stopped)
    compared = sorted(name for name in first if not TELLS_TIMES.search(name))
    assert compared == sorted(name for name in second if not TELLS_TIMES.search(name))
    for kind in (
        ".pt", "v.zarr/volumes/raw", "labels_mask", "v.skeletons", "d/n/snapshots", "p.zarr/affs", "fragments.zarr",
        "graph/nodes", "graph/edges", "lookup", "s.zarr/segmentation", "scores.csv", "errors.csv", ".svg", ".jpg",
        "contingency",
    ):  # fmt: skip
        assert any(kind in name for name in compared), kind
    assert [name for name in compared if first[name] != second[name]] == []
    for name in filter(re.compile(r"\.(manifest|masks)\.json$").search, first):
        records = [published(json.loads(files[name])) for files in (first, second)]
        for key in ("settings", "seed", "inputs", "digest", "contents"):
            # the state of a user's files is that of the copies of each run, and scores tell times
            varies = r'"state:\w+"|(?<="scores": ){[^}]*}'
            told = [re.sub(varies, '"varies"', json.dumps(record.get(key))) for record in records]
            assert told[0] == told[1], (name, key)
    reports = [re.sub(rb"started .*|command</th>.*|(?<=number\">)[\d.]+ s", b"", files["report.html"])
               for files in (first, second)]  # fmt: skip
    assert reports[0] == reports[1]


def test_two_conversions_give_the_same_file(thin_networks: Path, tmp_path: Path) -> None:
    made = []
    for name in "ab":
        folder = tmp_path / name / "zebrafinch/mtlsd"
        shutil.copytree(thin_networks / "zebrafinch/mtlsd", folder)
        shutil.copy(thin_networks / "zebrafinch/dataset.yaml", folder.parent)
        load_network(folder)
        made.append(convert(builders.recorded("zebrafinch", "mtlsd"), folder, optimizer=True).read_bytes())
    assert made[0] == made[1]
