"""Stage scripts: thin, alike, quick to answer --help, and unknown to the library."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builders import ROOT, of_project

LIBRARY = {
    ".".join(path.relative_to(ROOT / "src/emsuite").parts): path for path in (ROOT / "src/emsuite").rglob("*.py")
}
SCRIPTS = of_project("0[0-9]_*/*.py")
STAGES = sorted(ROOT.glob("0[0-9]_*/"))
WITHOUT_MATRIX_PRODUCTS = {"create_masks.py", "fetch_data.py", "synthesize.py"}
"""They may load NumPy before that."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_library_modules_do_not_know_the_scripts() -> None:
    stems = {path.stem for path in SCRIPTS}
    for name, path in LIBRARY.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & stems, name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: import from emsuite by its name"
                assert node.module not in stems, name


def test_no_script_is_copied_into_a_network() -> None:
    for stage in STAGES:
        assert [relative(path) for path in stage.glob("*/**/*.py")] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_help_has_an_example_and_comes_quickly(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {script.name} ")
    example = done.stdout.partition("Example:\n")[2]
    assert f"python {relative(script)} " in example
    assert not done.stdout.count("Error")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "emsuite.cli.command" in imported
    assert not imported & {"torch", "neuroglancer", "daisy", "matplotlib"}, "import what is heavy where it is used"
    # the process is set up when the script's main begins, and OpenBLAS reads its settings when NumPy is loaded
    assert "numpy" not in imported or script.name in WITHOUT_MATRIX_PRODUCTS
    assert list(tmp_path.iterdir()) == [], "help leaves nothing behind"


def test_scripts_tell_results_and_take_paths_alike() -> None:
    """Results on stdout, what goes on meanwhile on stderr by the library; paths as `options.FILE`."""
    for unlike in ("import logging", "click.Path(path_type=Path)"):
        assert [relative(path) for path in SCRIPTS if unlike in path.read_text()] == [], unlike


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_scripts_begin_and_end_alike(script: Path) -> None:
    text = script.read_text()
    assert text.startswith('#!/usr/bin/env python\n"""')
    assert text.endswith('\n\nif __name__ == "__main__":\n    main()\n')


GUARD = """except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None
"""


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "containers/fetch_images.py"], ids=relative)
def test_any_python_says_in_one_line_what_is_missing(script: Path, tmp_path: Path) -> None:
    """A Python without packages; older ones end at the same line, so that what stands above it must be theirs too."""
    text = script.read_text()
    assert text.count(GUARD) == 1
    ast.parse(text, feature_version=(3, 8))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: No module named '\w+'; expected the Python of \.venv: .*\n", done.stderr)
