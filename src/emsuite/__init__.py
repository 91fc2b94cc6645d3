"""emsuite: reproducible electron-microscopy experiments, from raw volumes to scored neuron segmentations."""

import os

# Read by GNU OpenMP when torch is loaded, hence here: a thread that waits for another spins for some 5 ms by default,
# on the core that something else could have: an iteration of `small` then takes a tenth longer.
os.environ.setdefault("GOMP_SPINCOUNT", "50000")

__version__ = "0.1.0"
