"""emsuite: reproducible electron-microscopy experiments, from raw volumes to scored neuron segmentations."""

import os

# Read by GNU OpenMP when torch is loaded, hence here: a thread that waits for another spins for some 5 ms by default,
# on the core that something else could have: an iteration of `small` then takes a tenth longer.
os.environ.setdefault("GOMP_SPINCOUNT", "50000")
# Read by NumPy's and SciPy's library of linear algebra when it is loaded. What the suite has to multiply is small, and
# several batches and blocks are made at once: threads of each product would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
