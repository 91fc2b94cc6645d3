"""The report in a real browser, as wide as a telephone: nothing sticks out, and no table is cut."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import need
from emsuite.common.geometry import Roi
from emsuite.common.provenance import provenance
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.metrics import METRICS
from emsuite.evaluation.report import Timing, write_report
from emsuite.evaluation.section_images import Section
from emsuite.evaluation.split_merge_errors import SplitMergeError
from emsuite.evaluation.threshold_sweep import Evaluation

pytestmark = pytest.mark.slow

LONG = "/data/of/a_laboratory_with_long_names/" + "experiment_" * 12 + ".zarr/volumes/raw"
STICKING_OUT = """() => [...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest(".rows, .wide"))
    .map(element => element.tagName + " " + element.className)"""
CUT = """() => [...document.querySelectorAll("table")]
    .filter(table => { const box = table.parentElement;
                       return box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX != "auto"; })
    .map(table => table.innerText.slice(0, 40))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(path is not None, "a browser (chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--headless=new", "--no-sandbox"])
        yield chromium
        chromium.close()


def row(threshold: float) -> dict[str, Any]:
    measured = {name: 12345.678 for name, metric in METRICS.items() if metric.heading}
    scores = dict.fromkeys(("voi_split", "voi_merge", "voi_sum", "adapted_rand_error", "precision", "recall"), 0.123)
    counts = dict.fromkeys(("splits", "merges", "splits_needed", "merges_needed", "unsplittable"), 12345678)
    scores |= {"rand_index": 0.9, "erl": 123456.0, "nerl": 0.5, "segments": 1234567, "ap_50": 0.5, "ap_75": 0.25}
    return {"threshold": threshold} | dict.fromkeys(METRICS) | measured | scores | counts


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report with all parts, long names and large numbers."""
    rows = [row(threshold / 50) for threshold in range(50)]
    table = contingency(np.array([1, 1, 1, 2, 3]), np.array([1, 1, 1, 1, 2]))
    evaluation = Evaluation(rows, rows[5], Roi((0, 0, 0), (8, 8, 8)), table, None)
    record = provenance({"raw": LONG, "merge_function": "hist_quant_75_initmax"})
    record["command"] = ["python", LONG, "--segmentation", LONG]
    record["inputs"] = {"segmentation": {"path": LONG, "checksum": "sha256:" + "0123456789abcdef" * 4}}
    errors = [SplitMergeError(*values) for values in error_values()]
    write_report(tmp_path / "report.html", evaluation,
                 [Section("x, y at z = 8 nm", dict.fromkeys(("raw", "labels", "errors"), b"\xff\xd8"))],
                 errors, [Timing("extract_fragments", 3725, 3 * 2**30, "a-long-name.lab.example.org, 128 CPUs")],
                 record, "Segmentation of " + LONG, ["python", "view.py", LONG, "--position"])  # fmt: skip
    return tmp_path / "report.html"


def error_values() -> Iterator[tuple[Any, ...]]:
    large = 2**60
    for kind in ("split", "merge"):
        yield kind, 123456789, 0.5, large, large + 1, large + 2, (1234567, 1234567, 1234567), False


@pytest.mark.parametrize("width", [320, 375, 760, 1280])
def test_nothing_sticks_out_and_tables_can_be_scrolled(browser: Any, report: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
