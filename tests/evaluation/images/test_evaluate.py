"""Two plates into tables, summary and report: what is written, and what is refused."""

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from builders import lose_a_chunk
from emsuite.common.errors import BadInput
from emsuite.common.outputs import output
from emsuite.evaluation.images.evaluate import Asked, evaluate_images
from emsuite.evaluation.images.pairs import Chosen
from emsuite.evaluation.images.report import Scored
from emsuite.evaluation.images.scores import ImageScore
from emsuite.evaluation.summary import summary as told
from emsuite.plates.split import write_split
from emsuite.plates.statistics import Where
from plates_to_score import CHANNELS, target_and_prediction, voxels_of, write_plate

FEW = ("pearson", "mae")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return target_and_prediction(tmp_path_factory.mktemp("plates"))


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_all_that_is_written(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    asked = Asked(orientations=("xy", "xz", "yz", "xyz"), baselines=True)
    summary = evaluate_images(predicted, target, tmp_path / "scores", Chosen(masks=target), asked)
    written = {path.name for path in (tmp_path / "scores").iterdir()}
    assert written == {*(f"metrics_{name}.csv" for name in asked.orientations), "scores.json", "report.html"}
    counts = [len(table(tmp_path / f"scores/metrics_{name}.csv")) for name in asked.orientations]
    assert counts == [4 * 2 * 2 * count for count in (3, 30, 34, 1)]
    assert json.loads((tmp_path / "scores/scores.json").read_text()) == summary
    rows = [row for row in table(tmp_path / "scores/metrics_xy.csv") if row["channel"] == "membranes"]
    for name in ("r2", "ssim_masked", "vol_frac"):
        mean = np.mean([float(row[name]) for row in rows])
        assert summary["images"]["xy"]["membranes"][name] == pytest.approx(mean, abs=1e-6)
    assert summary["worst"]["nuclei"] == ["A/1/3", "A/1/2"], "noise grows with the number"
    assert summary["best"]["nuclei"] == ["A/1/0", "A/1/1"]
    assert summary["baselines"]["linear"]["nuclei"]["r2"] == pytest.approx(1, abs=1e-5)
    assert summary["baselines"]["identity phase"]["membranes"]["pearson"] < 0.5
    assert json.loads((tmp_path / "scores.manifest.json").read_text())["inputs"].keys() == {"prediction", "target"}
    text = told([tmp_path / "scores"], "view")
    assert text.startswith(f"scores: nuclei: r2 {summary['images']['xy']['nuclei']['r2']:.4g}, pearson")
    assert text.count("(24 images, xy)") == 2
    assert "masked" not in text
    assert text.endswith("scores/report.html")


def test_the_report_stands_alone_and_tells_what_was_measured(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW, baselines=True))
    text = (tmp_path / "s/report.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert re.findall(r"<script|@import|<link", re.sub(r"data:[^\"]*", "", text)) == []
    assert text.count('src="data:image/jpeg;base64,') == 2 * 4 * 4, (
        "input, target, prediction, error of 2 worst, 2 best"
    )
    assert text.count('src="data:image/svg+xml;base64,') == 2 * 2
    words = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S).split())
    for expected in ("Images of predicted", "48 images", "linear", "identity phase", "A/1/3, time", "Best positions"):
        assert expected in words
    assert "@media (max-width: 480px)" in text


