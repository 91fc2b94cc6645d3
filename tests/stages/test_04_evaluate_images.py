"""04_segment/evaluate_images.py as a user runs it."""

from pathlib import Path

import pytest

from emsuite.common.documents import read_json
from plates_to_score import target_and_prediction

SCRIPT = "04_segment/evaluate_images.py"


def test_scores_and_their_folder(call_script, tmp_path: Path) -> None:
    target_and_prediction(tmp_path, 2)
    words = ("predicted.zarr", "--target", "target.zarr", "--out", "it's scored", "--metrics", "pearson,mae")
    run = call_script(SCRIPT, *words, "--masks", "--baselines", "--orientations", "xyz,xy", "--positions", "0")
    assert run.code == 0, run.err
    assert run.out.splitlines()[0].startswith("nuclei: pearson 0.99")
    assert run.out.splitlines()[0].endswith("(2 images, xyz)")
    assert run.out.splitlines()[-1] == "it's scored/report.html"
    assert list(read_json(tmp_path / "it's scored/scores.json")["images"]) == ["xyz", "xy"]
    run = call_script(SCRIPT, "predicted.zarr", "--target", "target.zarr", "--out", "s", "--target-channels", "2,1",
                      "--masks-from", "predicted.zarr", "--metrics", "r2")  # fmt: skip
    assert run.code == 0, run.err
    assert [line.split(":")[0] for line in run.out.splitlines()[:2]] == ["membranes", "nuclei"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nowhere", "--target", "target.zarr"), "nowhere: no such folder; expected a plate"),
        (("predicted.zarr", "--target", "target.zarr", "--metrics", "psnr"), "no metric 'psnr'; there are r2"),
        (("target.zarr", "--target", "predicted.zarr"), "predicted.zarr: has no channel phase, which target.zarr"),
        (("predicted.zarr", "--target", "target.zarr", "--masks", "--masks-from", "x"), "exclude each other"),
        (("predicted.zarr", "--target", "target.zarr", "--positions", "7"), "has no position 7"),
        (("predicted.zarr", "--target", "target.zarr", "--split", "split.json"), "split.json: no split"),
    ],
)
def test_bad_input_is_one_line(call_script, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    target_and_prediction(tmp_path, 1)
    run = call_script(SCRIPT, *words, "--out", "s")
    assert run.code == 2
    assert line in run.err
    assert run.err.count("\n") == 1
