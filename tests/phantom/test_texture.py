"""Grey values: what is dark, what is bright."""

import numpy as np

from emsuite.phantom.texture import Tissue, render
from emsuite.phantom.tubes import Tubes

SHAPE, SPACING = (30, 40, 50), np.full(3, 8.0)
NONE = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, np.int32))


def along_z(radius: float, value: int = 1) -> Tubes:
    """One tube along z through the middle of the right half (y 160 nm, x 320 nm)."""
    start, end = np.array([[0.0, 160, 320]]), np.array([[240.0, 160, 320]])
    return Tubes(start, end, np.array([[radius, radius]]), np.array([value], np.int32))


def two_neurites(**organelles: Tubes) -> np.ndarray:
    """The left neurite ends at x = 200 nm (voxel 25), where the right one begins."""
    labels = np.ones(SHAPE, np.int32)
    labels[..., 25:] = 2
    depth = np.abs((np.arange(50) + 0.5) * 8 - 200).astype(np.float32)
    parts = dict.fromkeys(("mitochondria", "vesicles", "reticulum", "microtubules"), NONE) | organelles
    tissue = Tissue(labels, np.broadcast_to(depth, SHAPE), SPACING, **parts)
    return render(tissue, np.random.default_rng(5))


def test_the_membrane_is_dark_and_thin():
    across = two_neurites().mean(axis=(0, 1))
    cytoplasm = across[10:15].mean()
    assert across[24:26].max() < cytoplasm - 50
    assert across[20] > cytoplasm - 25
    assert across[30] > across[24:26].max() + 30


def test_the_membrane_is_uneven():
    dark = two_neurites()[:, :, 24]
    assert dark.std() > 5


def test_a_mitochondrion_is_dark_within_and_bounded_by_its_neurite():
    empty, filled = two_neurites(), two_neurites(mitochondria=along_z(70))
    changed = filled - empty
    assert filled[:, 17:23, 36:44].mean() < 100
    assert np.abs(changed[:, :, :24]).max() == 0
    assert changed[:, 17:23, 36:44].mean() < -40
    pressed = two_neurites(mitochondria=along_z(115)) - empty  # 5 nm from the membrane's middle
    assert np.abs(pressed[:, :, :27]).max() == 0
    assert pressed[:, 17:23, 30].mean() < -40


def test_vesicles_are_rings_and_cores_are_dark():
    middle = (slice(5, 25), 20, 40)
    clear = two_neurites(vesicles=along_z(24)) - two_neurites()
    core = two_neurites(vesicles=along_z(24, value=2)) - two_neurites()
    ring = clear[5:25, 20, [37, 42]].mean()
    assert ring < -10
    assert clear[middle].mean() > ring / 2
    assert core[middle].mean() < -30


def test_reticulum_has_a_bright_lumen_and_a_dark_wall():
    change = two_neurites(reticulum=along_z(34)) - two_neurites()
    assert change[5:25, 20, 40].mean() > 5
    assert change[5:25, 20, [35, 36, 43, 44]].min() < -15


def test_microtubules_are_dark_lines():
    change = two_neurites(microtubules=along_z(0)) - two_neurites()
    assert change[:, 19:21, 39:41].mean() < -15
    assert np.abs(change[:, :15]).max() == 0
