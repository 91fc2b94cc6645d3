"""What is said at the end of a run."""

import json
from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.summary import summary


def test_scores_and_places_of_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part, voi in (("a", 0.5), ("b", 0.25), ("my cube", 0.1)):
        folder = tmp_path / "results" / part
        folder.mkdir(parents=True)
        best = {"threshold": 0.4, "voi_split": voi, "voi_merge": 1.0, "voi_sum": 1.0 + voi}
        (folder / "scores.json").write_text(json.dumps({"best": best}))
    text = summary(Path("results"), "04_segment/view.py")
    assert "a, held out: VOI split 0.500, merge 1.000, sum 1.500 bits (best at threshold 0.4)" in text
    assert "results/b/report.html" in text
    assert "04_segment/view.py results/b\n" in text
    assert text.endswith("04_segment/view.py 'results/my cube'")


def test_skeleton_scores_and_warnings_are_told(tmp_path: Path) -> None:
    best = {"threshold": 0.4, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    scores = {"best": best, "scored": "skeleton nodes", "warning": "One segment holds all."}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    text = summary(tmp_path, "view.py")
    assert "sum 1.500 bits over skeleton nodes (best at threshold 0.4)" in text
    assert "  warning       One segment holds all.\n" in text


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no scores\.json"):
        summary(tmp_path, "view")


@pytest.mark.parametrize("text", ["[]", "5", "{", "[" * 100_000, '{"best": 3}', '{"best": {"voi_split": "x"}}', "null"])
def test_json_that_is_no_scores(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(BadInput, match=r"scores\.json: holds no voi_split, voi_merge, voi_sum under 'best'"):
        summary(tmp_path, "view")
