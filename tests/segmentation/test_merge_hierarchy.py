import os

import numpy as np
import pytest

from emsuite.common.process import silent_stdout
from emsuite.segmentation.find_segments import components
from emsuite.segmentation.merge_hierarchy import (
    MERGE_FUNCTIONS,
    find_contacts,
    merge_regions,
    score_edges,
    score_edges_in_sections,
)


def row_of_boxes(between):
    """Boxes of (3, 4, 5) voxels along x, numbered from 1 up, with these affinities (0 to 255) where they touch."""
    fragments = np.repeat(np.arange(1, len(between) + 2, dtype=np.uint32), 5) * np.ones((3, 4, 1), np.uint32)
    affs = np.full((3, *fragments.shape), 255, np.uint8)
    for number, value in enumerate(between, 1):
        affs[2, :, :, 5 * number] = value
    return affs, fragments


def random_volume(seed, shape=(12, 13, 14)):
    random = np.random.default_rng(seed)
    coarse = random.permutation(np.arange(1, 65)).reshape(4, 4, 4)
    fragments = np.kron(coarse, np.ones((3, 4, 4), int))[: shape[0], : shape[1], : shape[2]]
    fragments = np.unique(fragments, return_inverse=True)[1].reshape(shape).astype(np.uint32)
    return random.integers(0, 256, (3, *shape), np.uint8), fragments


def test_contacts_are_counted_in_faces():
    u, v, contact = find_contacts(row_of_boxes([0, 0])[1])
    assert (u.tolist(), v.tolist(), contact.tolist()) == ([1, 2], [2, 3], [12, 12])


def test_every_touching_pair_is_found():
    fragments = random_volume(0)[1]
    expected = {}
    for axis in range(3):
        a, b = np.moveaxis(fragments, axis, 0)[1:].ravel(), np.moveaxis(fragments, axis, 0)[:-1].ravel()
        for pair in zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True):
            if pair[0] != pair[1] and pair[0] != 0:
                expected[pair] = expected.get(pair, 0) + 1
    u, v, contact = find_contacts(fragments)
    assert dict(zip(zip(u.tolist(), v.tolist(), strict=True), contact.tolist(), strict=True)) == expected
    assert sorted(expected) == list(expected) or list(zip(u, v, strict=True)) == sorted(zip(u, v, strict=True))


@pytest.mark.parametrize("merge_function", MERGE_FUNCTIONS)
def test_a_uniform_contact_scores_one_minus_its_affinity(merge_function):
    edges = score_edges(*row_of_boxes([204, 51]), merge_function)
    assert edges.score == pytest.approx([0.2, 0.8], abs=1 / 256)
    assert edges.u.dtype == edges.v.dtype == np.uint64
    assert edges.score.dtype == np.float32
    assert edges.contact.tolist() == [12, 12]


def test_what_never_merges_scores_infinity():
    assert score_edges(*row_of_boxes([255, 0]), "mean").score.tolist() == [0, np.inf]


def test_an_edge_scores_when_its_ends_merge_over_another():
    fragments = np.array([[[1, 1, 3], [2, 2, 3]]], np.uint32)
    affs = np.zeros((3, *fragments.shape), np.uint8)
    affs[1, 0, 1, :2] = 255  # 1 and 2 are one
    affs[2, 0, 1, 2] = 153  # 2 and 3 likely, 1 and 3 not: together, half as much
    edges = score_edges(affs, fragments, "mean")
    assert list(zip(edges.u.tolist(), edges.v.tolist(), strict=True)) == [(1, 2), (1, 3), (2, 3)]
    assert edges.score == pytest.approx([0, 0.7, 0.7])


@pytest.mark.parametrize("merge_function", ["hist_quant_50", "hist_quant_75", "hist_quant_25_initmax"])
@pytest.mark.parametrize("seed", range(3))
def test_components_at_a_threshold_are_what_waterz_merges_up_to_it(merge_function, seed):
    affs, fragments = random_volume(seed)
    ids = np.unique(fragments[fragments != 0]).astype(np.uint64)
    edges = score_edges(affs, fragments, merge_function)
    # scores lie in the middles of the bins: between two bins, below and up to are the same
    for threshold, segments in components(ids, edges, [bins / 256 for bins in range(64, 250, 8)]):
        merged = merge_regions(affs, fragments, merge_function, threshold)
        pairs = np.unique(
            np.stack([np.append(0, segments)[np.searchsorted(ids, fragments, "right")], merged]).reshape(2, -1), axis=1
        )
        assert pairs.shape[1] == np.unique(pairs[0]).size == np.unique(pairs[1]).size


def test_nothing_to_merge_is_no_edges():
    affs = np.zeros((3, 2, 2, 2), np.uint8)
    for fragments in (np.zeros((2, 2, 2), np.uint32), np.ones((2, 2, 2), np.uint32)):
        assert score_edges(affs, fragments, "mean").u.size == 0
        assert (merge_regions(affs, fragments, "mean", 0.5) == fragments).all()


def test_waterz_prints_nothing_where_the_program_is_silent_and_the_fragments_are_left_alone(capfd):
    affs, fragments = row_of_boxes([200])
    before = fragments.copy()
    print("before")
    with silent_stdout():
        score_edges(affs, fragments, "mean")
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"
    assert (fragments == before).all()


def test_file_descriptors_are_left_to_the_program(monkeypatch):
    """Within one of several threads, a redirection would swallow what the others print."""
    with silent_stdout(), monkeypatch.context() as patch:
        patch.setattr(os, "dup2", None)
        score_edges(*row_of_boxes([200]), "mean")
        merge_regions(*row_of_boxes([200]), "mean", 0.5)


def test_edges_in_sections_are_those_of_each_section_alone():
    affs, fragments = random_volume(3)
    fragments += 1
    shifted = (fragments + 100 * np.arange(len(fragments))[:, None, None]).astype(np.uint32)  # each in one section
    shifted[fragments == 7] = 0
    found = score_edges_in_sections(affs, shifted, "mean")
    rows = []
    for z in range(len(fragments)):
        own = np.where(fragments[z] == 7, 0, fragments[z])[None].astype(np.uint32)
        edges = score_edges(affs[:, z : z + 1], own, "mean")
        rows += zip(edges.u + 100 * z, edges.v + 100 * z, edges.score, edges.contact, strict=True)
    assert list(zip(*found, strict=True)) == sorted(rows)
    assert len(rows) > 50
    assert score_edges_in_sections(affs, 0 * shifted, "mean").u.size == 0
