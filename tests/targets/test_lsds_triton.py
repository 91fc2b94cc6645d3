"""The kernels of `lsds_triton`, run by Triton's interpreter on the processor, against the path of the CPU."""

import os
from importlib.util import find_spec

import pytest

from conftest import need

need(find_spec("triton") is not None, "triton")

if os.environ.get("TRITON_INTERPRET") != "1":  # read when triton is imported: another process runs this file

    def test_the_kernels_in_the_interpreter():
        import subprocess
        import sys

        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
        done = subprocess.run(
            command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

else:
    import numpy as np
    import torch

    from emsuite.targets import lsds_triton
    from emsuite.targets.lsds import _compute_all, _grid, _output_voxels, local_shape_descriptors

    TOLERANCE = 2.0**-23
    """Both paths sum in float64. Sums over x cancel by the square of the window over sigma, some 100 roundings of
    2**-53, so that means and variances differ by 1e-13 at most. Pearson's r divides a covariance by variances of at
    least 1e-3 nm^2 / sigma^2, 3e-8 here and at the same place wherever a variance is that small: below 1e-7. In the end
    numbers up to 1 are rounded to the same float32 or to the next one, 2**-24 away."""
    WIDE = lsds_triton._Blocks(split=16, entries=256, unroll=1)  # few turns, which is faster here

    class OnGpu(torch.Tensor):
        """A tensor in the host's memory that says that it is on a GPU."""

        is_cuda = True

    def lumps(rng, shape, count):
        """Labels in lumps of a few voxels, with single strays and background."""
        coarse = rng.integers(0, count, [n // 3 + 1 for n in shape])
        fine = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in shape)]
        return np.where(rng.random(shape) < 0.1, np.roll(fine, (1, 2, 3), (0, 1, 2)), fine)

    def batch(shape, count, seed=0):
        rng = np.random.default_rng(seed)
        return torch.from_numpy(np.stack([lumps(rng, shape, count) for _ in range(2)]))

    def check(labels, sigma, voxel_size, downsample=1, within=None, blocks=WIDE):
        grid, output = _grid(3, sigma, voxel_size, downsample), _output_voxels(within, labels.shape[1:])
        found = lsds_triton.triton_descriptors(grid, labels, output, blocks)
        wanted = torch.stack([local_shape_descriptors(one, sigma, voxel_size, downsample, within) for one in labels])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
        return found

    @pytest.mark.parametrize("downsample", [1, 2, 3, 4])
    def test_equals_the_cpu_for_any_step_with_a_window_of_its_own_along_each_axis(downsample):
        found = check(batch((9, 11, 10), 9, downsample), (30, 20, 16), (20, 9, 9), downsample)
        assert found.std() > 0.1

    @pytest.mark.parametrize(
        "blocks",
        [
            lsds_triton._Blocks(),
            lsds_triton._Blocks(deep=8, split=4, entries=128),
            lsds_triton._Blocks(deep=1, split=8, entries=64, unroll=8),
        ],
    )
    def test_equals_the_cpu_however_the_work_is_cut(blocks):
        check(batch((9, 7, 10), 6), (30, 20, 16), (20, 9, 9), 2, blocks=blocks)

    @pytest.mark.parametrize(
        "within", [(slice(4, 11), slice(5, 9), slice(1, 14)), (slice(9, 11), slice(3), slice(8, None))]
    )
    @pytest.mark.parametrize("downsample", [2, 3])
    def test_within_a_larger_array(within, downsample):
        found = check(batch((13, 14, 15), 30), (30, 9, 13), (20, 9, 9), downsample, within)
        assert found.shape[2:] == torch.empty(13, 14, 15)[within].shape

    @pytest.mark.parametrize("downsample", [1, 2, 3])
    def test_labels_without_a_sample_within_reach(downsample):
        labels = torch.randint(0, 300, (1, 9, 8, 7), generator=torch.Generator().manual_seed(0))
        found = check(labels, (30, 9, 13), (20, 9, 9), downsample, (slice(1, 9), slice(2, 8), slice(7)))
        assert (found[:, 9] == 1).any() == (downsample > 1)

    def test_windows_that_are_larger_than_the_array():
        check(batch((7, 6, 5), 4), 1e5, (8, 8, 8), 2)

    def test_labels_as_thin_as_one_sample_have_the_least_variance_and_no_correlation():
        z, y, x = np.indices((10, 12, 14))
        plates, rods = z // 2 + 1, (z // 2 * 6 + y // 2) + 1
        slanted = (z + y + x) // 2 + 1
        found = check(torch.from_numpy(np.stack([plates, rods, slanted])), (50, 30, 40), (20, 9, 9), 2)
        assert torch.equal(found[0, 6:8], torch.full_like(found[0, 6:8], 0.5))
        assert (found[2, 8] < 0.4).any()

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
    def test_ids_are_names_of_any_width_and_sign(dtype):
        span = torch.iinfo(dtype)
        names = torch.tensor([0, span.max, span.min, -1, 1, span.max - 1], dtype=dtype)
        check(names[batch((5, 8, 7), 6)], 30, (8, 8, 8), 2)

    def test_background_alone_and_no_voxels():
        assert not check(torch.zeros(1, 5, 6, 7, dtype=torch.int32), 30, (8, 8, 8), 2).any()
        assert check(batch((5, 6, 7), 4), 30, (8, 8, 8), 2, (slice(2, 2), slice(None), slice(None))).shape[2] == 0

    @pytest.mark.parametrize(("downsample", "by_triton"), [(2, 1), (5, 0)])
    def test_arrays_on_a_gpu_are_computed_here(monkeypatch, downsample, by_triton):
        compute, calls = lsds_triton.triton_descriptors, []

        def noted(*arguments):
            calls.append(arguments)
            return compute(*arguments)

        monkeypatch.setattr(lsds_triton, "triton_descriptors", noted)
        labels = batch((5, 6, 7), 4)
        grid = _grid(3, 30, (8, 8, 8), downsample)
        found = _compute_all(grid, labels.as_subclass(OnGpu), _output_voxels(None, (5, 6, 7)))
        wanted = _compute_all(grid, labels, _output_voxels(None, (5, 6, 7)))
        torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted, rtol=0, atol=TOLERANCE)
        assert len(calls) == by_triton
