import json

import numpy as np
import pytest

from emsuite.evaluation.scores import variation_of_information
from emsuite.io.volume import create_volume, open_volume
from emsuite.segmentation.find_segments import lookup_digest, read_thresholds


@pytest.fixture
def options(cells):
    """What each stage is given, by name; what it reads and writes lies in the folder of the test."""
    fragments = ("--fragments", "fragments.zarr/fragments")
    return {
        "extract_fragments": ("--affs", cells.path / "affs", "--out", "."),
        "agglomerate": ("--affs", cells.path / "affs", *fragments, "--out", "graph/edges"),
        "find_segments": ("--nodes", "graph/nodes", "--edges", "graph/edges", "--out", "lookup"),
        "extract_segmentation": (*fragments, "--lookup", "lookup", "--out", "segmentation.zarr"),
    }


@pytest.fixture
def chain(call_script, options):
    """Call a stage by name."""
    return lambda stage, *more: call_script(f"04_segment/{stage}.py", *options[stage], *more)


@pytest.mark.slow
def test_from_affinities_to_the_cells(chain, cells, tmp_path, call_script):
    for stage, more, line in [
        ("extract_fragments", (), "fragments; fragments.zarr"),
        ("agglomerate", ("--merge-function", "mean"), "edges; graph/edges"),
        ("find_segments", ("--thresholds", "0.28,0.9,0.01"), "segments at threshold 0.28, "),
    ]:
        done = chain(stage, *more)
        assert done.code == 0, done.err
        assert line in done.out
    assert read_thresholds(tmp_path / "lookup")[:3] == [0.28, 0.29, 0.3]
    labels = ("--labels", cells.path / "labels")
    scored = call_script(
        "04_segment/evaluate.py",
        "--fragments",
        "fragments.zarr/fragments",
        "--lookup",
        "lookup",
        *labels,
        "--out",
        "scores",
    )
    assert scored.code == 0, scored.err
    done = chain("extract_segmentation", "--scores", "scores/scores.json")
    assert done.code == 0, done.err
    assert "segmentation at threshold 0." in done.out
    voi = variation_of_information(open_volume(tmp_path / "segmentation.zarr/segmentation").read(), cells.labels)
    assert (voi.split, voi.merge) == pytest.approx((0, 0), abs=1e-9)
    assert json.loads((tmp_path / "scores/scores.json").read_text())["lookup_digest"] == lookup_digest(
        tmp_path / "lookup"
    )
    assert chain("find_segments", "--thresholds", "0.28,0.6,0.01").code == 0
    done = chain("extract_segmentation", "--scores", "scores/scores.json")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "scores.json: scores other lookup tables than lookup; evaluate these first" in done.err


@pytest.mark.parametrize("workers", [1, 2])
def test_stdout_is_for_results_alone(run_script, options, workers):
    """waterz prints its progress there, in this process and in workers."""
    blocks = ("--block-size", "160,384,448", "--context", "80,80,80")
    options["extract_fragments"] += ("--epsilon", "0.1", *blocks)
    done = run_script("04_segment/extract_fragments.py", *options["extract_fragments"], "--workers", str(workers))
    assert done.stdout.splitlines()[1:] == [], done.stderr
    assert done.stdout.endswith(" fragments; fragments.zarr\n")
    done = run_script("04_segment/agglomerate.py", *options["agglomerate"], "--workers", str(workers))
    assert done.stdout.splitlines()[1:] == [], done.stderr
    assert done.stdout.endswith(" edges; graph/edges\n")


@pytest.mark.parametrize(
    ("value", "line"),
    [(0, "affs: yields no fragment"), (1, "affs: all affinities are 1"), (np.nan, "affs: holds nan to nan (or NaN)")],
)
def test_affinities_that_say_nothing_end_in_one_line(chain, cells, tmp_path, value, line):
    affs = create_volume(cells.path / "affs", cells.affs.shape, np.float32, (8, 8, 8), (80, 160, 240))
    affs.write(affs.roi, np.full(affs.shape, value, np.float32))
    done = chain("extract_fragments")
    assert done.code == 2, done.err
    assert [row for row in done.err.splitlines() if not row.startswith("fragments: ")] == done.err.splitlines()[-1:]
    assert line in done.err
    assert not list(tmp_path.rglob("*.manifest.json"))
    done = chain("agglomerate")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "fragments.zarr: unfinished" in done.err


def test_bad_input_is_one_line_and_leaves_nothing(chain, tmp_path):
    for stage, more, line in [
        ("agglomerate", (), "fragments.zarr: no such volume"),
        ("agglomerate", ("--merge-function", "median"), "'median' is not one of 'mean'"),
        ("find_segments", (), "graph/nodes: no graph there"),
        ("find_segments", ("--thresholds", "0,1"), "expected three numbers as first,last,step"),
        ("extract_segmentation", (), "expected either --threshold or --scores"),
        ("extract_segmentation", ("--threshold", "0.5"), "fragments.zarr: no such volume"),
        ("extract_segmentation", ("--scores", "no.json"), "no.json: holds no number under 'threshold'"),
    ]:
        done = chain(stage, *more)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert line in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["cells.zarr"]


def test_help_shows_an_example(run_script):
    for stage in ("agglomerate", "find_segments", "extract_segmentation"):
        shown = run_script(f"04_segment/{stage}.py", "--help")
        assert shown.returncode == 0
        assert f"python 04_segment/{stage}.py --" in shown.stdout
