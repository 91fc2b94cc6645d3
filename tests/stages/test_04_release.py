"""release.py as its users call it."""

import json
from collections.abc import Callable
from pathlib import Path

from emsuite.common.outputs import output

SCRIPT = "04_segment/release.py"


def test_it_names_what_it_cleaned_and_what_it_cannot_clean(call_script: Callable, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with output(tmp_path / name / "p.zarr", {"threshold": 1}, inputs={"raw": tmp_path / "raw.zarr"}):
            (tmp_path / name / "p.zarr").mkdir()
    (tmp_path / "a/step.log").write_text(f"read {Path.home()}/v.zarr")
    ended = call_script(SCRIPT, tmp_path / "a", tmp_path / "b")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        f"{tmp_path}/a/p.zarr.manifest.json: cleaned",
        f"{tmp_path}/a/step.log: may tell of user and machine; look at it, or remove it",
        f"{tmp_path}/b/p.zarr.manifest.json: cleaned",
    ]
    manifest = json.loads((tmp_path / "a/p.zarr.manifest.json").read_text())
    assert "private" not in manifest
    assert manifest["inputs"]["raw"]["path"] == "raw.zarr"


def test_bad_input_is_one_line(call_script: Callable, tmp_path: Path) -> None:
    ended = call_script(SCRIPT, tmp_path / "none")
    assert (ended.code, ended.err) == (2, f"error: {tmp_path}/none: no such folder; expected a copy of results\n")
