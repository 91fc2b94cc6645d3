"""The page of CREMI, command by command, on smaller synthetic sections."""

import csv
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from conftest import ROOT, Ended
from emsuite.io.volume import open_volume

SMALLER = {"48,480,480": "40,300,300", "4,40,40": "2,20,20", "--thickest 200 ": ""}
ELSEWHERE = ("snakemake", "python 01_data/fetch_data.py")
"""What test_hdf5_in_place, test_snakefile and the tests of fetching run."""


def commands() -> list[list[str]]:
    page = (ROOT / "docs/cremi.md").read_text()
    for old, new in SMALLER.items():
        assert old in page
        page = page.replace(old, new)
    lines = "".join(re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).splitlines()
    shown = [line for line in lines if not line.startswith(ELSEWHERE)]
    return [shlex.split(line) for line in shown]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_leads_to_a_score(project: Path, call_script: Callable[..., Ended]) -> None:
    shown = commands()
    assert len(shown) == 9, shown
    told = ""
    for program, script, *arguments in shown:
        assert program == "python"
        done = call_script(project / script, *arguments, cwd=project)
        assert done.code == 0, (script, done.err[-3000:])
        told += done.out + done.err
    assert "6,459,549" in told
    assert "part " in told
    run = project / "02_train/cremi/boundaries/runs/mine"
    with h5py.File(run / "snapshots/batch_1.hdf") as file:
        assert file["raw"].shape == (36, 268, 268)
        assert file["gradients/affs"].shape == file["predictions/affs"].shape == (3, 8, 56, 56)
        assert {"resolution", "offset"} <= file["raw"].attrs.keys()
        assert {"iteration", "loss"} <= file.attrs.keys()
    raw = open_volume(project / "mine/sections.hdf/volumes/raw")
    prediction = open_volume(project / "mine/boundaries.hdf/affs")
    assert tuple(prediction.roi.begin - raw.roi.begin) == (14 * 40, 106 * 4, 106 * 4)
    assert tuple(raw.roi.end - prediction.roi.end) == (14 * 40, 106 * 4, 106 * 4)
    with open(project / "mine/segments/scores.csv") as table:
        rows = list(csv.DictReader(table))
    assert all(0 <= float(row["cremi_score"]) < 10 for row in rows)
    assert len(rows) == 51