def test_the_same_bytes_on_any_number_of_threads(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    made = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        evaluate_images(predicted, target, out, asked=Asked(FEW, ("xz",)), workers=workers)
        made.append((out / "metrics_xz.csv").read_bytes())
    assert made[0] == made[1]
    before = (tmp_path / "1/scores.json").stat().st_mtime_ns
    evaluate_images(predicted, target, tmp_path / "1", asked=Asked(FEW, ("xz",)), workers=2)
    assert (tmp_path / "1/scores.json").stat().st_mtime_ns == before, "a finished evaluation is left alone"
    evaluate_images(predicted, target, tmp_path / "1", asked=Asked(FEW, ("xy",)))
    assert not (tmp_path / "1/metrics_xz.csv").exists()


def test_positions_of_a_split_and_baselines_of_its_training(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, _ = plates
    dealt = {"train": ["A/1/0", "A/1/1"], "val": [], "test": ["A/1/3"]}
    write_split(tmp_path / "split.json", "position", dealt)
    held_out = write_plate(tmp_path / "p.zarr", {"A/1/3": voxels_of(3)[:, 1:]}, CHANNELS[1:])
    summary = evaluate_images(held_out, target, tmp_path / "s", asked=Asked(FEW, split=tmp_path / "split.json"))
    assert summary["positions"] == 1
    assert summary["images"]["xy"]["nuclei"]["mae"] == 0
    assert summary["best"]["nuclei"] == []
    with pytest.raises(BadInput, match=r"split.json: no positions in 'val', expected some"):
        evaluate_images(held_out, target, tmp_path / "s", asked=Asked(FEW, split=tmp_path / "split.json", part="val"))
    write_split(tmp_path / "slices.json", "slice", {"train": [0], "val": [1], "test": [2]})
    with pytest.raises(BadInput, match=r"slices.json: splits by slice, expected by position"):
        evaluate_images(held_out, target, tmp_path / "s", asked=Asked(FEW, split=tmp_path / "slices.json"))


def test_baselines_of_another_training_are_fitted_again(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, _ = plates
    held_out = write_plate(tmp_path / "p.zarr", {"A/1/3": voxels_of(3)[:, 1:]}, CHANNELS[1:])
    scores, made = [], []
    for train in (["A/1/0"], ["A/1/1"]):
        write_split(tmp_path / "split.json", "position", {"train": train, "val": [], "test": ["A/1/3"]})
        asked = Asked(FEW, baselines=True, split=tmp_path / "split.json")
        for _ in range(2):
            scores.append(evaluate_images(held_out, target, tmp_path / "s", asked=asked)["baselines"]["linear"])
            made.append((tmp_path / "s/scores.json").stat().st_mtime_ns)
    assert scores[0] == scores[1] != scores[2] == scores[3]
    assert made[0] == made[1] < made[2] == made[3]


@pytest.mark.parametrize("content", [None, "\0{}", "[{}]", "{{{}}}"])
def test_scores_that_are_gone_or_damaged_are_measured_again(
    plates: tuple[Path, Path], tmp_path: Path, content: str | None
) -> None:
    target, predicted = plates
    file = tmp_path / "s/scores.json"
    summary = evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW))
    size = file.stat().st_size
    file.unlink()
    if content is not None:
        file.write_text(content.format(" " * (size - len(content.format("")))))
        assert file.stat().st_size == size
    again = evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW))
    assert again["images"] == summary["images"]
    assert json.loads(file.read_text())["images"] == json.loads(json.dumps(summary["images"]))


def test_scores_that_were_cut_off_are_refused_in_one_line(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW))
    (tmp_path / "s/scores.json").write_text("{")
    with pytest.raises(BadInput, match=r"s: holds something else than this suite wrote there; remove it"):
        evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW))


@pytest.mark.parametrize("lost", ["target", "predicted"])
def test_a_plate_that_has_lost_files_is_refused(tmp_path: Path, lost: str) -> None:
    for name, channels in (("target", slice(None)), ("predicted", slice(1, None))):
        with output(tmp_path / f"{name}.zarr", {}) as made:
            images = {f"A/1/{number}": voxels_of(number)[:, channels] for number in range(2)}
            write_plate(made.path, images, CHANNELS[channels])
    lose_a_chunk(tmp_path / f"{lost}.zarr")
    with pytest.raises(BadInput, match=rf"{lost}.zarr: A/1/1/0: \d+ files, of \d+ that were written"):
        evaluate_images(tmp_path / "predicted.zarr", tmp_path / "target.zarr", tmp_path / "s", asked=Asked(FEW))


