"""Time pipelines in memory on one thread: python in_memory.py PREDICTION.zarr/affs waterz|distance THRESHOLD.

waterz: its own watershed (zwatershed) and agglomeration by the median; distance: fragments by a watershed on the
distance to the boundary, as lsd.post makes them (funkelab/lsd), then the same agglomeration.
"""

import sys
from pathlib import Path

import numpy as np
import waterz
import zarr
from scipy.ndimage import distance_transform_edt, label, maximum_filter
from skimage.segmentation import watershed

sys.path.append(str(Path(__file__).parents[1]))
from cost import print_cost

MERGE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256, false>>"


def distance_fragments(affs):
    inside = affs.mean(axis=0) > 0.5
    distance = distance_transform_edt(inside)
    seeds, _ = label(maximum_filter(distance, 10) == distance)
    return watershed(distance.max() - distance, seeds, mask=inside).astype(np.uint64)


def segment(path, kind, threshold):
    affs = zarr.open_array(path, mode="r")[:].astype(np.float32) / 255
    fragments = distance_fragments(affs) if kind == "distance" else None
    (segmentation,) = waterz.agglomerate(
        affs, [threshold], fragments=fragments, scoring_function=MERGE, discretize_queue=256
    )
    return int(np.count_nonzero(np.unique(segmentation)))


def main():
    path, kind, threshold = sys.argv[1], sys.argv[2], float(sys.argv[3])
    counts = {}

    def work():
        counts["segments"] = segment(path, kind, threshold)

    print_cost(work, more=counts)


if __name__ == "__main__":
    main()
