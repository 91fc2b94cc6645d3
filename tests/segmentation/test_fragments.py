import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, maximum_filter
from skimage.segmentation import watershed

from emsuite.segmentation.fragments import HEIGHTS, NEAR, FragmentSettings, find_fragments, split_into_components


def affinities(shape, boundary=()):
    """1 everywhere but in the voxels indexed by `boundary`, where it is 0."""
    affs = np.full((3, *shape), 255, np.uint8)
    for index in boundary:
        affs[(slice(None), *index)] = 0
    return affs


def test_a_wall_parts_two_boxes():
    fragments = find_fragments(affinities((12, 14, 21), [np.s_[:, :, 9:12]]), FragmentSettings(flood="distance"))
    assert fragments.dtype == np.uint32
    assert (fragments[:, :, :10] == 1).all()
    assert (fragments[:, :, 11:] == 2).all()


def test_the_boundary_goes_to_the_side_it_is_more_affine_to():
    affs = affinities((12, 14, 21))
    affs[:, :, :, 8:13] = np.array([100, 90, 80, 70, 60])  # ever less: the valley is at the far end
    fragments = find_fragments(affs, FragmentSettings(flood="distance"))
    assert (fragments[:, :, :12] == 1).all()
    assert (fragments[:, :, 13:] == 2).all()


def test_seeds_closer_than_the_filter_are_one():
    affs = affinities((9, 9, 23), [np.s_[:, :2, 9], np.s_[:, 7:, 9]])  # two rooms, a wide door
    assert find_fragments(affs, FragmentSettings(min_seed_distance=3, flood="distance")).max() > 1
    assert find_fragments(affs, FragmentSettings(min_seed_distance=45, flood="distance")).max() == 1


@pytest.mark.parametrize("flood", HEIGHTS)
def test_a_constriction_or_a_valley_parts_what_is_flooded(flood):
    affs = affinities((9, 9, 19), [np.s_[:, :3, 9], np.s_[:, 6:, 9]])
    affs[:, :, :, 6] = 200  # the valley of affinity is not where the constriction is
    fragments = find_fragments(affs, FragmentSettings(min_seed_distance=3, flood=flood))
    parted = {"distance": 9, "affinity": 6}[flood]
    row = fragments[4, 4]
    assert np.unique(row[:parted]).size == np.unique(row[parted + 1 :]).size == 1
    assert row[0] != row[-1]


def test_sections_are_parted_by_y_and_x_alone():
    affs = affinities((2, 20, 21), [np.s_[0, :, 10], np.s_[1, 10, :]])
    affs[0] = 0
    fragments = find_fragments(affs, FragmentSettings(in_sections=True, flood="distance"))
    assert [np.unique(fragments[0, :, columns]).size for columns in (np.s_[:10], np.s_[11:])] == [1, 1]
    assert [np.unique(fragments[1, rows]).size for rows in (np.s_[:10], np.s_[11:])] == [1, 1]
    assert not np.intersect1d(fragments[0], fragments[1]).size
    assert sorted(np.unique(fragments)) == [1, 2, 3, 4]


def test_sections_are_filtered_by_y_and_x_alone():
    affs = affinities((2, 20, 21))
    affs[0], affs[1, 1], affs[2, 1] = 0, 150, 150
    fragments = find_fragments(affs, FragmentSettings(in_sections=True, filter_fragments=0.9, flood="distance"))
    assert (fragments[0] == 1).all()
    assert not fragments[1].any()


def test_fragments_of_low_affinity_are_dropped():
    affs = affinities((10, 10, 31), [np.s_[:, :, 15]])
    affs[:, :, :, 16:] = 160
    kept = find_fragments(affs, FragmentSettings(filter_fragments=0.62, flood="distance"))
    assert kept.max() == 2
    dropped = find_fragments(affs, FragmentSettings(filter_fragments=0.7, flood="distance"))
    assert (dropped[:, :, :15] == 1).all()
    assert not dropped[:, :, 16:].any()


def test_what_is_masked_is_background_and_parts_are_fragments_of_their_own():
    mask = np.ones((8, 8, 30), np.uint8)
    mask[:, :, 14:16] = 0
    fragments = find_fragments(affinities(mask.shape), FragmentSettings(flood="distance"), mask)
    assert not fragments[mask == 0].any()
    assert (fragments[:, :, :14] == 1).all()
    assert (fragments[:, :, 16:] == 2).all()


def noise(shape, seed=0):
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(3, *shape)), (0, 3, 3, 3))
    return np.clip(smooth * 4000 + 150, 0, 255).astype(np.uint8)


def by_scipy(affs, mask):
    """In the order of the published scripts: mask affinities, threshold, distance, seeds, watershed, mask fragments."""
    masked = affs * mask
    inside = masked.mean(0) > 127.5
    distance = distance_transform_edt(inside)
    seeds, _ = label(maximum_filter(distance, 10) == distance)
    fragments = watershed(distance.max() - distance, seeds) * mask
    fragments[~np.isin(fragments, np.unique(fragments[masked.any(axis=0)]))] = 0  # no affinity at all: no fragment
    return inside, split_into_components(fragments)


