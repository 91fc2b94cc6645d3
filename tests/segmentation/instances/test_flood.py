"""The watershed of blocks: closed forms, its definition solved another way, scikit-image, and blocks as a whole."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from skimage.segmentation import watershed

from emsuite.segmentation.instances.flood import NEVER, SIDES, face_of, flood


def as_row(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array(values, dtype).reshape(1, 1, -1)


def random_problem(seed: int, shape: tuple[int, ...] = (24, 25, 26)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth heights of few levels, so that most of them tie; seeds at the lowest, and walls at the highest."""
    smooth = gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    height = np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, 20)[1:-1])).astype(np.uint8)
    return height, height < 16, label(height < 2)[0].astype(np.uint64)


def test_two_floods_meet_on_the_ridge_or_in_the_middle_of_a_plateau() -> None:
    height, seeds = as_row(5, 1, 0, 1, 3, 4, 3, 0, 0, 2), as_row(0, 0, 7, 0, 0, 0, 0, 9, 0, 0)
    labels, _ = flood(height, height < 9, seeds)
    assert labels.ravel().tolist() == [7, 7, 7, 7, 7, 9, 9, 9, 9, 9]
    flat, _ = flood(as_row(*[3] * 6), np.ones((1, 1, 6), bool), as_row(4, 0, 0, 0, 0, 8))
    assert flat.ravel().tolist() == [4, 4, 4, 8, 8, 8]


def test_voxels_between_equal_floods_get_the_smaller_label() -> None:
    labels, _ = flood(as_row(*[3] * 5), np.ones((1, 1, 5), bool), as_row(8, 0, 0, 0, 4))
    assert labels.ravel().tolist() == [8, 8, 4, 4, 4]


def test_walls_stop_a_flood_and_seeds_in_them_do_not_count() -> None:
    inside = as_row(1, 1, 0, 1, 0, dtype=bool)
    labels, keys = flood(as_row(0, 0, 0, 0, 0), inside, as_row(2, 0, 0, 0, 3))
    assert labels.ravel().tolist() == [2, 2, 0, 0, 0]
    assert (keys == NEVER).ravel().tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("seed", range(4))
def test_without_ties_the_result_is_that_of_scikit_image(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height = generator.permutation(256)[:252].astype(np.uint8).reshape(6, 6, 7)
    seeds = np.zeros(height.shape, np.uint64)
    seeds.flat[generator.choice(252, 7, replace=False)] = np.arange(1, 8)
    inside = height < 240
    labels, _ = flood(height, inside, seeds)
    assert np.array_equal(labels, watershed(height, seeds.astype(int), mask=inside))


def slow_flood(height: np.ndarray, inside: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The definition, solved by repetition: keys as tuples until none gets smaller, then labels along them."""
    never = (999,)
    places = [p for p in itertools.product(*map(range, height.shape)) if inside[p]]
    keys = {p: (int(height[p]), 0, 0, 0, 0) if seeds[p] else never for p in places}
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, s)) == 1]
    around = {p: [q for s in steps if (q := tuple(a + b for a, b in zip(p, s, strict=True))) in keys] for p in places}

    def grown(key: tuple, level: int) -> tuple:
        if level > key[0]:
            return (level, 0, key[0], key[1], 0)
        return (level, key[1] + 1, *key[2:4], 0) if level == key[0] else (*key[:4], key[4] + 1)

    changed = True
    while changed:
        changed = False
        for p in places:
            best = min((keys[q] for q in around[p]), default=never)
            if not seeds[p] and best != never and grown(best, int(height[p])) < keys[p]:
                keys[p], changed = grown(best, int(height[p])), True
    labels = np.zeros(height.shape, np.uint64)
    for p in sorted((p for p in places if keys[p] != never), key=lambda p: keys[p]):
        if seeds[p]:
            labels[p] = seeds[p]
        else:
            best = min(keys[q] for q in around[p])
            labels[p] = min(labels[q] for q in around[p] if keys[q] == best)
    return labels


@pytest.mark.parametrize("seed", range(3))
def test_the_labels_are_those_of_the_definition(seed: int) -> None:
    problem = random_problem(seed, (9, 10, 11))
    labels, _ = flood(*problem)
    assert np.array_equal(labels, slow_flood(*problem))


@pytest.mark.parametrize("seed", range(3))
def test_among_ties_few_labels_differ_from_those_of_scikit_image(seed: int) -> None:
    height, inside, seeds = random_problem(seed)
    labels, _ = flood(height, inside, seeds)
    theirs = watershed(height, seeds.astype(int), mask=inside)
    assert np.array_equal(labels == 0, theirs == 0)
    assert (labels != theirs).mean() < 0.03


@pytest.mark.parametrize("cuts", [(12, 12, 12), (5, 25, 9), (7, 6, 5)])
def test_floods_of_blocks_in_rounds_equal_the_flood_of_the_whole(cuts: tuple[int, ...]) -> None:
    height, inside, seeds = random_problem(0)
    whole, whole_keys = flood(height, inside, seeds)
    counts = [range(-(-n // c)) for n, c in zip(height.shape, cuts, strict=True)]
    blocks = list(itertools.product(*counts))
    part = {b: tuple(slice(i * c, (i + 1) * c) for i, c in zip(b, cuts, strict=True)) for b in blocks}
    faces: dict = {}
    for _ in range(50):
        found = {}
        for b in blocks:
            around = {}
            for axis, end in SIDES:
                beyond = tuple(i + (2 * end - 1) * (a == axis) for a, i in enumerate(b))
                if beyond in faces:
                    around[axis, end] = faces[beyond][axis, 1 - end]
            found[b] = flood(height[part[b]], inside[part[b]], seeds[part[b]], around)
        new = {b: {side: face_of(keys, labels, side) for side in SIDES} for b, (labels, keys) in found.items()}
        same = faces and all(
            np.array_equal(x, y) for b in blocks for s in SIDES for x, y in zip(new[b][s], faces[b][s], strict=True)
        )
        faces = new
        if same:
            break
    assert same, "the rounds do not end"
    for b, (labels, keys) in found.items():
        assert np.array_equal(labels, whole[part[b]])
        assert np.array_equal(keys, whole_keys[part[b]])
