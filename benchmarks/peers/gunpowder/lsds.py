"""Time lsds on labels in a .npy file: python lsds.py LABELS.npy SIGMA VOXEL DOWNSAMPLE."""

import sys
from pathlib import Path

import numpy as np
from lsd.train.local_shape_descriptor import get_local_shape_descriptors

sys.path.append(str(Path(__file__).parents[1]))
from cost import print_cost

labels = np.load(sys.argv[1])
sigma, voxel, downsample = (int(word) for word in sys.argv[2:])
print_cost(
    lambda: get_local_shape_descriptors(labels, (sigma,) * 3, voxel_size=(voxel,) * 3, downsample=downsample),
    repeats=3 if labels.size < 10**6 else 1,
)