def test_constant_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, logger: None) -> None:
    targets = {f"A/1/{number}": voxels_of(number) for number in range(3)}
    targets["A/1/1"][0] = 0
    predictions = {name: voxels[:, 1:].copy() for name, voxels in targets.items()}
    predictions["A/1/2"][1, 0, 1] = 4
    target = write_plate(tmp_path / "t.zarr", targets, CHANNELS)
    predicted = write_plate(tmp_path / "p.zarr", predictions, CHANNELS[1:])
    caplog.set_level(logging.WARNING, "emsuite")
    logging.getLogger("emsuite").addHandler(caplog.handler)
    summary = evaluate_images(predicted, target, tmp_path / "s", asked=Asked(FEW))
    logging.getLogger("emsuite").removeHandler(caplog.handler)
    assert summary["constant"] == {
        "nuclei": {"target": 3, "prediction": 1},
        "membranes": {"target": 3, "prediction": 0},
    }
    assert summary["images"]["xy"]["nuclei"]["images"] == 15
    assert "t.zarr, channel nuclei: 3 of 18 images are constant" in caplog.text
    assert "p.zarr, channel nuclei: 1 of 18 predicted images are constant" in caplog.text
    assert "not counted in means: 3." in (tmp_path / "s/report.html").read_text()
    empty = [row for row in table(tmp_path / "s/metrics_xy.csv") if not row["pearson"]]
    assert {(row["position"], row["time"]) for row in empty} == {("A/1/1", "0"), ("A/1/2", "1")}


def test_what_cannot_be_measured_is_refused(plates: tuple[Path, Path], tmp_path: Path) -> None:
    target, predicted = plates
    one = {"A/1/0": voxels_of(0)}
    nan = write_plate(tmp_path / "nan.zarr", {"A/1/0": voxels_of(0) * np.nan}, CHANNELS)
    fine = write_plate(tmp_path / "fine.zarr", one, CHANNELS)
    with pytest.raises(BadInput, match=r"nan.zarr/A/1/0/0: time 0, channel 0, slice 0 holds NaN or infinity, expected"):
        evaluate_images(nan, fine, tmp_path / "s", asked=Asked(FEW))
    dark = write_plate(tmp_path / "dark.zarr", {"A/1/0": voxels_of(0) * 0}, CHANNELS)
    with pytest.raises(BadInput, match=r"dark.zarr, channel phase: all images are constant, expected some with light"):
        evaluate_images(fine, dark, tmp_path / "s", asked=Asked(FEW))
    with pytest.raises(BadInput, match=r"dark.zarr: the masks are empty at all positions, expected voxels above 0"):
        evaluate_images(fine, fine, tmp_path / "s", Chosen(masks=dark), Asked(FEW))
    with pytest.raises(BadInput, match=r"fine.zarr: all channels are targets, expected one as the input of baselines"):
        evaluate_images(fine, fine, tmp_path / "s", asked=Asked(FEW, baselines=True))
    with pytest.raises(BadInput, match=r"lies in .*target.zarr, which is read"):
        evaluate_images(predicted, target, target / "scores", asked=Asked(FEW))
    assert not (tmp_path / "s/scores.json").exists()
    assert not (tmp_path / "s.manifest.json").exists()


def test_ranks_of_a_metric_that_is_better_when_lower() -> None:
    scores = [ImageScore(Where(f"A/1/{n}", 0, 0), 0, {"mse": value}, False, False) for n, value in enumerate((5, 1, 3))]
    scored = Scored(("mse",), {"xy": scores}, {})
    assert scored.ranked(0) == [("A/1/0", 5), ("A/1/2", 3), ("A/1/1", 1)]
    assert scored.shown(0) == (["A/1/0"], ["A/1/1"])
    assert scored.extreme_image(0, "A/1/2", True).where.position == "A/1/2"
