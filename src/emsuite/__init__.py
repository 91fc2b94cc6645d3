"""emsuite: reproducible electron-microscopy experiments, from raw volumes to scored neuron segmentations."""

__version__ = "0.1.0"
