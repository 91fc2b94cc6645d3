"""The files of the project: what a run writes is not among them, and every system can hold their names."""

import re
import subprocess

from builders import ROOT

MADE_BY_RUNS = (".emsuite", ".manifest.json", ".masks.json", ".parquet", ".unfinished.json")


def test_the_project_holds_no_output_of_a_run() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [name for name in listed.split("\0") if name]
    assert len(files) > 300
    assert [name for name in files if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_./-]*", name)] == []
    outside = [name for name in files if not name.startswith("tests/fixtures/")]
    assert [name for name in outside if name.endswith(MADE_BY_RUNS)] == []
