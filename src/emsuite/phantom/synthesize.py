"""A phantom of neuropil under the electron microscope, with its ground truth, computed from a seed.

    neurites ------> labels ------> grey values of the tissue ---> raw
    neurites.py      labels.py      organelles.py, texture.py      microscope.py
        `-----------------`-------> skeletons
                                    skeletons.py

Thick sections, such as 40 x 4 x 4 nm, are averages of thinner ones. So oblique membranes are as faint as in a
transmission microscope.
"""

from collections.abc import Callable
from dataclasses import dataclass

import edt
import numpy as np

from emsuite.io.skeletons import Skeletons
from emsuite.io.values import SPECIAL_IDS
from emsuite.phantom.forest import Forest
from emsuite.phantom.labels import fill
from emsuite.phantom.microscope import choose_sections, draw_shifts, expose, project, shift_sections, stain
from emsuite.phantom.neurites import grow
from emsuite.phantom.organelles import microtubules, mitochondria, reticulum, vesicles
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.skeletons import trace
from emsuite.phantom.texture import Tissue, render

STEPS = 5  # number of times that `synthesize` calls `advance`


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume and its ground truth."""

    raw: np.ndarray
    """(Z, Y, X) uint8."""
    labels: np.ndarray
    """(Z, Y, X) uint64, from 1, no background; smaller than raw by the padding on each side. Neurons that are no ground
    truth have one of `SPECIAL_IDS`."""
    skeletons: Skeletons
    """In nm from the corner of raw. They run through the padding, and not through neurons with a special id."""

    @property
    def neurons(self) -> int:
        """The number of neurons that have labels."""
        return len(np.setdiff1d(self.labels, np.array(SPECIAL_IDS, np.uint64)))


def synthesize(settings: PhantomSettings, advance: Callable[[], object] = lambda: None) -> Phantom:
    """Make a phantom. The same settings give the same bytes.

    Labels and skeletons follow the shift of a section, as annotations of misaligned data do. A missing section has no
    image but keeps its labels.

    Args:
        settings: all that decides the phantom.
        advance: called after each of the `STEPS`, for a progress bar.
    """
    seeds = np.random.SeedSequence(settings.seed).spawn(8)
    growing, filling, placing, drawing, staining, cutting, exposing, annotating = map(np.random.default_rng, seeds)
    forest = grow(np.array(settings.fine_shape) * settings.fine_voxel_size, settings.thickest, growing)
    advance()
    fine = fill(forest, settings.fine_shape, settings.fine_voxel_size, filling)
    advance()
    grey = render(_tissue(forest, fine, settings, placing), drawing)
    advance()
    grey = stain(grey, settings.fine_voxel_size, settings.unevenness, staining)
    grey = project(grey, settings.blur / settings.fine_voxel_size, settings.subvoxels)
    sections, margin = settings.shape[0], settings.margin[1:]
    shifts = draw_shifts(settings.shifted_sections, margin, sections, cutting)
    missing = choose_sections(settings.missing_sections, sections, cutting)
    raw = expose(shift_sections(grey, shifts, margin), settings.noise, settings.section_jitter, exposing)
    raw[missing] = 0
    advance()
    middle = tuple(slice(k // 2, None, k) for k in settings.subvoxels)
    labels, numbers = _numbered(shift_sections(fine[middle], shifts, margin), len(forest))
    inner = tuple(slice(border, n - border) for n, border in zip(settings.shape, settings.padding, strict=True))
    chosen = _choose_neurons(settings.unlabelled, labels[inner], annotating)
    offsets_nm = np.pad(shifts - margin, ((0, 0), (1, 0))) * settings.voxel_size
    traced = np.where(np.isin(numbers, chosen), 0, numbers)
    skeletons = trace(forest, traced, labels, np.array(settings.voxel_size), offsets_nm)
    advance()
    return Phantom(raw, _with_special_ids(labels[inner], chosen), skeletons)


def _tissue(forest: Forest, labels: np.ndarray, settings: PhantomSettings, rng: np.random.Generator) -> Tissue:
    spacing = settings.fine_voxel_size
    # edt measures to the first voxel of the next neurite, the surface is half a voxel nearer
    depth = edt.edt(labels, anisotropy=tuple(spacing), parallel=1) - np.float32(spacing.min() / 2)
    # a generator for each kind, so that a change of one does not change the others
    first, second, third, fourth = rng.spawn(4)
    cubic_microns = float(np.prod(np.array(labels.shape) * spacing)) / 1e9
    return Tissue(
        labels,
        depth,
        spacing,
        mitochondria(forest, settings.mitochondria, first),
        vesicles(forest, round(settings.vesicles * cubic_microns), second),
        reticulum(forest, third),
        microtubules(forest, fourth),
    )


def _numbered(neurons: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Renumber `neurons` from 1 without gaps. Return the labels, uint64, and the label of each neuron from 0 to `most`.

    Neurons that are not in the volume have label 0.
    """
    present = np.flatnonzero(np.bincount(neurons.ravel()))
    numbers = np.zeros(most + 1, dtype=np.uint64)
    numbers[present] = np.arange(1, len(present) + 1)
    return numbers[neurons], numbers


def _choose_neurons(fraction: float, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return random labels, whole neurons, that together take at most a fraction of the voxels."""
    counts = np.bincount(labels.ravel())
    chosen, left = list[int](), fraction * labels.size
    for label in rng.permutation(np.flatnonzero(counts)):
        if counts[label] <= left:
            chosen.append(int(label))
            left -= counts[label]
    return np.array(chosen, np.int64)


def _with_special_ids(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Give each of the chosen labels the next of `SPECIAL_IDS` in its place."""
    ids = np.arange(int(labels.max()) + 1, dtype=np.uint64)
    ids[chosen] = np.resize(np.array(SPECIAL_IDS, np.uint64), len(chosen))
    return ids[labels]
