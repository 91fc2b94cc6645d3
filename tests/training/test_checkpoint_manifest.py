"""Times and machine of a training outlive its manifest, which Snakemake removes."""

import json
from pathlib import Path

import pytest

from emsuite.common.outputs import manifest_path
from emsuite.training.checkpoint_manifest import renew_manifest, write_manifest

TRAINED = {"started": "2026-01-02T03:04:05Z", "machine": {"cpus": 2}, "private": {"host": "here"}}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "checkpoint_2.pt"
    path.write_bytes(b"weights")
    monkeypatch.setenv("EMSUITE_ORDER", "first")
    write_manifest(path, 2, TRAINED)
    return path


def renewed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    manifest_path(checkpoint).unlink()
    monkeypatch.setenv("EMSUITE_ORDER", "second")
    renew_manifest(checkpoint, 2, {"seed": 3}, {})
    return json.loads(manifest_path(checkpoint).read_text())


def test_times_and_machine_stay(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = json.loads(manifest_path(checkpoint).read_text())
    assert first.pop("private") == {"host": "here"}
    assert "here" not in (checkpoint.parent / ".checkpoint_2.pt.emsuite").read_text()
    assert renewed(checkpoint, monkeypatch) == first | {"order": "second"}


def test_those_of_another_checkpoint_do_not(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write_bytes(b"others")
    about = renewed(checkpoint, monkeypatch)
    assert about["seed"] == 3
    assert "started" not in about
