"""Growing boundaries: by hand, label by label in SciPy, and as gunpowder did it; pieces as SciPy finds them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from emsuite.common.errors import BadInput
from emsuite.targets.boundary import connected_components, grow_boundary, grow_with_torch

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_targets.npz"


def eroded(labels, steps, in_plane, mask):
    """Each label eroded on its own."""
    if in_plane:
        return np.stack([eroded(section, steps, False, mask[z]) for z, section in enumerate(labels)])
    kept = np.zeros(labels.shape, bool)
    for label in np.unique(labels[labels != 0]):
        kept |= ndimage.binary_erosion((labels == label) | (mask == 0), iterations=steps, border_value=1)
    return np.where(kept, labels, 0)


def test_both_sides_of_a_contact_become_0_and_the_border_does_not():
    labels = np.array([[1, 1, 1, 2, 2, 0, 0, 3, 3]])
    assert grow_boundary(labels).tolist() == [[1, 1, 0, 0, 0, 0, 0, 0, 3]]
    assert grow_boundary(labels, steps=2).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert grow_boundary(labels, steps=0).tolist() == labels.tolist()


def test_a_masked_voxel_is_of_its_neighbours_kind():
    labels = np.array([[1, 1, 1, 2, 2]])
    mask = np.array([[1, 1, 1, 0, 0]], np.uint8)
    assert grow_boundary(labels, mask=mask).tolist() == [[1, 1, 1, 2, 2]]
    assert grow_boundary(labels, mask=1 - mask).tolist() == [[1, 1, 1, 2, 2]]
    between = np.array([[1, 1, 0, 1, 1]], np.uint8)
    assert grow_boundary(labels, mask=between).tolist() == [[1, 1, 0, 2, 2]]  # reaches 1 and 2


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("masked", [0, 0.02, 0.5, 1])
def test_equals_eroding_label_by_label(steps, in_plane, masked):
    rng = np.random.default_rng(steps)
    labels = rng.integers(0, 5, (3, 4, 4)).repeat(7, 0).repeat(6, 1).repeat(8, 2)
    mask = (rng.random(labels.shape) >= masked).astype(np.uint8)
    given = labels.copy()
    found = grow_boundary(labels, steps, in_plane, mask)
    assert np.array_equal(found, eroded(labels, steps, in_plane, mask))
    assert np.array_equal(labels, given)
    if masked == 0:
        assert np.array_equal(found, grow_boundary(labels, steps, in_plane))


@pytest.mark.parametrize("masked", [False, True])
def test_three_steps_within_sections_equal_gunpowder_bit_for_bit(masked):
    with np.load(PEERS) as peers:
        labels, mask, expected = (peers[name] for name in ("tutorial_labels", "tutorial_mask",
                                                           "masked_grown" if masked else "tutorial_grown"))  # fmt: skip
    assert (expected != 0).mean() > 0.1
    assert np.array_equal(grow_boundary(labels, 3, True, mask if masked else None), expected)
    assert np.array_equal(grow_boundary(torch.from_numpy(labels.astype(np.int32)), 3, True).numpy(),
                          grow_boundary(labels, 3, True))  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_gunpowder_bit_for_bit(steps, in_plane, masked):
    with np.load(PEERS) as peers:
        labels, mask, expected = peers["labels"], peers["mask"], peers[f"grown_{steps}_{in_plane}_{masked}"]
    found = grow_boundary(labels, steps, in_plane, mask if masked else None)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_torch_and_numpy_agree_on_any_type():
    labels = np.random.default_rng(1).integers(0, 3, (2, 2, 2)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    expected = grow_boundary(labels)
    for dtype in (torch.int32, torch.int64, torch.uint64):
        found = grow_boundary(torch.from_numpy(labels).to(dtype))
        assert found.dtype == dtype
        assert np.array_equal(found.numpy(), expected)
    names = np.array([0, 2**64 - 1, 2**63 - 1], np.uint64)
    assert np.array_equal(grow_boundary(names[labels]), names[expected])
    batch = torch.from_numpy(np.stack([labels, labels[::-1]]))
    assert np.array_equal(grow_boundary(batch)[1].numpy(), grow_boundary(labels[::-1]))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(BadInput, match=r"labels \(3, 3\) and mask \(3, 4\)"):
        grow_boundary(np.ones((3, 3), int), mask=np.ones((3, 4), int))
    with pytest.raises(BadInput, match="expected integers"):
        grow_boundary(np.ones((3, 3)))


@pytest.mark.parametrize("dims", [2, 3])
def test_pieces_are_those_of_scipy_without_single_voxels(dims):
    labels = np.random.default_rng(dims).integers(0, 4, (12, 13, 14)[3 - dims :]).astype(np.uint64) * 2**61
    found = connected_components(labels)
    assert found.dtype == np.uint64
    expected, pieces = np.zeros(labels.shape, int), 0
    for label in np.unique(labels[labels != 0]):
        parts, count = ndimage.label(labels == label)
        expected[parts > 0] = parts[parts > 0] + pieces
        pieces += count
    size = np.bincount(expected.ravel())
    expected[(size == 1)[expected]] = 0
    pairs = np.unique(np.stack([found.ravel().astype(int), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(found)) == len(np.unique(expected)) == found.max() + 1
    assert [pair for pair in pairs.T.tolist() if 0 in pair] == [[0, 0]]


def test_pieces_of_tensors_are_tensors():
    labels = torch.tensor([[1, 1, 2, 1, 1]], dtype=torch.int32)
    found = connected_components(labels)
    assert found.dtype == torch.int32
    assert found.tolist() == [[1, 1, 0, 2, 2]]
    assert connected_components(torch.zeros(3, 4, 5, dtype=torch.int64)).sum() == 0


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 9, 8), (6, 5, 7), (1, 1, 1), (9, 11)])
def test_the_loops_and_torch_leave_the_same(shape, masked, in_plane, steps):
    random = np.random.default_rng(4)
    labels = random.integers(-2, 3, shape).repeat(8, -1).repeat(7, -2)
    labels = labels if len(shape) == 2 else labels.repeat(7, -3)
    mask = (random.random(labels.shape) < 0.6) if masked else None
    value = torch.from_numpy(labels)
    known = None if mask is None else torch.from_numpy(mask)
    expected = grow_with_torch(value, steps, in_plane, known).numpy()
    assert np.array_equal(grow_boundary(labels, steps, in_plane, mask), expected)
    small = grow_boundary(labels.astype(np.int32), steps, in_plane, mask)
    assert small.dtype == np.int32
    assert np.array_equal(small, expected)
    assert expected.any()
