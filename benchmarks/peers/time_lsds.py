"""Time lsds on labels in a .npy file, in its own environment: python time_lsds.py LABELS.npy SIGMA VOXEL DOWNSAMPLE."""

import sys
import time

import numpy as np
from lsd.train.local_shape_descriptor import get_local_shape_descriptors

labels = np.load(sys.argv[1])
sigma, voxel, downsample = (int(word) for word in sys.argv[2:])
start = time.perf_counter()
get_local_shape_descriptors(labels, (sigma,) * 3, voxel_size=(voxel,) * 3, downsample=downsample)
print(time.perf_counter() - start)
