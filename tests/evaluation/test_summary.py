"""What is said at the end of a run."""

import json
from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.evaluation.summary import find_scored, summary


def test_scores_and_places_of_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part, voi in (("a", 0.5), ("b", 0.25), ("my cube", 0.1)):
        folder = tmp_path / "results" / part
        folder.mkdir(parents=True)
        best = {"threshold": 0.4, "voi_split": voi, "voi_merge": 1.0, "voi_sum": 1.0 + voi}
        (folder / "scores.json").write_text(json.dumps({"best": best}))
    folders = find_scored(Path("results"))
    text = summary(folders, "04_segment/view.py")
    assert text.startswith("a: VOI split")
    assert "made with" not in text
    text = summary(folders, "04_segment/view.py", {path: f"{path.name}, held out" for path in folders})
    assert "a, held out: VOI split 0.500, merge 1.000, sum 1.500 bits (best at threshold 0.4)" in text
    assert "results/b/report.html" in text
    assert "04_segment/view.py results/b\n" in text
    assert text.endswith("04_segment/view.py 'results/my cube'")


def test_skeleton_scores_and_warnings_are_told(tmp_path: Path) -> None:
    best = {"threshold": 0.4, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    scores = {"best": best, "scored": "skeleton nodes", "warning": "One segment holds all."}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    text = summary([tmp_path], "view.py")
    assert "sum 1.500 bits over skeleton nodes (best at threshold 0.4)" in text
    assert "  warning       One segment holds all.\n" in text


def test_shared_names_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    best = {"threshold": 0.4, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    for name in ("one/6", "two/6", "two/cube"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "scores.json").write_text(json.dumps({"best": best}))
    text = summary(find_scored(tmp_path), "view.py")
    assert [line.split(":")[0] for line in text.splitlines() if "VOI" in line] == ["one/6", "two/6", "cube"]


def test_instances_have_no_threshold(tmp_path: Path) -> None:
    best = {"threshold": None, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    (tmp_path / "scores.json").write_text(json.dumps({"best": best}))
    text = summary([tmp_path], "view.py", {tmp_path: "transferred"})
    assert text.startswith("transferred: VOI split 0.500, merge 1.000, sum 1.500 bits\n")


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no scores\.json"):
        find_scored(tmp_path)


def write_results(folder: Path, weights: str, merge_function: str = "mean", **fragments: object) -> Path:
    """The records beside scores."""
    best = {"threshold": 0.4, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    network = {"network": "small"}
    settings = {
        "prediction.zarr": {"network": network, "iteration": 20, "weights": weights, "raw": folder.name, "roi": "0:8"},
        "fragments.zarr": {"flood": "affinity", "affs": f"{folder}/prediction.zarr/affs", **fragments},
        "graph/edges": {"merge_function": merge_function, "files": folder.name},
    }
    for name, given in settings.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.manifest.json", {"settings": given})
    write_json(folder / "scores.json", {"best": best})
    return folder


def test_results_of_other_weights_or_settings_are_told(tmp_path: Path) -> None:
    """They may lie in one folder: of an earlier run there, of other networks and iterations below a folder above."""
    a, b = write_results(tmp_path / "a", "1" * 64), write_results(tmp_path / "b", "1" * 64)
    assert "different" not in summary([a, b], "view")
    c = write_results(tmp_path / "c", "2" * 64)
    text = summary(find_scored(tmp_path), "view")
    assert text.startswith("These results were made with different weights or settings: compare them with care.\n\na: ")
    assert [line for line in text.splitlines() if line.startswith("  made with")] == [
        f"  made with     weights {digit * 8}" for digit in "112"
    ]
    d = write_results(tmp_path / "d", "2" * 64, "hist_quant_75", flood="distance")
    assert "  made with     flood distance, merge_function hist_quant_75\n" in summary([c, d], "view")


def test_results_are_called_by_as_many_folders_as_tell_them_apart(tmp_path: Path) -> None:
    """Networks score the same volumes at the same iterations."""
    places = ("small/1000/a", "mtlsd/1000/a", "mtlsd/1000/b")
    folders = [write_results(tmp_path / place, "1" * 64) for place in places]
    text = summary(folders, "view", {folders[2]: "b, held out"})
    assert [line.partition(":")[0] for line in text.splitlines() if "VOI" in line] == [*places[:2], "b, held out"]
    assert summary(folders[1:], "view").startswith("a: ")


def test_settings_that_do_not_apply_to_instances_are_not_told_of_them(tmp_path: Path) -> None:
    a, b = (write_results(tmp_path / name, "1" * 64) for name in "ab")
    for left_out in ("fragments.zarr", "graph/edges"):
        (b / f"{left_out}.manifest.json").unlink()
    write_json(b / "segmentation.zarr.manifest.json", {"settings": {"seed_foreground": 0.9}})
    made_with = [line for line in summary([a, b], "view").splitlines() if line.startswith("  made with")]
    assert made_with == ["  made with     flood affinity, merge_function mean", "  made with     seed_foreground 0.9"]


def test_results_without_records(tmp_path: Path) -> None:
    a, b = write_results(tmp_path / "a", "1" * 64), write_results(tmp_path / "b", "1" * 64)
    (b / "prediction.zarr.manifest.json").unlink()
    text = summary([a, b], "view")
    assert "  made with     network small, iteration 20, weights 11111111\n" in text
    assert "  made with     network unknown, iteration unknown, weights unknown\n" in text
    for manifest in (*a.rglob("*.manifest.json"), *b.rglob("*.manifest.json")):
        manifest.write_text('{"settings": [3], "private": 5}')
    assert "different" not in summary([a, b], "view")


@pytest.mark.parametrize("text", ["[]", "5", "{", "[" * 100_000, '{"best": 3}', '{"best": {"voi_split": "x"}}', "null"])
def test_json_that_is_no_scores(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(BadInput, match=r"scores\.json: holds no voi_split, voi_merge, voi_sum under 'best'"):
        summary(find_scored(tmp_path), "view")
