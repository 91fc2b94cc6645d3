"""A phantom of neuropil under the electron microscope, with its ground truth, made from a seed.

    neurites ------> labels ------> tissue, in grey values ------> raw
    phantom_neurites phantom_labels phantom_organelles, _texture   phantom_microscope
        `-----------------`-------> skeletons
                                    phantom_skeletons

Thick sections (say 40 x 4 x 4 nm) are made of thinner ones that are averaged, so oblique membranes are as faint as in
a transmission microscope.
"""

from collections.abc import Callable
from dataclasses import dataclass

import edt
import numpy as np

from emsuite.io.skeletons import Skeletons
from emsuite.phantom.forest import Forest
from emsuite.phantom.labels import fill
from emsuite.phantom.microscope import choose_sections, draw_shifts, expose, project, shift_sections, stain
from emsuite.phantom.neurites import grow
from emsuite.phantom.organelles import microtubules, mitochondria, reticulum, vesicles
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.skeletons import trace
from emsuite.phantom.texture import Tissue, render

STEPS = 5  # how often `synthesize` calls `advance`


@dataclass(frozen=True)
class Phantom:
    """`raw` uint8 and `labels` uint64 (from 1, no background), (Z, Y, X) both; `skeletons` in nm from their corner."""

    raw: np.ndarray
    labels: np.ndarray
    skeletons: Skeletons


def synthesize(settings: PhantomSettings, advance: Callable[[], object] = lambda: None) -> Phantom:
    """Make a phantom; the same settings give the same bytes. `advance` is called as each of the `STEPS` is done.

    Labels and skeletons follow a shifted section, as annotations of misaligned data do; a missing section loses its
    image only, the neurons go on through it.
    """
    seeds = np.random.SeedSequence(settings.seed).spawn(7)
    growing, filling, placing, drawing, staining, cutting, exposing = (np.random.default_rng(seed) for seed in seeds)
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
    moved = np.pad(shifts - margin, ((0, 0), (1, 0))) * settings.voxel_size
    skeletons = trace(forest, numbers, labels, np.array(settings.voxel_size), moved)
    advance()
    return Phantom(raw, labels, skeletons)


def _tissue(forest: Forest, labels: np.ndarray, settings: PhantomSettings, rng: np.random.Generator) -> Tissue:
    spacing = settings.fine_voxel_size
    # edt measures to the next neurite's first voxel; the surface lies half a voxel before it
    depth = edt.edt(labels, anisotropy=tuple(spacing), parallel=1) - np.float32(spacing.min() / 2)
    # a generator for each kind, so that more of one changes nothing else
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
    """Labels from 1 without gaps, uint64, and the label of each neuron that the forest may have, 0 if not here."""
    present = np.flatnonzero(np.bincount(neurons.ravel()))
    numbers = np.zeros(most + 1, dtype=np.uint64)
    numbers[present] = np.arange(1, len(present) + 1)
    return numbers[neurons], numbers
