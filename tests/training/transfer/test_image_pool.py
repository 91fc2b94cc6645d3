"""The pool beside a plain one, its rates, and its state."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from emsuite.training.transfer.image_pool import ImagePool
from training.transfer.reference_step import Pool


def images(iteration: int, count: int = 1) -> Tensor:
    """Images whose value says when they were made."""
    return torch.stack([torch.full((1, 1, 2, 2), 100.0 * iteration + number) for number in range(count)])


def draws_of(seed: int, stream: int, iteration: int, size: int) -> Callable[[], tuple[bool, int]]:
    random = np.random.default_rng([seed, stream, iteration])

    def draw() -> tuple[bool, int]:
        swaps = random.random() > 0.5
        return swaps, int(random.integers(size)) if swaps else -1

    return draw


@pytest.mark.parametrize("count", [1, 3])
def test_it_does_what_a_plain_pool_does(count: int) -> None:
    pool, plain = ImagePool(50, seed=7, stream=2), Pool(50)
    for iteration in range(1, 200):
        new = images(iteration, count)
        expected = plain.query(new, draws_of(7, 2, iteration, 50))
        assert torch.equal(pool.query(new, iteration), expected)
    assert all(torch.equal(a, b) for a, b in zip(pool.state_dict()["images"], plain.images, strict=True))


def test_it_fills_then_swaps_half_the_time() -> None:
    pool = ImagePool(50, seed=0)
    for iteration in range(50):
        assert torch.equal(pool.query(images(iteration), iteration), images(iteration))
        assert len(pool) == iteration + 1
    shown = [float(pool.query(images(i), i)[0, 0, 0, 0, 0]) for i in range(50, 2050)]
    old = [value for i, value in enumerate(shown, start=50) if value != 100.0 * i]
    assert 0.45 < len(old) / 2000 < 0.55
    assert len(pool) == 50
    assert len({*old}) == len(old)  # an image that came out is gone


def test_without_a_pool_images_are_returned_as_they_are() -> None:
    pool = ImagePool(0, seed=0)
    assert torch.equal(pool.query(images(3), 3), images(3))
    assert pool.state_dict() == {}


def test_images_leave_without_their_gradient_and_stay_as_they_were() -> None:
    pool, x = ImagePool(2, seed=0), torch.ones(1, 1, 1, 2, 2, requires_grad=True)
    assert not pool.query(x * 2, 1).requires_grad
    source = images(1)
    pool.query(source, 2)
    source += 1
    assert torch.equal(pool.state_dict()["images"][1], images(1)[0])


def test_a_run_that_goes_on_shows_the_same_images() -> None:
    whole, first = ImagePool(5, seed=3), ImagePool(5, seed=3)
    for iteration in range(20):
        whole.query(images(iteration), iteration)
        first.query(images(iteration), iteration)
    second = ImagePool(5, seed=3)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for iteration in range(20, 60):
        assert torch.equal(whole.query(images(iteration), iteration), second.query(images(iteration), iteration))


def test_seeds_and_streams_draw_on_their_own() -> None:
    def shown(seed: int, stream: int) -> list[float]:
        pool = ImagePool(3, seed, stream)
        return [float(pool.query(images(i), i).mean()) for i in range(60)]

    assert shown(0, 0) == shown(0, 0)
    assert len({tuple(shown(seed, stream)) for seed in (0, 1) for stream in (0, 1)}) == 4


def test_a_state_of_a_larger_pool_or_of_none() -> None:
    large, small = ImagePool(8, seed=0), ImagePool(3, seed=0)
    for iteration in range(8):
        large.query(images(iteration), iteration)
    small.load_state_dict(large.state_dict())
    assert len(small) == 3
    small.load_state_dict({})
    assert len(small) == 0
    large.load_state_dict(large.state_dict(), torch.device("cpu"))
    assert len(large) == 8


def test_images_of_another_shape_are_refused() -> None:
    pool = ImagePool(3, seed=0)
    pool.query(images(1), 1)
    with pytest.raises(BadInput, match=r"image pool: holds images of \(1, 1, 2, 2\), expected \(1, 1, 4, 4\)"):
        pool.query(torch.zeros(1, 1, 1, 4, 4), 2)
