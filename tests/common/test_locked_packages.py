from importlib import metadata
from pathlib import Path

import pytest

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.common.locked_packages import check_image_here, check_packages, differences, image_here, pinned


def lock(folder: Path, *lines: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text("\n".join(["# all", "# What the stages need", *lines]) + "\n")
    return path


def test_what_the_stages_need_is_what_stands_first(tmp_path: Path) -> None:
    path = lock(tmp_path, "a==1.0", "b.c==2.0+cpu", "# What the workflow needs besides", "d==3")
    assert pinned(path) == {"a": "1.0", "b.c": "2.0"}


def test_what_is_installed_here_differs_in_nothing() -> None:
    names = pinned(ROOT / "requirements.lock")
    assert {"torch", "numpy", "click", "zarr"} <= names.keys()
    assert not {"snakemake", "mypy"} & names.keys()
    assert differences(ROOT / "requirements.lock") == []


def test_what_is_missing_or_another_version_is_named(tmp_path: Path) -> None:
    click = metadata.version("click")
    path = lock(tmp_path, "no-such-package==1.2", "click==0.1", f"numpy=={metadata.version('numpy')}")
    assert differences(path) == ["no-such-package none, expected 1.2", f"click {click}, expected 0.1"]
    with pytest.raises(BadInput) as caught:
        check_packages(path, "x.sif")
    assert str(caught.value).startswith("x.sif: its packages are not those of requirements.lock: no-such-package none")


def test_many_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"p2 none, expected 1; 4 more\. Build it again"):
        check_packages(lock(tmp_path, *(f"p{i}==1" for i in range(7))), "x.sif")


def test_no_lock(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        pinned(tmp_path / "requirements.lock")


def test_the_image_that_this_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_CONTAINER", "APPTAINER_NAME", "SINGULARITY_CONTAINER", "SINGULARITY_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert image_here() is None
    monkeypatch.setenv("SINGULARITY_CONTAINER", "/images/x.sif")
    assert image_here() == "/images/x.sif"
    monkeypatch.setenv("SINGULARITY_NAME", "x.sif")
    assert image_here() == "/images/x.sif"
    monkeypatch.setenv("SINGULARITY_CONTAINER", "/tmp/rootfs-1/root")  # unpacked
    assert image_here() == "x.sif"


def test_an_image_for_cuda_has_cudas_packages_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/x.sif")
    monkeypatch.setenv("APPTAINER_NAME", "x.sif")
    monkeypatch.delenv("EMSUITE_KIND", raising=False)
    here = lock(tmp_path, f"click=={metadata.version('click')}")
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/cuda.lock").write_text("# made\nnvidia-none==1.0\n")
    check_image_here(here)
    monkeypatch.setenv("EMSUITE_KIND", "cuda")
    with pytest.raises(
        BadInput, match=r"^/images/x\.sif: .* not those of cuda\.lock: nvidia-none none, expected 1\.0\."
    ):
        check_image_here(here)


def test_cudas_packages_are_pinned_besides_the_others() -> None:
    stages, cuda = (pinned(ROOT / name) for name in ("requirements.lock", "containers/cuda.lock"))
    assert {"triton", "nvidia-cudnn-cu13"} <= cuda.keys()
    assert not stages.keys() & cuda.keys()
