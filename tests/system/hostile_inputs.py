"""Inputs that nobody should write, by the hundred, for `test_hostile_inputs.py`: run in a process of their own.

    python tests/system/hostile_inputs.py FOLDER KIND...

Each input ends in a legal run, or in one line and exit code 2: no traceback, within ten seconds of computing and one
gigabyte. The system enforces both limits on this process; FOLDER/input then tells the input that it ended on.
"""

import contextlib
import faulthandler
import io
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its other pools reserve a gigabyte at once

import click
import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from builders import ROOT, command_of, write_array, write_network
from emsuite.augment.registry import AUGMENTATIONS
from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.config.dataset import load_dataset
from emsuite.config.network import NetworkConfig
from emsuite.plates.index_plate import index_plate
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.synthesize import LabelFreeSettings, synthesize_frames
from emsuite.published.published import convert
from emsuite.segmentation.graph_tables import write_block
from emsuite.segmentation.region_graph import Edges, Nodes
from emsuite.targets.heads import AffinitiesHead, LsdsHead
from emsuite.workflow.plan import load_plan
from emsuite.workflow.settings import WorkflowConfig

SECONDS, BYTES = 10, 2**30
MANY = int(os.environ.get("EMSUITE_HOSTILE_INPUTS", "1"))
"""For a longer search: how many times as many inputs, and then other ones in each run."""
NUMBERS = [0, 1, 2, 3, -1, 2**31, 2**53, 2**63, 2**64, -(2**70), 10**18, 10**30, 10**300, 0.5, 1e300, -1e300, 5e-324,
           float("nan"), float("inf"), -float("inf")]  # fmt: skip
TEXTS = ["", " ", "\0", "\n", "\x1b[31m", "{}", "../..", "/", "@", "a" * 300, "forward", "class", "none", "0b_", "~",
         "2020-13-45", "1:2", "--out", "{a}", "a=b", "é", "\u202e", "s3://a/b", "x@:,:,:"]  # fmt: skip
ODD_YAML = ["0b_", "1" * 5000, "!!int abc", "!!binary x", "!!timestamp x", "!!set {a}", "[" * 500, "&a [*a]", "'",
            "{<<: 3}", "{[1]: 2}", "*x", "- a\n--- b", "\t", "{a: 1, a: 2}", "=", "%", "2020-13-45"]  # fmt: skip
PLAIN = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.text(max_size=6), st.none(), st.booleans())
DEEP = st.integers(1, 200).map(lambda levels: json.loads("[" * levels + "]" * levels))
COUNTS = st.sampled_from([1, 2, 3, 5, 20, 2**31, 2**50, 10**18])
TRIPLES = st.lists(COUNTS, min_size=3, max_size=3)
VALUES = st.one_of(
    PLAIN,
    COUNTS,
    st.sampled_from([1e-9, 0.1, 0.5, 1.0, 1e5, 1e30]),
    TRIPLES,
    st.lists(TRIPLES, min_size=1, max_size=3),
    st.lists(st.lists(TRIPLES, min_size=1, max_size=2), min_size=1, max_size=2),
    st.lists(PLAIN, max_size=3),
    st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=3),
    st.lists(st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=3), min_size=1, max_size=2),
    st.dictionaries(st.one_of(st.sampled_from(TEXTS), st.integers(0, 3)), PLAIN, max_size=2),
    DEEP,
)
JSON = st.one_of(
    VALUES.map(lambda value: json.dumps(value, default=str)),
    st.sampled_from(["", "{", "[]", "5", "null", "[" * 100_000, '{"a": ' * 50_000, "1" * 5000, "\ufeff{}"]),
)
GENERATED = settings(derandomize=MANY == 1, database=None, deadline=None, phases=[Phase.generate],
                     suppress_health_check=list(HealthCheck))  # fmt: skip


class Runner:
    """Runs one input after the other, each within the limits, and counts."""

    def __init__(self, folder: Path):
        self.folder, self.runs, self.refused = folder, 0, 0
        self.commands: dict[str, click.Command] = {}

    def __call__(self, call: Callable[[], Any], what: Any) -> None:
        (self.folder / "input").write_text(repr(what), errors="backslashreplace")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing: the machine may be busy
        signal.alarm(6 * SECONDS)  # a pipe that is waited for computes nothing
        code, err = _ending(call)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        lines = [line for line in err.splitlines() if line.startswith("error:")]
        assert code in (0, 2) or (code == 1 and "the loss" in err), (code, err, what)
        assert len(lines) == (code != 0), (err, what)
        assert not lines or (err.rstrip("\n").splitlines()[-1] == lines[0] and len(lines[0]) < 2000), (err, what)
        self.runs, self.refused = self.runs + 1, self.refused + (code != 0)

    def script(self, name: str, *arguments: Any) -> None:
        """Run a stage script in this process."""
        if name not in self.commands:
            self.commands[name] = command_of(ROOT / name)
        words = [str(argument) for argument in arguments]
        self(lambda: self.commands[name].main(words), (name, words, _told(words)))


