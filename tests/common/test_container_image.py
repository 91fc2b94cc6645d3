"""Images as files, without running them; tests/test_containers.py runs them."""

import hashlib
import os
from pathlib import Path

import pytest

from emsuite.common.container_image import Image, check_image, container_program, digest, parse_image, record, recorded
from emsuite.common.errors import BadInput

PLACE = Path("containers")


@pytest.mark.parametrize(
    ("setting", "expected", "location"),
    [
        ("containers/emsuite.sif", Image(Path("containers/emsuite.sif")), "containers/emsuite.sif"),
        ("/images/a.sif", Image(Path("/images/a.sif")), "/images/a.sif"),
        ("s3://b/k/a.sif", Image(PLACE / "a.sif", s3="s3://b/k/a.sif"), "containers/a.sif"),
        ("s3://b/lsd:v0.8.img", Image(PLACE / "lsd_v0.8.img", s3="s3://b/lsd:v0.8.img"), "containers/lsd_v0.8.img"),
        ("docker://lab/emsuite:1", Image(None, uri="docker://lab/emsuite:1"), "docker://lab/emsuite:1"),
        ("docker://x@sha256:1", Image(None, uri="docker://x@sha256:1"), "docker://x@sha256:1"),
        ("oras://ghcr.io/lab/x:1", Image(None, uri="oras://ghcr.io/lab/x:1"), "oras://ghcr.io/lab/x:1"),
    ],
)
def test_what_a_setting_means(setting: str, expected: Image, location: str) -> None:
    assert parse_image(setting, PLACE) == expected
    assert expected.location == location


@pytest.mark.parametrize("setting", ["", " ", "a b.sif", "s3://", "s3://bucket/folder/"])
def test_settings_without_meaning(setting: str) -> None:
    with pytest.raises(BadInput, match=r"config/config\.yaml: container: "):
        parse_image(setting, PLACE)


@pytest.mark.parametrize("setting", ["docker://jane:hunter2@lab/x:1", "https://lab/x.sif?token=hunter2"])
def test_a_password_is_refused_and_not_shown(setting: str) -> None:
    with pytest.raises(BadInput, match="holds a password or a token; expected a URL without") as error:
        parse_image(setting, PLACE)
    assert "hunter2" not in str(error.value)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.sif"
    path.write_bytes(b"image")
    return path


def test_the_digest_is_recorded_and_then_taken_from_there(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hashlib.sha256(b"image").hexdigest()
    assert digest(image) == expected
    assert recorded(image)["sha256"] == expected
    monkeypatch.setattr("emsuite.common.container_image.sha256", lambda path: pytest.fail("computed again"))
    assert digest(image) == expected


def test_a_copy_with_another_time_is_looked_at_again(image: Path) -> None:
    expected = digest(image)
    os.utime(image, (0, 0))
    assert digest(image) == expected
    assert recorded(image)["modified_ns"] == 0


def test_a_truncated_image_is_refused(image: Path) -> None:
    digest(image)
    image.write_bytes(b"imag")
    with pytest.raises(BadInput, match=r"x\.sif: 4 bytes, 5 were recorded; build it again"):
        digest(image)


def test_another_image_under_the_same_name_is_refused(image: Path) -> None:
    digest(image)
    image.write_bytes(b"imago")
    os.utime(image, (0, 0))
    with pytest.raises(BadInput, match=r"x\.sif: its sha256 is .* was recorded"):
        digest(image)


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_record_of_no_use_is_replaced(image: Path, content: str) -> None:
    image.with_name("x.sif.json").write_text(content)
    assert digest(image) == hashlib.sha256(b"image").hexdigest()
    assert recorded(image)["bytes"] == 5


def test_more_can_be_recorded(image: Path) -> None:
    record(image, "0" * 64, source="s3://b/k")
    assert recorded(image)["source"] == "s3://b/k"


def test_no_image(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.sif: No such file or directory; expected a container image"):
        digest(tmp_path / "none.sif")


def test_no_apptainer(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"no apptainer .* on PATH, which runs steps in an image; install it"):
        check_image(image, tmp_path)
    (tmp_path / "singularity").write_text("#!/bin/sh\n")
    (tmp_path / "singularity").chmod(0o755)
    assert container_program() == "singularity"


def test_what_the_image_says_and_what_apptainer_says(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert check_image(image, tmp_path) == hashlib.sha256(b"image").hexdigest()
    program.write_text("#!/bin/sh\necho 'WARNING: x' >&2; echo 'error: x.sif: lacks much' >&2; exit 2\n")
    with pytest.raises(BadInput, match=r"^x\.sif: lacks much$"):
        check_image(image, tmp_path)
    program.write_text("#!/bin/sh\necho 'FATAL:   no squashfs' >&2; exit 255\n")
    with pytest.raises(BadInput, match=r"x\.sif: apptainer cannot run it \(no squashfs\); build it again"):
        check_image(image, tmp_path)
