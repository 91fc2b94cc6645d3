"""The workflow as a user runs it, in a copy of the project."""

import os
import subprocess
import sys
from pathlib import Path


def command(*config: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--config", *config]


def snakemake(project: Path, *config: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the workflow as a user does."""
    return subprocess.run(
        [*command(*config), *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=280,
        env=environment(project),
    )


def environment(project: Path) -> dict[str, str]:
    """The copy's own library, whatever is installed."""
    return os.environ | {"PYTHONPATH": str(project / "src")}


def shrink_phantom(project: Path) -> None:
    """Volumes that are synthesized in a second or two."""
    path = project / "01_data/datasets/phantom.yaml"
    text = path.read_text()
    lines = [
        line.partition("shape:")[0] + "shape: [64, 72, 72]}" if "shape:" in line else line for line in text.splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