def _told(words: list[str]) -> str:
    """What the yaml file of the network on a command line holds."""
    file = Path(words[0]) / "network.yaml" if words else Path()
    return file.read_text(errors="replace") if file.is_file() else ""


def _ending(call: Callable[[], Any]) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            call()
        except SystemExit as end:
            code = int(end.code or 0)
        except BadInput as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
    return code, err.getvalue()


def keys_of(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a settings class, those of settings within it too."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys_of(kind, (*above, name))


def put(content: Any, keys: tuple[str | int, ...], value: Any) -> None:
    """Set the value at `keys`, making mappings on the way."""
    for key in keys[:-1]:
        content = content[key] if isinstance(content, list) else content.setdefault(key, {})
        if not isinstance(content, dict | list):
            return
    content[keys[-1]] = value


SLOW = {("training", "compile")}  # runs a compiler
NETWORK_KEYS = sorted(set(keys_of(NetworkConfig)) - SLOW)
NETWORK_KEYS += [("heads", "affs", key) for key in AffinitiesHead.model_fields]
NETWORK_KEYS += [("heads", "lsds", key) for key in LsdsHead.model_fields]
NETWORK_KEYS += [("heads", name) for name in ("forward", "loss", "raw", "1", "a.b")]
NETWORK_KEYS += [("unet", "stem", "kernel"), ("unet", "stem", "factor")]
AUGMENT_KEYS = [(kind, key) for kind in AUGMENTATIONS for key in kind.model_fields]
GOOD = {
    "voxel_size": [10, 10, 10],
    "unet": {"num_fmaps": 2, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]},
    "heads": {
        "affs": {"target": "affinities", "neighborhood": [[-1, 0, 0]]},
        "lsds": {"target": "lsds", "sigma": 20.0},
    },
    "training": {"iterations": 1, "input_shape": [20, 20, 20], "sampling": {}, "log_every": 1},
    "prediction": {"input_shape": [28, 28, 28]},
}
SPACING = {"control_point_spacing": [5, 5, 5], "jitter_sigma": [1, 1, 1]}


def write_volume(path: Path) -> Path:
    """A volume of 28^3 voxels: raw, and two neurons."""
    raw = np.random.default_rng(0).integers(0, 256, (28, 28, 28)).astype(np.uint8)
    labels = np.ones(raw.shape, np.uint64)
    labels[:, :, 14:] = 2
    write_array(path / "volumes/raw", raw, (10, 10, 10))
    write_array(path / "volumes/labels/neuron_ids", labels, (10, 10, 10))
    return path


def networks(run: Runner) -> None:
    """Values at any key of network.yaml, and yaml that is none: described, and trained for one iteration."""
    volume, folder = write_volume(run.folder / "v.zarr"), run.folder / "d/n"
    folder.mkdir(parents=True)

    def both(text: str) -> None:
        (folder / "network.yaml").write_text(text, encoding="utf-8", errors="replace")
        run.script("02_train/train.py", folder, "--data", volume, "--iterations", 1, "--device", "cpu")
        for name in ("checkpoints", "log", "snapshots"):
            shutil.rmtree(folder / name, ignore_errors=True)

    @settings(GENERATED, max_examples=110 * MANY)
    @given(st.lists(st.tuples(st.sampled_from(NETWORK_KEYS), VALUES), min_size=1, max_size=2))
    def values(changes: list) -> None:
        content = json.loads(json.dumps(GOOD))
        for keys, value in changes:
            put(content, keys, value)
        both(yaml.safe_dump(content))

    @settings(GENERATED, max_examples=30 * MANY)
    @given(st.sampled_from(AUGMENT_KEYS), VALUES)
    def augmentations(key: tuple, value: Any) -> None:
        name = get_args(key[0].model_fields["name"].annotation)[0]
        step = {"name": name} | (SPACING if name == "elastic" else {}) | {key[1]: value}
        both(yaml.safe_dump(GOOD | {"training": GOOD["training"] | {"augment": [step]}}))  # type: ignore[operator]

    @settings(GENERATED, max_examples=30 * MANY)
    @given(st.sampled_from(NETWORK_KEYS), st.one_of(st.sampled_from(ODD_YAML), st.text(max_size=30)))
    def texts(keys: tuple, text: str) -> None:
        both("\n".join("  " * level + f"{key}: " for level, key in enumerate(keys)) + text)

    values(), augmentations(), texts()


