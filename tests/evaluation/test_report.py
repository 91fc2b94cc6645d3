"""The report, and the timings in it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.geometry import Roi
from emsuite.common.provenance import provenance
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.metrics import METRICS
from emsuite.evaluation.plots import curves
from emsuite.evaluation.report import Timing, read_timings, write_report
from emsuite.evaluation.section_images import Section
from emsuite.evaluation.split_merge_errors import SplitMergeError
from emsuite.evaluation.threshold_sweep import Evaluation

TABLE = contingency(np.array([1, 1, 1, 2, 3]), np.array([1, 1, 1, 1, 2]))


def row(threshold, voi_sum, erl=None):
    on_skeletons = {} if erl is None else {"erl": erl, "nerl": 0.25, "splits": 3, "merges": 2}
    voi = {"voi_split": voi_sum - 0.5, "voi_merge": 0.5, "voi_sum": voi_sum}
    rand = {"adapted_rand_error": 0.1, "precision": 0.9, "recall": 0.8, "rand_index": 0.95, "cremi_score": 0.7}
    return {"threshold": threshold} | dict.fromkeys(METRICS) | voi | rand | on_skeletons | {"segments": 3}


def evaluation(*rows, best=0):
    return Evaluation(list(rows), rows[best], Roi((0, 0, 0), (8, 8, 8)), TABLE, None)


def report(tmp_path, found, **changed):
    content = {
        "sections": [Section("x, y at z = 8 nm", {"raw": b"\xff\xd8", "errors": b"\xff\xd8"})],
        "errors": [],
        "timings": [Timing("predict", 3725, 3 * 2**30, "2 CPUs"), Timing("agglomerate", 4, 0, "")],
        "provenance": provenance({"roi": "0:8,0:8,0:8"}),
        "title": "Segmentation of a <b>volume</b>",
        "viewer": ["python", "view.py", "my results", "--position"],
    }
    write_report(tmp_path / "report.html", found, **content | changed)
    return (tmp_path / "report.html").read_text()


def test_a_report_stands_alone(tmp_path):
    text = report(tmp_path, evaluation(row(0.1, 2.5, 900), row(0.2, 1.25, 1234), row(0.3, 2, 100), best=1))
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert re.findall(r"https?:|url\(|<script|@import|<link", text) == []
    assert text.count('src="data:image/svg+xml;base64,') == 3
    assert text.count('src="data:image/jpeg;base64,') == 2


def test_a_report_tells_what_was_found(tmp_path):
    text = report(tmp_path, evaluation(row(0.1, 2.5, 900), row(0.2, 1.25, 1234), row(0.3, 2, 100), best=1))
    words = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S).split())
    expected = [
        "1.250 bits", "0.750 bits", "0.500 bits", "1.23 µm", "25 % of perfect", "3 splits, 2 merges",
        "Best of 3 thresholds by VOI sum: 0.2", "5 labelled voxels in 2 neurons", "1 h 2 min", "3.00 GiB",
        "split 20.0 % of voxels", "x, y at z = 8 nm", "numpy", "Segmentation of a &lt;b&gt;volume",
    ]  # fmt: skip
    assert [part for part in expected if part not in words] == []
    assert "wider sweep" not in words


def test_scores_of_sections_are_told_where_they_were_made(tmp_path):
    of_sections = {"section_voi_sum": 0.375, "section_voi_split": 0.25, "section_voi_merge": 0.125}
    text = report(tmp_path, evaluation(row(0.1, 2) | of_sections, row(0.2, 3) | of_sections))
    assert "thresholds by VOI sum in sections: 0.1" in text
    assert "split 0.250, merge 0.125" in text
    assert "in sections" not in report(tmp_path, evaluation(row(0.1, 2), row(0.2, 3)))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}\x1b[2J\u202e"]
)
def test_names_are_text_and_nothing_else(tmp_path, name):
    record = provenance({name: name}, {name: tmp_path / name.replace("/", "")}) | {"command": [name]}
    more = {"title": name, "viewer": [name], "timings": [Timing(name, 1, 0, name)], "provenance": record,
            "sections": [Section(name, {name: b"\xff\xd8"})],
            "errors": [SplitMergeError("split", 1500, 0.25, 7, 31, 30, (8, 16, 24), True)]}  # fmt: skip
    text = report(tmp_path, evaluation(row(0.1, 2.5, 900)), **more)
    assert re.findall(r"<script|<img src=x|[\x00-\x09\x0b-\x1f\u202e]", text) == []
    assert text.count("alert(1)" if "alert" in name else "7 * 7") >= 8


def test_a_report_can_be_published(tmp_path, monkeypatch):
    """It names no host, no folder outside the project, and no secret; also where records of earlier versions do."""
    home = tmp_path / "home/jane"
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-jane")
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--labels", f"{home}/v.zarr/labels", "--token", "hunter2"])
    record = provenance({"affs": f"{home}/p.zarr"}, {"labels": home / "v.zarr/labels"})
    old = record | {"machine": record["machine"] | {"host": "host-of-jane"}, "settings": {"affs": f"{home}/p.zarr"}}
    write_json(tmp_path / "p.zarr.manifest.json", old)
    for found in (record, old):
        more = {"provenance": found, "timings": read_timings([tmp_path / "p.zarr.manifest.json"]),
                "errors": [SplitMergeError("split", 1500, 0.25, 7, 31, 30, (8, 16, 24), True)],
                "viewer": ["python", "view.py", "--raw", f"{home}/v.zarr/raw", "http://me:hunter2@host"]}  # fmt: skip
        text = report(tmp_path, evaluation(row(0.1, 2.5)), **more)
        assert [word for word in ("jane", str(tmp_path), "hunter2", "private") if word in text] == []
        assert "python view.py --raw v.zarr/raw" in text
        assert "Put in the folders of files outside the project" in text
    inside = report(tmp_path, evaluation(row(0.1, 2.5)), **more | {"viewer": ["python", "view.py", "--raw", "v.zarr"]})
    assert "Put in the folders" not in inside


def test_a_best_threshold_at_the_end_of_the_sweep_is_pointed_out(tmp_path):
    rows = (row(0.1, 2.5), row(0.2, 2.25), row(0.3, 2))
    assert "is the last of the sweep" in report(tmp_path, evaluation(*rows, best=2))
    assert "is the first of the sweep" in report(tmp_path, evaluation(*rows, best=0))


def test_a_single_score_has_no_curves(tmp_path):
    text = report(tmp_path, evaluation(row(None, 1.5)), sections=[], timings=[])
    assert "svg" not in text
    assert "run length" not in text


@pytest.mark.parametrize(("erl", "count"), [(None, 2), (100.0, 3)])
def test_curves_are_the_same_bytes_every_time(erl, count):
    found = evaluation(row(0.1, 2.5, erl), row(0.2, 1.25, erl), row(0.3, 2, erl), best=1)
    assert len(curves(found)) == count
    assert curves(found) == curves(found)


def test_the_largest_errors_say_where_to_look(tmp_path):
    errors = [
        SplitMergeError("split", 1500, 0.25, 7, 31, 30, (8, 16, 24), True),
        SplitMergeError("merge", 900, 0.5, 8, 40, 9, (1, 2, 3), False),
    ]
    text = report(tmp_path, evaluation(row(0.1, 2.5)), errors=errors)
    words = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S).split())
    assert "1,500 25.0 % 7 31 30 8,16,24 900" not in words  # each kind has a table of its own
    assert "1,500 25.0 % 7 31 30 8,16,24" in words
    assert "900 50.0 % 8 40 9 1,2,3 (the two do not touch there)" in words
    assert "python view.py &#39;my results&#39; --position 8,16,24" in text
    assert "most wrong" not in report(tmp_path, evaluation(row(0.1, 2.5)))


def test_edits_are_told_where_they_were_counted(tmp_path):
    counted = row(0.1, 2, 900) | {"splits_needed": 3, "merges_needed": 5, "joins_needed": 6, "unsplittable": 1}
    text = report(tmp_path, evaluation(counted, row(0.2, 3, 800)))
    assert "<b>8</b><span>3 splits, 5 merges (published count; 6 joins in fact); fragments under" in text
    assert text.count("splits needed") == 1
    assert text.count('src="data:image/svg+xml;base64,') == 3
    everywhere = [counted | {"threshold": threshold} for threshold in (0.1, 0.2)]
    assert report(tmp_path, evaluation(*everywhere)).count('src="data:image/svg+xml;base64,') == 4
    assert "min-cut" not in report(tmp_path, evaluation(row(0.1, 2, 900)))


def test_skeleton_nodes_are_called_what_they_are(tmp_path):
    found = replace(evaluation(row(0.1, 2, 900), row(0.2, 3, 800)), of_nodes=True)
    errors = [SplitMergeError("merge", 900, 0.5, 8, 40, 9, (1, 2, 3), False)]
    sections = [Section("x, y at z = 8 nm", {"raw": b"\xff\xd8"})]
    text = report(tmp_path, found, errors=errors, sections=sections)
    assert "5 skeleton nodes" in text
    assert '<th class="number">nodes</th>' in text
    assert "voxels" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)


def test_a_best_that_is_no_segmentation_is_warned_of(tmp_path):
    one = contingency(np.array([7, 7, 7]), np.array([1, 2, 3]))
    merged = replace(evaluation(row(0.1, 2), row(0.2, 3)), table=one)
    assert "One segment holds 100% of the labelled voxels of 3 neurons" in report(tmp_path, merged)
    assert "No usable segmentation" not in report(tmp_path, evaluation(row(0.1, 2), row(0.2, 3)))


def test_reads_manifests_and_benchmarks_in_the_order_given(tmp_path):
    manifest = provenance({}) | {"command": ["03_predict/predict.py", "--out", "x"], "seconds": 12.5}
    write_json(tmp_path / "prediction.zarr.manifest.json", manifest)
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    (tmp_path / "agglomerate.tsv").write_text(header + "3.25\t0:00:03\t512.00\t0\t0\t0\t0\t0\t0\t0\n")
    (tmp_path / "short.tsv").write_text(header + "0.1\t0:00:00\tNA\t0\t0\t0\t0\t0\t0\t0\n")
    names = ["prediction.zarr.manifest.json", "agglomerate.tsv", "short.tsv"]
    predict, agglomerate, short = read_timings(tmp_path / name for name in names)
    assert (predict.stage, predict.seconds) == ("predict", 12.5)
    assert predict.memory > 2**20
    assert "CPUs" in predict.machine
    lost = {"settings": {}, "iteration": 3}  # times are in the first manifest of a checkpoint alone
    write_json(tmp_path / "checkpoint_3.pt.manifest.json", lost)
    assert read_timings([tmp_path / "checkpoint_3.pt.manifest.json"]) == [Timing("checkpoint_3.pt", None, 0, "")]
    assert "<td>checkpoint_3.pt</td>" in report(
        tmp_path, evaluation(row(0.1, 2.5)), timings=[Timing("checkpoint_3.pt", None, 0, "")]
    )
    assert (agglomerate.stage, agglomerate.seconds, agglomerate.memory) == ("agglomerate", 3.25, 512 * 2**20)
    assert (short.seconds, short.memory) == (0.1, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "neither a manifest"),
        ("a.json", "{", "neither a manifest"),
        ("a.json", "[]", "neither a manifest"),
        ("a.json", "[" * 100_000, "neither a manifest"),
        ("a.json", '{"peak_memory": 3, "command": 4}', "neither a manifest"),
        ("a.tsv", "s\tmax_rss\nnan\t1\n", "neither a manifest"),
        ("a.tsv", "s\tmax_rss\n-1\t1\n", "neither a manifest"),
        ("a.tsv", "s\tmax_rss\n1\n", "neither a manifest"),
        ("a.tsv", "x\ty\n1\t2\n", "neither a manifest"),
        ("none.tsv", None, "none.tsv: no such file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        read_timings([tmp_path / name])
