"""Artifacts of sections: read, placed and laid over samples."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.missing_sections import MissingSections
from emsuite.common.errors import BadInput
from emsuite.data.artifact_sections import with_artifacts

CPU = torch.device("cpu")
SIZE = (40, 4, 4)


def write(path: Path, opacity: np.ndarray, raw: np.ndarray | None = None, **attributes) -> Path:
    """Artifacts as they are published for CREMI: no attributes, unless some are given."""
    raw = np.arange(opacity.size, dtype=np.uint8).reshape(opacity.shape) if raw is None else raw
    with h5py.File(path, "w") as file:
        for name, array in (("defect_sections/raw", raw), ("defect_sections/mask", opacity)):
            file[name] = array
            file[name].attrs.update(attributes)
    return path


def step(path: Path, **more) -> MissingSections:
    return MissingSections(name="missing_sections", missing=0, artifact=1, artifacts={"volume": str(path)}, **more)


def test_every_piece_is_one_of_the_volume_mirrored_and_transposed_and_shows_an_artifact(tmp_path):
    opacity = np.zeros((3, 6, 7), np.uint8)
    opacity[1, 2:, :5] = 1
    path = write(tmp_path / "a.hdf", opacity)
    (made,) = with_artifacts([step(path)], (9, 4, 4), SIZE, CPU)
    with h5py.File(path) as file:
        stored = file["defect_sections/raw"][1]
    pieces = {}
    for y, x in np.ndindex(3, 4):
        for turn in range(8):
            turned = np.rot90(stored[y : y + 4, x : x + 4], turn % 4)
            pieces[(turned.T if turn > 3 else turned).tobytes()] = (y, x, turn)
    found = set()
    for seed in range(300):
        values, shown = made._source.draw(np.random.default_rng(seed))
        assert values.dtype == shown.dtype == torch.float32
        found.add(pieces[(values * 255).round().byte().numpy().tobytes()])
        assert shown.sum() >= 1
    assert len(found) > 0.9 * sum((opacity[1, y : y + 4, x : x + 4].sum() >= 0.8) * 8 for y, x in np.ndindex(3, 4))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(np.uint8([0, 1]), [0, 1]), (np.uint8([51, 255]), [0.2, 1]), (np.float32([0.25, 1]), [0.25, 1])],
)
def test_opacities_of_all_types(tmp_path, stored, expected):
    path = write(tmp_path / "a.hdf", np.broadcast_to(stored, (1, 4, 2)).copy(), resolution=SIZE)
    (made,) = with_artifacts([step(path)], (9, 4, 2), SIZE, CPU)
    assert made._source.opacity[0, 0].tolist() == pytest.approx(expected)


def test_a_sample_is_covered_and_the_same_seed_gives_the_same(tmp_path):
    opacity = np.full((2, 8, 8), 255, np.uint8)
    path = write(tmp_path / "a.hdf", opacity, np.full((2, 8, 8), 102, np.uint8))
    mirror = MirrorTranspose(name="mirror_transpose")
    steps = with_artifacts([mirror, step(path)], (5, 6, 8), SIZE, CPU)
    assert steps[0] is mirror
    raw = torch.rand(5, 6, 8)
    steps[1].apply(raw, np.random.default_rng(0))
    torch.testing.assert_close(raw, torch.full((5, 6, 8), 0.4))
    varied = write(tmp_path / "b.hdf", np.random.default_rng(0).random((2, 20, 20), np.float32))
    twice = []
    for _ in range(2):
        (made,) = with_artifacts([step(varied)], (5, 6, 8), SIZE, CPU)
        twice.append(torch.zeros(5, 6, 8))
        made.apply(twice[-1], np.random.default_rng(4))
    assert torch.equal(*twice)
    assert len({section.numpy().tobytes() for section in twice[0]}) == 5


def test_what_cannot_serve_is_refused(tmp_path):
    ones = np.ones((2, 8, 8), np.uint8)
    with pytest.raises(BadInput, match="no such volume"):
        with_artifacts([step(tmp_path / "none.hdf")], (5, 6, 6), SIZE, CPU)
    with pytest.raises(BadInput, match=r"other voxels, expected the network's, \(40, 4, 4\) nm"):
        with_artifacts([step(write(tmp_path / "a.hdf", ones, resolution=(8, 8, 8)))], (5, 6, 6), SIZE, CPU)
    with pytest.raises(BadInput, match=r"sections of \(8, 8\) voxels; expected sections of at least \(6, 9\)"):
        with_artifacts([step(write(tmp_path / "b.hdf", ones))], (5, 6, 9), SIZE, CPU)
    with pytest.raises(BadInput, match="an artifact hides 5% somewhere"):
        with_artifacts([step(write(tmp_path / "c.hdf", 0 * ones))], (5, 6, 6), SIZE, CPU)
    with pytest.raises(BadInput, match=r"expected z, y, x as .*/raw: \(2, 8, 9\)"):
        with_artifacts([step(write(tmp_path / "d.hdf", ones, np.ones((2, 8, 9), np.uint8)))], (5, 6, 6), SIZE, CPU)
    with pytest.raises(BadInput, match="expected uint8, or floats from 0 to 1"):
        with_artifacts([step(write(tmp_path / "e.hdf", 2 * ones.astype(np.float32)))], (5, 6, 6), SIZE, CPU)
