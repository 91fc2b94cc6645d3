"""Time training batches of the zebrafinch mtlsd network, as its authors' pipeline makes them.

python batch.py VOLUME.zarr BATCHES WORKERS; one worker is this process, more are PreCache's.
Source: funkelab/lsd_nm_experiments, zebrafinch mtlsd, train.py.
"""

import math
import sys
import warnings
from pathlib import Path

import gunpowder as gp
from lsd.train.gp import AddLocalShapeDescriptor

sys.path.append(str(Path(__file__).parents[1]))
from cost import print_cost

NEIGHBORHOOD = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
VOXEL = gp.Coordinate((20, 9, 9))
INPUT, OUTPUT = gp.Coordinate((84, 268, 268)) * VOXEL, gp.Coordinate((48, 56, 56)) * VOXEL
PADDING = gp.Coordinate((840, 720, 720))
NAMES = ("RAW", "LABELS", "LABELS_MASK", "LSDS", "LSDS_MASK", "AFFS", "AFFS_MASK", "AFFS_SCALE")


def make_pipeline(path, keys, workers):
    raw, labels, mask, lsds, lsds_mask, affs, affs_mask, scale = keys
    read = {raw: "volumes/raw", labels: "volumes/labels/neuron_ids", mask: "volumes/labels/labels_mask"}
    specs = {key: gp.ArraySpec(interpolatable=key == raw) for key in read}
    pipeline = (
        gp.ZarrSource(path, read, specs)
        + gp.Normalize(raw)
        + gp.Pad(raw, None)
        + gp.Pad(labels, PADDING)
        + gp.Pad(mask, PADDING)
        + gp.RandomLocation(min_masked=0.5, mask=mask)
        + gp.ElasticAugment(
            [4, 4, 10], [0, 2, 2], [0, math.pi / 2], prob_slip=0.05, prob_shift=0.05, max_misalign=10, subsample=8
        )
        + gp.SimpleAugment(transpose_only=[1, 2])
        + gp.IntensityAugment(raw, 0.9, 1.1, -0.1, 0.1, z_section_wise=True)
        + gp.GrowBoundary(labels, mask, steps=1, only_xy=True)
        + AddLocalShapeDescriptor(labels, lsds, lsds_mask=lsds_mask, labels_mask=mask, sigma=120, downsample=2)
        + gp.AddAffinities(NEIGHBORHOOD, labels, affs, labels_mask=mask, affinities_mask=affs_mask)
        + gp.BalanceLabels(affs, scale, affs_mask)
        + gp.IntensityScaleShift(raw, 2, -1)
    )
    return pipeline + gp.PreCache(cache_size=2 * workers, num_workers=workers) if workers > 1 else pipeline


def main():
    path, batches, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    keys = [gp.ArrayKey(name) for name in NAMES]
    request = gp.BatchRequest()
    for key in keys:
        request.add(key, INPUT if key.identifier == "RAW" else OUTPUT)
    with gp.build(make_pipeline(path, keys, workers)) as pipeline:
        for _ in range(2 * workers):  # those made ahead while nobody waited
            pipeline.request_batch(request)
        if workers == 1:
            print_cost(lambda: pipeline.request_batch(request), repeats=batches)
        else:
            print_cost(lambda: [pipeline.request_batch(request) for _ in range(batches)], each=batches)


if __name__ == "__main__":
    main()
