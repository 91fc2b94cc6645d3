"""What several test files do, and is no fixture."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests/fixtures/tensorflow"


def files_in(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below `folder`, by its place there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy_project(folder: Path) -> Path:
    """A copy of the project as it is in git, as `folder`; without tests, documentation and benchmarks."""
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.split("\n"):
        if name and not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def command_of(script: Path) -> click.Command:
    """The command that a stage script is, to parse command lines with."""
    spec = importlib.util.spec_from_file_location(f"script_{script.parent.name}_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def recorded(dataset: str, network: str) -> Path:
    """The path, without endings, of a checkpoint that TensorFlow wrote (fixtures/make_tensorflow_bundles.py)."""
    return next((RECORDED / dataset / network).glob("*.index")).with_suffix("")