def command_lines(run: Runner) -> None:
    """Values of options, and of `--set`."""
    folder = write_network(run.folder / "e/n")
    graph, affs = write_graph(run.folder / "graph"), run.folder / "affs.zarr/affs"
    write_array(affs, np.zeros((3, 8, 8, 8), np.uint8))
    word = st.one_of(PLAIN.map(str), st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=3).map(
        lambda numbers: ",".join(map(str, numbers)))).filter(lambda text: "\0" not in text)  # fmt: skip
    out = run.folder / "out"
    stages: dict[str, tuple[tuple, list[str]]] = {
        "02_train/describe.py": ((folder,), ["--input-shape"]),
        "04_segment/find_segments.py": (
            ("--nodes", graph / "nodes", "--edges", graph / "edges", "--out", out), ["--thresholds", "--out"]),
        "04_segment/extract_fragments.py": (
            ("--affs", affs, "--out", out, "--workers", 1),
            ["--block-size", "--context", "--workers", "--min-seed-distance", "--epsilon", "--filter-fragments",
             "--flood", "--debris", "--mask", "--affs"]),
        "01_data/synthesize.py": (
            ("--out", out / "p.zarr"), ["--shape", "--seed", "--voxel-size", "--thickest", "--blur"]),
    }  # fmt: skip
    pairs = [(script, option) for script, (_, names) in stages.items() for option in names]

    @settings(GENERATED, max_examples=80 * MANY)
    @given(st.sampled_from(pairs), word)
    def values(pair: tuple[str, str], text: str) -> None:
        script, option = pair
        if script.startswith("01_data") and option != "--shape":
            text = f"{text}x"  # a good value would synthesize a volume, which takes long
        if (option, text) in (("--workers", "2"), ("--workers", "3"), ("--out", "..")):
            return
        run.script(script, *stages[script][0], option, text)
        shutil.rmtree(out, ignore_errors=True)

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.sampled_from(NETWORK_KEYS), st.one_of(VALUES.map(repr), st.sampled_from(ODD_YAML)))
    def overrides(keys: tuple, text: str) -> None:
        run.script("02_train/describe.py", folder, "--set", ".".join(keys) + "=" + text.replace("\0", ""))

    values(), overrides()


def datasets(run: Runner) -> None:
    """Values at any key of a data set, and of the workflow's configuration."""
    good = yaml.safe_load((ROOT / "01_data/datasets/fib25.yaml").read_text())
    file = run.folder / "fib25.yaml"

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.sampled_from([*good, "folder", "synthesis", "mask", "segmentation"]), VALUES)
    def values(key: str, value: Any) -> None:
        file.write_text(yaml.safe_dump(good | {key: value}), encoding="utf-8", errors="replace")
        run(lambda: load_dataset(file, file.parent), (key, value))

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.sampled_from(sorted(WorkflowConfig.model_fields)), VALUES)
    def plans(key: str, value: Any) -> None:
        run(lambda: load_plan({"dataset": "fib25", "network": "small"} | {key: value}, ROOT), (key, value))

    values(), plans()


def write_graph(folder: Path) -> Path:
    """A graph of three fragments in one block."""
    ones = np.ones(3)
    ids = np.array([1, 2, 3], np.uint64)
    write_block(folder / "nodes", 0, Nodes(ids, ones, ones, ones, np.ones(3, np.int64)))
    write_block(folder / "edges", 0, Edges(ids[:2], ids[1:], np.array([0.1, 0.9], np.float32), np.ones(2, np.int64)))
    write_json(folder / "nodes.manifest.json", {"settings": {}, "blocks": 1, "digest": "d"})
    about = {"settings": {"merge_function": "mean"}, "blocks": 1, "fragments_digest": "d"}
    write_json(folder / "edges.manifest.json", about)
    return folder