def blobs(shape, seed=1):
    mask = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (mask > np.quantile(mask, 0.4)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_shapes_fragments_as_the_published_scripts_do(seed):
    affs, mask = noise((32, 48, 48), seed), blobs((32, 48, 48), seed + 10)
    inside, reference = by_scipy(affs, mask)
    fragments = find_fragments(affs, FragmentSettings(flood="distance"), mask)
    assert not fragments[mask == 0].any()
    # floods break ties between equally far voxels in their own order: seeds and nearly all voxels are the same
    assert np.unique(fragments[inside]).size == pytest.approx(np.unique(reference[inside]).size, rel=0.05)
    assert agreement(fragments[inside], reference[inside]) > 0.95
    alone = find_fragments(affs, FragmentSettings(flood="distance"))
    after = split_into_components(np.where(mask, alone, 0))
    assert agreement(after[inside], reference[inside]) < 0.6  # a mask after the watershed alone


def agreement(one, other):
    """The share of voxels in the pairs of ids that are each other's largest."""
    pairs, counts = np.unique(np.stack([one, other]), axis=1, return_counts=True)
    best = [dict(zip(ids[np.argsort(counts)], np.sort(counts), strict=True)) for ids in pairs]
    return counts[[best[0][a] == n == best[1][b] for a, b, n in zip(*pairs, counts, strict=True)]].sum() / one.size


@pytest.mark.parametrize("options", [{}, {"in_sections": True}, {"seeds": "mutex"}, {"epsilon": 0.1}])
def test_affinities_under_a_mask_do_not_matter(options):
    affs, mask = noise((12, 32, 32)), blobs((12, 32, 32))
    other = np.where(mask, affs, noise((12, 32, 32), 5))
    fragments = find_fragments(affs, FragmentSettings(**options), mask)
    assert fragments.max() > 5
    np.testing.assert_array_equal(find_fragments(other, FragmentSettings(**options), mask), fragments)


def test_epsilon_joins_what_is_surely_one():
    affs = affinities((10, 10, 41), [np.s_[:, :, 29:32]])
    affs[:, :, :, 10] = 120
    assert find_fragments(affs, FragmentSettings(flood="distance")).max() == 3
    joined = find_fragments(affs, FragmentSettings(epsilon=0.6, flood="distance"))
    assert joined.max() == 2
    assert (joined[:, :, :29] == joined[0, 0, 0]).all()


@pytest.mark.parametrize("in_sections", [False, True])
@pytest.mark.parametrize("shape", [(5, 20, 30), (1, 1, 1)])
def test_affinities_that_are_all_0_or_all_1(shape, in_sections):
    options = FragmentSettings(in_sections=in_sections, flood="distance")
    assert not find_fragments(np.zeros((3, *shape), np.uint8), options).any()
    whole = find_fragments(affinities(shape), options)
    expected = np.arange(1, shape[0] + 1)[:, None, None] if in_sections else 1
    assert (whole == expected).all()


def test_as_scipy_and_scikit_image_make_them():
    affs = noise((40, 40, 40))
    inside = affs.mean(0) > 127.5
    distance = distance_transform_edt(inside)
    seeds, number = label(maximum_filter(distance, 10) == distance)
    reference = watershed(distance.max() - distance, seeds)
    fragments = find_fragments(affs, FragmentSettings(flood="distance"))
    assert fragments.max() == number > 10
    pairs = np.unique(np.stack([fragments[inside], reference[inside]]), axis=1, return_counts=True)[1]
    assert np.sort(pairs)[-number:].sum() > 0.93 * inside.sum()


def test_components_are_numbered_in_the_order_of_their_voxels():
    labels = np.array([[[4, 4, 0, 4, 9, 9, 4]]], np.uint32)
    assert split_into_components(labels).ravel().tolist() == [1, 1, 0, 2, 3, 3, 4]


def test_mutex_seeds_heed_far_affinities():
    # near affinities say one object; that its ends are two is told by the far ones alone
    affs = affinities((4, 6, 24))
    affs[2, :, :, 12] = 140
    assert find_fragments(affs, FragmentSettings(seeds="mutex", flood="distance")).max() == 1
    far = np.full((4, 6, 24), 255, np.uint8)
    far[:, :, 12:18] = 0  # from these voxels to those 6 before
    fragments = find_fragments(
        np.concatenate([affs, far[None]]),
        FragmentSettings(seeds="mutex", flood="distance"),
        offsets=[*NEAR, (0, 0, -6)],
    )
    assert (fragments[:, :, :12] == 1).all()
    assert (fragments[:, :, 12:] == 2).all()


def test_small_pieces_are_no_mutex_seeds_and_are_flooded():
    affs = affinities((4, 6, 24), [np.s_[:, :, 12]])
    affs[:, 2, 3, 5] = affs[2, 2, 3, 6] = affs[1, 2, 4, 5] = affs[0, 3, 3, 5] = 0  # one voxel on its own
    kept = find_fragments(affs, FragmentSettings(seeds="mutex", flood="affinity"))
    assert kept.max() == 2
    assert (kept[:, :, :12] == 1).all()


def test_mutex_seeds_of_sections_heed_y_and_x_alone():
    affs = affinities((3, 12, 24), [np.s_[1, :, 12]])
    affs[0] = 255
    fragments = find_fragments(affs, FragmentSettings(seeds="mutex", in_sections=True, flood="distance"))
    assert [np.unique(section[:, :12]).size for section in fragments] == [1, 1, 1]
    assert fragments.max() == 4
    np.testing.assert_array_equal(fragments[1][:, :12] == fragments[1, 0, 0], True)
