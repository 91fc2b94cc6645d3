"""The workflow as a user runs it, in a copy of the project."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "torch", "scipy.ndimage", "zarr", "pydantic", "h5py", "tensorstore"])


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


def snakemake_in_fork(project: Path, *config: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """As `snakemake`, in a process of its own that has the libraries of others already: 4 s less."""
    words = command(*config)[3:] + list(options)
    out, err = project.parent / "stdout.txt", project.parent / "stderr.txt"
    process = FORKS.Process(target=_be_snakemake, args=(project, words, out, err, environment(project)))
    process.start()
    process.join(280)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(words, 280)
    return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _be_snakemake(project: Path, words: list[str], out: Path, err: Path, environ: dict[str, str]) -> None:
    for file, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), file)
    os.chdir(project)
    os.environ.clear()
    os.environ.update(environ)
    assert "emsuite" not in sys.modules, "the library is that of the copy"
    sys.path.insert(0, str(project / "src"))
    from snakemake.cli import main

    main(words)


def shrink_phantom(project: Path) -> None:
    """Volumes that are synthesized in a second or two."""
    path = project / "01_data/datasets/phantom.yaml"
    text = path.read_text()
    lines = [
        line.partition("shape:")[0] + "shape: [64, 72, 72]}" if "shape:" in line else line for line in text.splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
