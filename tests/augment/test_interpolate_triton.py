"""The kernels of a GPU, run by triton's interpreter on the CPU, against the compiled loops."""

import os
from importlib.util import find_spec

import pytest

from conftest import need

need(find_spec("triton") is not None, "triton")
INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"

if not INTERPRETS:  # the variable must be set before triton is imported: another process runs this file

    def test_kernels_in_the_interpreter():
        import subprocess
        import sys

        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(
            command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

else:
    import numpy as np
    import torch

    from emsuite.augment.elastic import Elastic
    from emsuite.augment.intensity import Intensity
    from emsuite.augment.mirror import MirrorTranspose
    from emsuite.augment.read_table import Placed
    from emsuite.augment.registry import draw_warp
    from emsuite.augment.resample import read_batch, read_linear, read_nearest
    from emsuite.common.geometry import Coordinate, Roi
    from emsuite.data.sampler import Sampler
    from emsuite.data.training_volume import Ones, TrainingVolume

    CPU = torch.device("cpu")
    TURN = MirrorTranspose(name="mirror_transpose", transpose=(0, 1, 2))
    ROTATION = Elastic(name="elastic", control_point_spacing=(9, 9, 9), jitter_sigma=(0, 0, 0), rotation=(0, 1.5))
    JITTER = Elastic(name="elastic", control_point_spacing=(3, 7, 4), jitter_sigma=(0, 2, 2), rotation=(0, 1.5),
                     slip=0.2, shift=0.2, max_misalign=3, subsample=3)  # fmt: skip
    FULL = Elastic(name="elastic", control_point_spacing=(3, 8, 9), jitter_sigma=(1, 2, 1))
    STEPS = {"none": (), "turned": (TURN,), "rotated": (ROTATION, TURN), "jittered": (JITTER, TURN),
             "composed": (ROTATION, TURN, FULL)}  # fmt: skip
    SHAPE = (20, 23, 25)
    INPUT, LABELS = Roi((-2, -2, -20), (2, 17, 66)), Roi((-1, -4, 0), (3, 17, 5))
    ORIGINS = {"inside": (6, 7, 4), "partly outside": (-3, 12, 14), "outside": (60, 70, -90)}

    def volume(dtype: torch.dtype, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raw = torch.from_numpy(random.integers(0, 256, SHAPE, dtype=np.uint8))
        labels = torch.from_numpy(random.integers(0, 2**31 - 1, SHAPE, dtype=np.int32))
        mask = torch.from_numpy(random.integers(0, 2, SHAPE, dtype=np.uint8))
        return raw if dtype == torch.uint8 else raw.float() / 255, labels, mask

    def strided(array: torch.Tensor) -> torch.Tensor:
        """The same voxels, stored x first, as a part of a larger array."""
        around = torch.zeros([n + 5 for n in array.shape[::-1]], dtype=array.dtype).permute(2, 1, 0)
        around[3:-2, 1:-4, 2:-3] = array
        return around[3:-2, 1:-4, 2:-3]

    def half_way(warp, origin) -> torch.Tensor:
        """Where a coordinate lies so close to the middle between two voxels that rounding decides."""
        if warp.resampling is None:
            return torch.zeros(tuple(LABELS.shape), dtype=torch.bool)
        dense = warp.sampling_grid(LABELS, origin, CPU).dense()
        return (((dense + 0.5) - (dense + 0.5).round()).abs() < 1e-4).any(0)

    def check(sample: Placed, arrays: dict[str, torch.Tensor], number: int) -> None:
        raw = read_linear(sample.raw, sample.warp, INPUT, sample.origin_raw_vx)
        raw = raw / 255 if sample.raw.dtype == torch.uint8 else raw
        torch.testing.assert_close(arrays["raw"][number], raw, atol=1e-5, rtol=0)
        if sample.labels is None:
            return
        mask = torch.ones((), dtype=torch.uint8).expand(SHAPE) if sample.mask is None else sample.mask
        labels, mask = read_nearest((sample.labels, mask), sample.warp, LABELS, sample.origin_label_vx)
        sure = ~half_way(sample.warp, sample.origin_label_vx)
        assert sure.float().mean() > 0.98
        assert torch.equal(arrays["labels"][number][sure], labels[sure])
        assert torch.equal(arrays["mask"][number][sure], mask[sure])

    CASES = [(name, "inside") for name in STEPS]
    CASES += [(name, where) for name in ("turned", "composed") for where in ("partly outside", "outside")]

    @pytest.mark.parametrize(("name", "where"), CASES)
    def test_a_batch_is_what_the_loops_read(name: str, where: str) -> None:
        samples = []
        for number, dtype in enumerate((torch.uint8, torch.float32)):
            random = np.random.default_rng(number + 3)
            raw, labels, mask = (strided(array) if number == 0 else array for array in volume(dtype, random))
            warp = draw_warp(STEPS[name], INPUT.union(LABELS), np.array([1.0, 6.5, 7.0]), random)
            origin = ORIGINS[where]
            at_label = tuple(n - 1 for n in origin)
            samples.append(Placed(raw, labels, None if number == 1 else mask, warp, origin, at_label))
        arrays = read_batch(samples, INPUT, LABELS, CPU)
        assert {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()} == {
            "raw": ((2, *INPUT.shape), torch.float32), "labels": ((2, *LABELS.shape), torch.int32),
            "mask": ((2, *LABELS.shape), torch.uint8)}  # fmt: skip
        for number, sample in enumerate(samples):
            check(sample, arrays, number)
        if where == "inside":
            assert all((array != 0).float().mean() > 0.2 for array in arrays.values())
        if where == "outside":
            assert not any(array.any() for array in arrays.values())

    def test_raw_alone() -> None:
        random = np.random.default_rng(5)
        raw, _, _ = volume(torch.float32, random)
        warp = draw_warp(STEPS["jittered"], INPUT, np.array([4.0, 6.0, 13.0]), random)
        sample = Placed(raw, None, None, warp, (3, 4, 5), (0, 0, 0))
        arrays = read_batch([sample], INPUT, LABELS, CPU)
        assert list(arrays) == ["raw"]
        check(sample, arrays, 0)

    def test_the_sampler_draws_the_same_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
        random = np.random.default_rng(8)
        zero = Coordinate(0, 0, 0)
        volumes = []
        for dtype in (torch.uint8, torch.float32):
            raw, labels, mask = volume(dtype, random)
            kept = Ones(SHAPE) if dtype == torch.uint8 else torch.ones_like(mask)
            volumes.append(TrainingVolume(raw, labels, kept, Coordinate(8, 8, 8), zero, Coordinate(16, 8, 0), "v"))
        steps = (*STEPS["jittered"], Intensity(name="intensity", per_section=True))
        sampler = Sampler(volumes, (5, 8, 9), (3, 4, 5), ((1, 0, 0), (0, 0, 1)), steps)
        one_by_one = sampler.batch(3, 3, first=2)
        monkeypatch.setattr("emsuite.data.sampler.can_read_batches", lambda device: True)
        at_once = Sampler(volumes, (5, 8, 9), (3, 4, 5), ((1, 0, 0), (0, 0, 1)), steps).batch(3, 3, first=2)
        assert (at_once.volumes, at_once.origins) == (one_by_one.volumes, one_by_one.origins)
        assert len(set(at_once.volumes)) == 2
        assert at_once["raw"].shape == (3, 1, 5, 8, 9)
        torch.testing.assert_close(at_once["raw"], one_by_one["raw"], atol=1e-5, rtol=0)
        for name in ("labels", "mask"):
            assert (at_once[name] == one_by_one[name]).float().mean() > 0.98
