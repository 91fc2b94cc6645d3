"""A file in CREMI's layout, read in place: labels smaller than raw, with `offset` in nm; special ids are no truth."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emsuite.common.geometry import Coordinate, Roi
from emsuite.data.labels_mask import MaskRule
from emsuite.data.training_volume import load_training_volume
from emsuite.io.fingerprint import is_as_seen, seen_arrays
from emsuite.io.single_file import write_hdf5
from emsuite.io.values import SPECIAL_IDS
from emsuite.io.volume import open_volume
from emsuite.visualization.contents import data_layers

RULE = MaskRule(unlabelled=SPECIAL_IDS)


def labels() -> np.ndarray:
    """Neurons 5 and 2**63, and in a corner the three special ids."""
    voxels = np.full((4, 6, 8), 5, np.uint64)
    voxels[2:] = 2**63
    for n, label in enumerate(SPECIAL_IDS):
        voxels[0, 0, n] = label
    return voxels


@pytest.fixture
def file(tmp_path: Path) -> Path:
    raw = np.arange(6 * 10 * 14, dtype=np.uint8).reshape(6, 10, 14)
    grid = {"resolution": [40.0, 4.0, 4.0]}
    arrays = {
        "volumes/raw": (raw, grid),
        "volumes/labels/neuron_ids": (labels(), grid | {"offset": [40.0, 8.0, 12.0]}),
    }
    write_hdf5(tmp_path / "a.hdf", arrays, {"file_format": "0.2"})
    return tmp_path / "a.hdf"


def test_offsets_are_nm_and_0_without_one(file: Path) -> None:
    raw, stored = open_volume(file / "volumes/raw"), open_volume(file / "volumes/labels/neuron_ids")
    assert raw.roi == Roi((0, 0, 0), (240, 40, 56))
    assert stored.roi == Roi((40, 8, 12), (160, 24, 32))
    assert raw.roi.contains(stored.roi)


@pytest.mark.parametrize("stream", [False, True])
def test_special_ids_are_masked_out_and_no_neurons_in_training(file: Path, stream: bool) -> None:
    volume = load_training_volume(file, stream=stream, rule=RULE)
    whole = (slice(None),) * 3
    assert volume.labels_offset - volume.raw_offset == Coordinate(40, 8, 12)
    assert volume.mask is not None
    assert volume.labels is not None
    read, mask = volume.labels[whole], volume.mask[whole]
    special = torch.from_numpy(labels() >= np.uint64(2**64 - 3))
    assert torch.equal(mask == 0, special)
    assert torch.equal(read == 0, special)
    assert read.unique().tolist() == [0, 1, 2], "the neuron at 2**63 stays one"
    assert tuple(volume.raw.shape) == (6, 10, 14), "raw is kept whole, as context"


def test_all_arrays_are_seen_and_shown_at_their_places(file: Path) -> None:
    layers = {layer.name: layer.volume for layer in data_layers([file])}
    assert {name: tuple(volume.offset) for name, volume in layers.items()} == {
        "raw": (0, 0, 0),
        "labels/neuron_ids": (40, 8, 12),
    }
    before = seen_arrays(file)
    assert before.keys() == {"volumes/raw", "volumes/labels/neuron_ids"}
    copied = file.with_name("b.hdf")
    copied.write_bytes(file.read_bytes())
    assert is_as_seen(copied / "volumes/raw", before["volumes/raw"])
    copied.write_bytes(file.read_bytes() + b" ")
    assert not is_as_seen(copied / "volumes/raw", before["volumes/raw"])