def manifests(run: Runner) -> None:
    """JSON, tables and lists beside outputs, by somebody else."""
    graph, out = write_graph(run.folder / "graph2"), run.folder / "lookup"
    find = ("04_segment/find_segments.py", "--nodes", graph / "nodes", "--edges", graph / "edges", "--out", out)
    scores = run.folder / "results/v/scores.json"
    scores.parent.mkdir(parents=True)
    network, volume = write_network(run.folder / "f/n"), write_volume(run.folder / "w.zarr")
    train = ("02_train/train.py", network, "--data", volume, "--device", "cpu", "--iterations")
    run.script(*train, 1)
    files: dict[Path, tuple] = {
        graph / "nodes.manifest.json": find,
        graph / "edges.manifest.json": find,
        out.with_name("lookup.unfinished.json"): find,
        out.with_name("lookup.manifest.json"): find,
        scores: ("04_segment/summary.py", run.folder / "results"),
        network / "log/losses.csv": (*train, 2),
        network / "checkpoints/checkpoint_1.pt.manifest.json": (*train, 2),
    }
    before = {path: path.read_bytes() if path.exists() else None for path in files}

    @settings(GENERATED, max_examples=90 * MANY)
    @given(st.sampled_from(sorted(files)), JSON, st.booleans(), VALUES)
    def values(path: Path, text: str, whole: bool, value: Any) -> None:
        good = json.loads(before[path] or b"{}") if path.suffix == ".json" else None
        if not whole and isinstance(good, dict) and good:
            text = json.dumps(good | {sorted(good)[len(text) % len(good)]: value}, default=str)
        path.write_text(text, encoding="utf-8", errors="replace")
        run.script(*files[path])
        (network / "checkpoints/checkpoint_2.pt").unlink(missing_ok=True)
        for other, content in before.items():
            if content is None:
                other.unlink(missing_ok=True)
            else:
                other.write_bytes(content)

    values()


def checkpoints(run: Runner) -> None:
    """Checkpoints with other values, with bytes that were changed, and cut off."""
    network, volume = write_network(run.folder / "g/n"), write_volume(run.folder / "x.zarr")
    run.script("02_train/train.py", network, "--data", volume, "--device", "cpu", "--iterations", 1)
    file, out = network / "checkpoints/checkpoint_1.pt", run.folder / "p.zarr"
    whole = file.read_bytes()
    tensors = st.sampled_from([
        torch.zeros(3), torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.int64), torch.zeros(()),
        torch.zeros(1).as_strided((2**40,), (0,)), torch.zeros(3).to_sparse(), torch.zeros(3, dtype=torch.complex64),
    ])  # fmt: skip
    keys = st.sampled_from([("iteration",), ("format",), ("architecture",), ("architecture", "unet"), ("networks",),
                            ("networks", "network"), ("networks", "network", "heads.affs.bias"), ("averages",),
                            ("averages", "network"), ("optimizers",), ("optimizers", "network", "state"),
                            ("provenance",),
                            ("optimizers", "network", "state", 0), ("optimizers", "network", "param_groups"),
                            ("frozen_digest",), ("normalization",), ("normalization", "settings"),
                            ("normalization", "grey_scale"), ("optimizers", "network"), (0,)])  # fmt: skip

    def predicted() -> None:
        run.script("03_predict/predict.py", network, "--raw", volume / "volumes/raw", "--out", out, "--device", "cpu")
        shutil.rmtree(out, ignore_errors=True)

    def resumed() -> None:
        run.script("02_train/train.py", network, "--data", volume, "--device", "cpu", "--iterations", 2)
        for left in file.parent.glob("checkpoint_2*"):
            left.unlink()

    @settings(GENERATED, max_examples=60 * MANY)
    @given(keys, st.one_of(VALUES, tensors), st.booleans())
    def values(path: tuple, value: Any, predicts: bool) -> None:
        file.write_bytes(whole)
        content = torch.load(file, weights_only=True)
        put(content, path, value)
        try:
            torch.save(content, file)
        except (OverflowError, UnicodeEncodeError):  # not even pickle can hold the value
            return
        predicted() if predicts else resumed()

    @settings(GENERATED, max_examples=20 * MANY)
    @given(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8), st.booleans())
    def bytes_of(position: int, change: bytes, cut: bool) -> None:
        file.write_bytes(whole[:position] + (b"" if cut else change + whole[position + len(change) :]))
        predicted()

    values(), bytes_of()


