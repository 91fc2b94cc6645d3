"""The phantom as a whole: reproducible, dense, with branching neurites, hard to threshold, like FIB-25."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cc3d
import edt
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.metrics import variation_of_information

from emsuite.io.volume import open_volume
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.synthesize import STEPS, Phantom, synthesize

SETTINGS = PhantomSettings(shape=(80, 96, 96), seed=11)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return synthesize(SETTINGS)


def digest(phantom: Phantom) -> str:
    skeletons = phantom.skeletons
    parts = (phantom.raw, phantom.labels, skeletons.positions, skeletons.radius, skeletons.skeleton, skeletons.edges)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def test_shapes_and_types(phantom: Phantom):
    assert phantom.raw.shape == phantom.labels.shape == SETTINGS.shape
    assert phantom.raw.dtype == np.uint8
    assert phantom.labels.dtype == np.uint64


def test_another_process_with_other_threads_makes_the_same_bytes(phantom: Phantom):
    code = (
        "from test_synthesize import SETTINGS, digest\n"
        "from emsuite.phantom.synthesize import synthesize\n"
        "print(digest(synthesize(SETTINGS)))"
    )
    threads = {f"{library}_NUM_THREADS": "5" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    environment = os.environ | threads | {"PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(phantom)


def test_another_seed_is_another_tissue(phantom: Phantom):
    small = [synthesize(PhantomSettings(shape=(32, 32, 32), seed=seed)) for seed in (1, 2)]
    assert (small[0].labels != small[1].labels).mean() > 0.5
    assert (small[0].raw != small[1].raw).mean() > 0.9


def test_every_step_is_reported():
    reported: list[int] = []
    synthesize(PhantomSettings(shape=(16, 16, 16)), lambda: reported.append(1))
    assert len(reported) == STEPS


def test_labels_are_dense_and_numbered_without_gaps(phantom: Phantom):
    ids = np.unique(phantom.labels)
    assert np.array_equal(ids, np.arange(1, len(ids) + 1))
    assert len(ids) > 40


def test_neurons_are_almost_all_in_one_piece(phantom: Phantom):
    pieces = cc3d.connected_components(phantom.labels.astype(np.uint32), connectivity=6)
    assert sum(variation_of_information(phantom.labels, pieces, ignore_labels=(0,))) < 0.15


def test_neurites_are_of_all_widths(phantom: Phantom):
    """Twice the depth at skeleton nodes, from thin processes to trunks."""
    widest = 2 * edt.edt(phantom.labels, anisotropy=SETTINGS.voxel_size)
    at = tuple(np.floor(phantom.skeletons.positions / SETTINGS.voxel_size).astype(int).T)
    low, high = np.percentile(widest[at], [10, 99])
    assert low < 80
    assert high > 180


def surface_excess(labels: np.ndarray) -> float:
    """The median surface of labels, in those of balls of their volumes; small ones left out."""
    ratios = []
    for label in np.flatnonzero(np.bincount(labels.ravel().astype(int)) >= 2000):
        mask = np.pad(labels == label, 1).astype(np.int8)
        # the faces of voxels are half as much again as the smooth surface, on average over directions
        surface = sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in range(3)) / 1.5
        ratios.append(surface / (36 * np.pi * int(mask.sum()) ** 2) ** (1 / 3))
    return float(np.median(ratios))


def test_neurites_are_elongated_not_blobs(phantom: Phantom):
    """Measured: 1.55; Voronoi cells 1.17; crops of FIB-25 of this size 1.6 to 2.1."""
    voxels = np.stack(np.meshgrid(*map(np.arange, SETTINGS.shape), indexing="ij"), -1).reshape(-1, 3)
    seeds = np.random.default_rng(0).random((int(phantom.labels.max()), 3)) * SETTINGS.shape
    voronoi = cKDTree(seeds).query(voxels)[1].reshape(SETTINGS.shape)
    assert surface_excess(phantom.labels) > 1.2 * surface_excess(voronoi)


def test_skeletons_branch(phantom: Phantom):
    degrees = np.bincount(phantom.skeletons.edges.ravel())
    assert (degrees >= 3).sum() > 10


def test_every_skeleton_node_lies_in_its_own_label(phantom: Phantom):
    skeletons = phantom.skeletons
    at = tuple(np.floor(skeletons.positions / SETTINGS.voxel_size).astype(int).T)
    assert np.array_equal(phantom.labels[at].astype(np.int64), skeletons.skeleton)


def test_skeletons_run_inside_their_labels(phantom: Phantom):
    """Points along the edges, too, for all but a hundredth of their length."""
    skeletons = phantom.skeletons
    along = np.linspace(0, 1, 9)[:, None, None]
    a, b = (skeletons.positions[skeletons.ends[:, end]] for end in (0, 1))
    at = np.floor((a + along * (b - a)) / SETTINGS.voxel_size).astype(int)
    own = phantom.labels[tuple(np.moveaxis(at, -1, 0))] == skeletons.skeleton[skeletons.ends[:, 0]].astype(np.uint64)
    assert np.average(own.mean(axis=0), weights=skeletons.lengths) > 0.98


def test_most_of_the_volume_has_a_skeleton(phantom: Phantom):
    counts = np.bincount(phantom.labels.ravel().astype(int))
    assert counts[np.unique(phantom.skeletons.skeleton)].sum() > 0.95 * phantom.labels.size


def test_membranes_are_darker_than_cytoplasm(phantom: Phantom):
    depth = edt.edt(phantom.labels)
    membrane, cytoplasm = phantom.raw[depth <= 1], phantom.raw[(depth > 3) & (depth < 6)]
    assert membrane.mean() < cytoplasm.mean() - 30


def test_grey_values_are_like_fib25s(phantom: Phantom, fib25_slab: Path):
    real = open_volume(fib25_slab / "volumes/raw").read()
    for synthetic, measured in ((phantom.raw.mean(), real.mean()), (phantom.raw.std(), real.std())):
        assert abs(synthetic / measured - 1) < 0.15
    # band-passed texture, from pixel noise to organelles
    for fine, coarse in ((0, 0.7), (0.7, 1.4), (1.4, 2.8), (2.8, 5.6)):
        bands = [
            ndimage.gaussian_filter(v, fine) - ndimage.gaussian_filter(v, coarse)
            for v in (phantom.raw.astype(np.float32), real[:80, :96, :96].astype(np.float32))
        ]
        assert 0.65 < bands[0].std() / bands[1].std() < 1.55


@pytest.mark.slow
def test_thresholding_segments_it_badly(phantom: Phantom):
    """Bright components after smoothing, the rest given to the nearest one: at best far worse than 1.5 bits.

    Measured: 2.4 bits here; 4.5 and 3.5 bits at 160 x 200 x 200 voxels (seeds 0, 1); 2.5 bits on 160^3 of FIB-25.
    """
    best = np.inf
    for sigma in (0.0, 1.0, 2.0):
        smooth = ndimage.gaussian_filter(phantom.raw.astype(np.float32), sigma)
        for threshold in range(90, 180, 10):
            segments = cc3d.connected_components(smooth > threshold, connectivity=6)
            if not segments.any():
                continue
            nearest = ndimage.distance_transform_edt(segments == 0, return_distances=False, return_indices=True)
            score = variation_of_information(phantom.labels, segments[tuple(nearest)], ignore_labels=(0,))
            best = min(best, sum(score))
    print(f"best of thresholds: {best:.2f} bits")
    assert best > 2.0


PADDED = PhantomSettings(shape=(40, 60, 64), seed=4, padding=(4, 10, 12), unlabelled=0.1)


def test_labels_are_smaller_than_raw_by_the_padding_and_the_tissue_is_the_same():
    whole, padded = synthesize(PADDED.model_copy(update={"padding": (0, 0, 0), "unlabelled": 0.0})), synthesize(PADDED)
    assert np.array_equal(padded.raw, whole.raw)
    assert padded.labels.shape == PADDED.labels_shape == (32, 40, 40)
    inner = whole.labels[4:-4, 10:-10, 12:-12]
    is_neuron = padded.labels < 2**63
    assert np.array_equal(padded.labels[is_neuron], inner[is_neuron])
    assert padded.neurons == len(np.unique(inner[is_neuron]))


def test_special_ids_take_the_place_of_whole_neurons_and_have_no_skeleton():
    padded, whole = synthesize(PADDED), synthesize(PADDED.model_copy(update={"unlabelled": 0.0}))
    is_special = padded.labels >= 2**64 - 3
    assert 0.07 < is_special.mean() <= 0.1
    assert set(np.unique(padded.labels[is_special])) == {2**64 - 1, 2**64 - 2, 2**64 - 3}
    lost = np.unique(whole.labels[is_special])
    assert not np.isin(padded.labels, lost).any()
    assert not np.isin(whole.labels[~is_special], lost).any()
    kept = ~np.isin(whole.skeletons.skeleton, lost.astype(np.int64))
    assert np.array_equal(padded.skeletons.positions, whole.skeletons.positions[kept])


def test_missing_sections_are_black_and_labelled():
    settings = PhantomSettings(shape=(40, 32, 32), seed=4)
    whole, damaged = (
        synthesize(settings.model_copy(update={"missing_sections": fraction})) for fraction in (0.0, 0.15)
    )
    black = (damaged.raw == 0).all(axis=(1, 2))
    assert black.sum() == 6
    assert np.array_equal(damaged.raw[~black], whole.raw[~black])
    assert np.array_equal(damaged.labels, whole.labels)


def test_shifted_sections_move_raw_labels_and_skeletons_together():
    settings = PhantomSettings(shape=(40, 48, 48), seed=4, shifted_sections=0.2, max_shift=80)
    phantom = synthesize(settings)
    offsets = [shift_between(phantom.labels[z], phantom.labels[z + 1], 20) for z in range(39)]
    jumps = sum(offset != (0, 0) for offset in offsets)
    assert 5 <= jumps <= 16  # 8 sections, each off its two neighbours
    assert max(max(map(abs, offset)) for offset in offsets) > 3
    at = tuple(np.floor(phantom.skeletons.positions / 8).astype(int).T)
    assert np.array_equal(phantom.labels[at].astype(np.int64), phantom.skeletons.skeleton)
    depth = np.stack([edt.edt(section) for section in phantom.labels])
    assert phantom.raw[depth <= 1].mean() < phantom.raw[(depth > 3) & (depth < 6)].mean() - 20


def shift_between(first: np.ndarray, second: np.ndarray, farthest: int) -> tuple[int, int]:
    """The move of `second` (voxels along y, x) under which most labels agree with `first`."""
    best, shift = 0.0, (0, 0)
    for y in range(-farthest, farthest + 1):
        for x in range(-farthest, farthest + 1):
            a = first[max(0, y) : 48 + min(0, y), max(0, x) : 48 + min(0, x)]
            b = second[max(0, -y) : 48 + min(0, -y), max(0, -x) : 48 + min(0, -x)]
            agree = (a == b).mean() - 0.002 * (abs(y) + abs(x))
            if agree > best:
                best, shift = agree, (y, x)
    return shift


def test_anisotropic_voxels_keep_lengths_in_nm():
    thick = synthesize(PhantomSettings(shape=(16, 100, 100), voxel_size=(40, 6, 6), seed=2))
    even = synthesize(PhantomSettings(shape=(80, 75, 75), voxel_size=(8, 8, 8), seed=2))
    widths = []
    for phantom, voxel_size in ((thick, (40, 6, 6)), (even, (8, 8, 8))):
        # in-plane alone, where both resolve the neurites
        depth = np.stack([edt.edt(section, anisotropy=voxel_size[1:]) for section in phantom.labels])
        widths.append(np.median(depth))
        at = tuple(np.floor(phantom.skeletons.positions / voxel_size).astype(int).T)
        assert np.array_equal(phantom.labels[at].astype(np.int64), phantom.skeletons.skeleton)
    assert 0.7 < widths[0] / widths[1] < 1.4
    assert abs(int(thick.labels.max()) / int(even.labels.max()) - 1) < 0.5
