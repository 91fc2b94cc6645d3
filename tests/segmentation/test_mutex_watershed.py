import numpy as np
import pytest

from emsuite.segmentation.mutex_watershed import mutex_pieces

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]


def edges_of(shape, offsets):
    """Channel, voxel and voxel of every edge inside."""
    for c, offset in enumerate(offsets):
        for here in np.ndindex(shape):
            there = tuple(int(h + o) for h, o in zip(here, offset, strict=True))
            if all(0 <= t < n for t, n in zip(there, shape, strict=True)):
                yield c, here, there


def reference(affs, offsets):
    """The algorithm as the paper states it, an edge at a time; the pieces as sets of voxels."""
    shape = affs.shape[1:]
    weights = [(affs[c][here] / 255 - 0.5, here, there) for c, here, there in edges_of(shape, offsets)]
    piece = {voxel: frozenset([voxel]) for voxel in np.ndindex(shape)}
    apart: list[tuple[tuple, tuple]] = []
    for weight, here, there in sorted(weights, key=lambda edge: -abs(edge[0])):
        a, b = piece[here], piece[there]
        if weight < 0:
            apart.append((here, there))
        elif a != b and not any((u in a and v in b) or (u in b and v in a) for u, v in apart):
            piece |= dict.fromkeys(a | b, a | b)
    return set(piece.values())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offsets", [NEAR, [*NEAR, (0, -2, 0), (0, 0, -3)]])
def test_as_the_paper_states_it(offsets, seed):
    random = np.random.default_rng(seed)
    shape, affs = (2, 4, 4), np.zeros((len(offsets), 2, 4, 4), np.uint8)
    edges = list(edges_of(shape, offsets))
    # no two edges equally strong: their order would be the library's own
    for (c, here, _), strength in zip(edges, random.permutation(128), strict=False):
        affs[c][here] = 128 + strength if random.random() < 0.6 else 127 - strength
    assert len(edges) <= 128
    found = mutex_pieces(affs, offsets, (0.5, 0.5), 0)
    expected = reference(affs, offsets)
    assert {len(piece) for piece in expected} != {1}
    for piece in expected:
        ids = {int(found[voxel]) for voxel in piece}
        assert len(ids) == 1
        assert (found == ids.pop()).sum() == len(piece) or len(piece) == 1


def test_far_edges_part_what_near_ones_join():
    affs = np.full((4, 1, 1, 12), 255, np.uint8)
    affs[2, 0, 0, 6] = 140
    affs[3] = 0
    affs[3, 0, 0, [3, 4, 5, 9, 10, 11]] = 255
    pieces = mutex_pieces(affs, [*NEAR, (0, 0, -3)], (0.5, 0.5), 0).ravel()
    assert np.unique(pieces[:6]).size == np.unique(pieces[6:]).size == 1
    assert pieces[0] != pieces[-1]


def test_the_bias_tells_what_attracts():
    affs = np.full((3, 1, 1, 8), 150, np.uint8)
    assert (mutex_pieces(affs, NEAR, (0.5, 0.5), 0) == 1).all()
    assert not mutex_pieces(affs, NEAR, (0.7, 0.5), 0).any()


def test_debris_is_no_piece_and_numbers_have_no_gaps():
    affs = np.full((3, 1, 1, 20), 255, np.uint8)
    affs[2, 0, 0, [3, 8]] = 0
    assert mutex_pieces(affs, NEAR, (0.5, 0.5), 4).ravel().tolist() == [0] * 3 + [1] * 5 + [2] * 12