def bundles(run: Runner) -> None:
    """TensorFlow's index with bytes that were changed, as if their checksums were right."""
    from emsuite.published import tensorflow_bundle

    folder = run.folder / "02_train/fib25/baseline"
    shutil.copytree(ROOT / "01_data/datasets", run.folder / "01_data/datasets")
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "02_train/fib25/dataset.yaml", folder.parent)
    shutil.copy(ROOT / "02_train/fib25/baseline/network.yaml", folder)
    prefix = run.folder / "train_net_checkpoint_5"
    recorded = next((ROOT / "tests/fixtures/tensorflow").rglob("*.index"))
    for file in recorded.parent.glob(f"{recorded.stem}.*"):
        shutil.copy(file, prefix.with_name(prefix.name + file.name.removeprefix(recorded.stem)))
    index = prefix.with_name(f"{prefix.name}.index")
    whole = index.read_bytes()
    tensorflow_bundle.google_crc32c = type("Right", (), {"value": staticmethod(lambda data: 0)})
    tensorflow_bundle.unmask_crc32c = lambda masked: 0

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=6), st.booleans())
    def values(position: int, change: bytes, cut: bool) -> None:
        change = b"\xff" * len(change) if position % 3 == 0 else change
        index.write_bytes(whole[:position] + (b"" if cut else change + whole[position + len(change) :]))
        run(lambda: convert(prefix, folder), (position, change, cut))

    values()


def plates(run: Runner) -> None:
    """Values at any key of a file of preprocessing and in the documents of a plate, and tables of frames."""
    small = LabelFreeSettings(positions=3, times=1, slices=2, size=32, cells=3, empty=0.0)
    synthesize_frames("label-free", small, run.folder / "frames")
    index_plate(run.folder / "frames", run.folder / "good.zarr")
    file, out = run.folder / "preprocess.yaml", run.folder / "ready"
    good = {"input": str(run.folder / "frames"), "output": str(out), "masks": {"channels": [1], "radius": 1}}
    keys = sorted({("input",), *set(keys_of(PreprocessSettings))} - {("output",)})

    @settings(GENERATED, max_examples=90 * MANY)
    @given(st.sampled_from(keys), VALUES)
    def values(path: tuple[str, ...], value: Any) -> None:
        content = json.loads(json.dumps(good))
        put(content, path, value)
        file.write_text(yaml.safe_dump(content), encoding="utf-8", errors="replace")
        run.script("01_data/preprocess.py", file, "--workers", 1)

    documents = ("zarr.json", "A/1/zarr.json", "A/1/1/zarr.json", "A/1/1/0/zarr.json")

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.sampled_from(documents), st.lists(st.integers(0, 20), max_size=8), VALUES)
    def plate_documents(name: str, way: list[int], value: Any) -> None:
        plate = run.folder / "odd.zarr"
        shutil.rmtree(plate, ignore_errors=True)
        shutil.copytree(run.folder / "good.zarr", plate)
        whole = json.loads((plate / name).read_text())
        content, last = whole, None
        for step in way:
            if isinstance(content, dict | list) and content:
                last = (
                    content,
                    (sorted(content)[step % len(content)] if isinstance(content, dict) else step % len(content)),
                )
                content = content[last[1]]
        if last:
            last[0][last[1]] = value
        (plate / name).write_text(json.dumps(whole, default=str), encoding="utf-8", errors="replace")
        file.write_text(yaml.safe_dump(good | {"input": str(plate)}))
        run.script("01_data/preprocess.py", file, "--workers", 1)

    rows = (run.folder / "frames/frames_meta.csv").read_text().splitlines()

    @settings(GENERATED, max_examples=60 * MANY)
    @given(st.integers(0, len(rows) - 1), st.integers(0, 6), PLAIN)
    def frame_tables(row: int, column: int, value: Any) -> None:
        cells = [line.split(",") for line in rows]
        cells[row][column] = str(value)
        text = "\n".join(",".join(line) for line in cells)
        (run.folder / "frames/frames_meta.csv").write_text(text, encoding="utf-8", errors="replace")
        run.script("01_data/index_plate.py", run.folder / "frames", run.folder / "x.zarr", "--workers", 1)

    values(), plate_documents(), frame_tables()


KINDS = {kind.__name__: kind for kind in (networks, command_lines, datasets, manifests, checkpoints, bundles, plates)}


def main() -> None:
    """Run the kinds of the command line; print how many inputs there were, and how many of them were refused."""
    torch.set_num_threads(1)
    faulthandler.enable()
    folder, kinds = Path(sys.argv[1]).resolve(), sys.argv[2:]
    (folder / "here").mkdir()
    os.chdir(folder / "here")  # outputs with odd names lie here, not in the project
    run = Runner(folder)
    # what is only reserved does not count, as it would for RLIMIT_AS
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = int(status["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + BYTES, used + BYTES))
    for kind in kinds:
        KINDS[kind](run)
    print(json.dumps({"inputs": run.runs, "refused": run.refused}))


if __name__ == "__main__":
    main()
