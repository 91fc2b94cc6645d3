"""01_data/import_microdl.py as a user runs it."""

from pathlib import Path

import pytest

SCRIPT = "01_data/import_microdl.py"
PREPROCESS = "input_dir: /data/raw\noutput_dir: /data/out\nverbose: 10\ntile: {tile_size: [64, 64]}\n"


def test_a_file_and_what_is_left_out(call_script, tmp_path: Path) -> None:
    (tmp_path / "it's.yml").write_text(PREPROCESS)
    run = call_script(SCRIPT, "it's.yml", "--out", "mine/new")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        "verbose: 10: not needed, the log says what is done",
        "mine/new: preprocess.yaml, and 1 notes in not_carried_over.txt",
    ]
    assert "size: [64, 64]" in (tmp_path / "mine/new/preprocess.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("input_dir: [", "config.yml"),
        ("image_dir: here\nmodel_dir: there", "a configuration of inference"),
        ("- 1", "config.yml"),
    ],
)
def test_bad_input_is_one_line(call_script, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    run = call_script(SCRIPT, "config.yml", "--out", "new")
    assert run.code == 2
    assert line in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "new").exists()
