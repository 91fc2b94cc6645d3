"""The GPU's part of the benchmarks: what it needs, and that figures are written as they are measured."""

import os
import subprocess
import sys
from pathlib import Path

from builders import ROOT

ABSENT = ("numba", "llvmlite", "cc3d", "waterz", "edt", "skimage", "pyarrow", "neuroglancer", "matplotlib", "daisy",
          "tensorstore", "boto3", "pandas")  # fmt: skip
IMPORTS = f"""
import sys

for name in {ABSENT}:
    sys.modules[name] = None  # an import of it fails
"""
TRAINS_AND_PREDICTS = """
import batch, forward, gpu_profile, iteration, lsds, prediction, published_outputs, roofline, run_all, tiles
import emsuite.published.published
import emsuite.training.checkpoint, emsuite.prediction.predict, emsuite.training.trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
"""
MEASURES = """
import run_all
from pathlib import Path
from table import Row

results, seen = Path(sys.argv.pop()), []

def run(script, options, rows, end):
    seen.append(results.read_text() if results.exists() else "")
    return None if script == "batch.py" else [Row(f"row of {script}", "1 s")]

run_all.run, run_all.volume_options = run, lambda *_: []
try:
    run_all.main.main(["--part", "gpu", "--results", str(results)])
except SystemExit as end:
    assert end.code == 1, end.code
names = [script for script, *_ in run_all.PARTS["gpu"]]
for number in range(1, len(names)):
    before = names[number - 1]
    assert ("batch.py | failed" if before == "batch.py" else f"row of {before} ") in " ".join(seen[number].split())
text = results.read_text()
assert text.startswith("# Results\\n\\n## CPU\\n\\nkept\\n\\n## GPU\\n") and text.count("## GPU") == 1, text
"""


COUNTS = """
import roofline
import torch
from pathlib import Path
from torch.utils.flop_counter import FlopCounterMode
from emsuite.config.network import build_network, load_network

for name in ("zebrafinch/mtlsd", "fib25/small"):  # valid and same padding, a stem
    config = load_network(Path(sys.argv[1]) / name)
    with torch.device("meta"):
        network, raw = build_network(config), torch.empty(1, 1, *config.training.input_shape)
        with FlopCounterMode(display=False) as counted:
            logits = network(raw)
            forward = counted.get_total_flops()
            sum(values.sum() for values in logits.values()).backward()
    work = roofline.forward(config, config.training.input_shape, "bfloat16")
    assert work.flops == forward, (name, work.flops, forward)
    step = roofline.step(config)
    assert step.flops == counted.get_total_flops() * config.training.batch_size, name
    rates = roofline.Rates(1e15, 4e12)
    assert max(step.flops / rates.flops, step.bytes / rates.bytes) < step.least(rates)
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])
    command = [sys.executable, "-c", IMPORTS + code, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


def test_training_and_prediction_on_a_gpu_need_no_package_of_the_other_stages() -> None:
    done = python(TRAINS_AND_PREDICTS)
    assert done.returncode == 0, done.stderr


def test_figures_are_written_as_they_are_measured(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## CPU\n\nkept\n\n## GPU\n\nold\n")
    done = python(MEASURES, results)
    assert done.returncode == 0, done.stderr


def test_the_roofline_counts_the_arithmetic_that_torch_counts() -> None:
    done = python(COUNTS, ROOT / "02_train")
    assert done.returncode == 0, done.stderr
