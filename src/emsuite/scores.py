"""Scores of a segmentation against ground truth."""

from emsuite.evaluation.scores import adapted_rand, rand_index, variation_of_information

__all__ = ["adapted_rand", "rand_index", "variation_of_information"]
