"""The suite's image, run by the real Apptainer as a user runs it."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import ROOT, of_project
from emsuite.common.container_image import check_image, digest
from emsuite.common.errors import BadInput
from emsuite.common.locked_packages import pinned
from emsuite.io.volume import create_volume, open_volume


def apptainer(*words: Any, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["apptainer", "--quiet", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with two small label volumes, away from the project."""
    folder = tmp_path / "work"
    labels = np.random.default_rng(0).integers(1, 9, (8, 8, 8)).astype(np.uint64)
    volume = create_volume(
        folder / "v.zarr/volumes/labels/neuron_ids", labels.shape, labels.dtype, (8, 8, 8), (0, 0, 0)
    )
    volume.write(volume.roi, labels)
    return folder


MASKS = ("01_data/create_masks.py", "v.zarr", "--dataset", "phantom")


def test_what_the_image_says_of_itself(image: Path, tmp_path: Path) -> None:
    labels = json.loads(apptainer("inspect", "--json", image, cwd=tmp_path).stdout)["data"]["attributes"]["labels"]
    assert {"emsuite.version", "emsuite.commit", "emsuite.lock", "emsuite.kind"} <= labels.keys()
    packages = apptainer("exec", image, "cat", "/opt/emsuite/packages.txt", cwd=tmp_path).stdout
    listed = dict(line.split("==") for line in packages.splitlines() if not line.startswith(("pip==", "wheel==")))
    for_cuda = pinned(ROOT / "containers/cuda.lock") if labels["emsuite.kind"] == "cuda" else {}
    assert listed == pinned(ROOT / "requirements.lock") | for_cuda
    assert image.stat().st_size < (4e9 if for_cuda else 550e6)
    assert digest(image) == check_image(image, ROOT)


def test_run_says_what_it_takes(image: Path, tmp_path: Path) -> None:
    shown = apptainer("run", image, cwd=tmp_path).stdout
    for script in of_project("0*/*.py"):
        assert f"  {script.relative_to(ROOT)}\n" in shown
    wrong = apptainer("run", image, "02_train/trian.py", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: 02_train/trian.py: no such script here or in the image")


@pytest.mark.parametrize("how", [("run",), ("run", "--nv"), ("exec",), ("exec", "--nv", "--containall")])
def test_a_stage_in_a_work_folder_elsewhere(image: Path, work: Path, how: Sequence[str]) -> None:
    flags = ["--home", work, *how[1:], *(("--bind", work, "--pwd", work) if "--containall" in how else ())]
    script = MASKS if how[0] == "run" else ("python", f"/opt/emsuite/{MASKS[0]}", *MASKS[1:])
    done = apptainer(how[0], *flags, image, *script, cwd=work)
    assert done.returncode == 0, done.stderr
    assert open_volume(work / "v.zarr/volumes/labels/labels_mask").read().any()
    manifest = json.loads((work / "v.zarr.masks.json").read_text())
    assert manifest["container"]["image"] == image.name
    assert {path.name for path in work.iterdir()} <= {"v.zarr", "v.zarr.masks.json"}, "caches lie elsewhere"


@pytest.mark.slow
def test_as_an_ordinary_user(image: Path, work: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("every run here is an ordinary user's")
    open_to_all = Path("/tmp") / f"emsuite-{os.getpid()}"
    shutil.copytree(work, open_to_all)
    try:
        shutil.copy(image, open_to_all / image.name)  # its folder may be closed to others
        for path in (open_to_all, *open_to_all.rglob("*")):
            os.chown(path, 65534, 65534)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run(
            [*as_nobody, "apptainer", "--quiet", "run", image.name, *MASKS], cwd=open_to_all, capture_output=True,
            text=True, check=False, env=os.environ | {"HOME": str(open_to_all), "USER": "nobody"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(open_to_all)


def test_the_checkouts_library_goes_before_the_images(image: Path, project: Path) -> None:
    (project / "src/emsuite/__init__.py").write_text('__version__ = "mine"\n')
    ask = ("exec", image, "python", "-c", "import emsuite; print(emsuite.__version__, emsuite.__file__)")
    assert apptainer(*ask, cwd=project).stdout.startswith(f"mine {project}")
    elsewhere = apptainer(*ask, cwd=project.parent, PYTHONPATH=str(project / "src")).stdout
    assert elsewhere.endswith("/opt/emsuite/src/emsuite/__init__.py\n")


@pytest.mark.parametrize("kept", [0.999, 0.5, 1e-4])
def test_a_truncated_image(image: Path, project: Path, kept: float) -> None:
    part = project / "containers/emsuite.sif"
    shutil.copy(image, part)
    os.truncate(part, int(image.stat().st_size * kept))
    with pytest.raises(BadInput, match=r"emsuite\.sif: apptainer cannot run it .*; build it again"):
        check_image(part, project)


def test_an_image_of_another_version(image: Path, project: Path) -> None:
    lock = project / "requirements.lock"
    lock.write_text(lock.read_text().replace("\ntorch==", "\ntorch==9."))
    with pytest.raises(
        BadInput, match=r"\.sif: its packages are not those of requirements.lock: torch .*, expected 9\."
    ):
        check_image(image, project)
    for how in (("run", image), ("exec", image, "python3")):
        done = apptainer(*how, *MASKS, cwd=project)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {image}: its packages are not those of requirements.lock: torch ")
        assert done.stderr.count("\n") == 1


def test_an_image_that_lacks_a_package(image: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = apptainer("exec", image, "python", "-c", "import click.testing as c, importlib.metadata as m; "
                      "print(m.distribution('click')._path)", cwd=project).stdout.strip()  # fmt: skip
    users_own = apptainer("exec", image, "python3", "-c", "import nowhere", cwd=project.parent)
    assert "No module named 'nowhere'" in users_own.stderr
    (project / "empty").mkdir()
    (project / "click").mkdir()
    (project / "click/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    monkeypatch.setenv("APPTAINER_BIND", f"{project}/empty:{where},{project}/click:{Path(where).parent}/click")
    with pytest.raises(BadInput, match=r"its packages are not those of requirements\.lock: click none, expected 8"):
        check_image(image, project)
    for how in (("run", image), ("exec", image, "python3")):
        done = apptainer(*how, *MASKS, cwd=project)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {image}: its packages are not those of requirements.lock: click none")
        assert done.stderr.count("\n") == 1
