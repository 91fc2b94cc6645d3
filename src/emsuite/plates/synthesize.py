"""Frames to try a pipeline on: a synthetic label-free set, and a real pair of stains.

    label-free    cells under a phase-like contrast (input), their nuclei and membranes in fluorescence (targets);
                  several positions, times and slices; uneven illumination; some frames without light
    stains        scikit-image's `ihc.png`, a section of colon (CC0), separated in haematoxylin (input) and DAB (target)
                  after Ruifrok and Johnston 2001; each tile of the image is a position

Illumination is a polynomial with terms x^m y^n, m and n at most 2, so that a flat field can undo it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.ndimage import gaussian_filter

from emsuite.common.errors import BadInput
from emsuite.common.outputs import is_finished, output
from emsuite.common.settings import Probability, Settings
from emsuite.plates.frames import TABLE, Frame, write_frames

Count = Annotated[int, Field(ge=1, le=1000)]
_GREY = 4000.0
"""Grey values of a bright pixel."""


class LabelFreeSettings(Settings):
    """All that decides the bytes of the label-free set."""

    positions: Count = 12
    times: Count = 2
    slices: Count = 3
    size: Annotated[int, Field(ge=32, le=2048)] = 128
    """Pixels along y and along x."""
    cells: Count = 40
    """Cells per position."""
    shading: Probability = 0.7
    """Light that is lost in the darkest corner, as a fraction."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Standard deviation, as a fraction of a bright pixel."""
    empty: Probability = 0.1
    """Fraction of the positions and times without light: their frames are 0."""
    seed: Annotated[int, Field(ge=0)] = 0


class StainsSettings(Settings):
    """How `ihc.png` is cut."""

    tile: Annotated[int, Field(ge=32, le=512)] = 128
    """Pixels along y and along x; the rest of 512 is left out."""


class Position(NamedTuple):
    """The frames of a position and a time: (C, Z, Y, X) uint16."""

    position: int
    time: int
    frames: np.ndarray


def shading_of(size: int, lost: float, direction: float) -> np.ndarray:
    """Return the light (Y, X) that reaches each pixel, 1 at most: a polynomial of the nine terms.

    Args:
        size: pixels along y and along x.
        lost: the light that is lost in the darkest corner, a fraction.
        direction: of the tilt, in radians.
    """
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    fall = (x**2 + y**2) / 2 + 0.5 * (np.cos(direction) * x + np.sin(direction) * y) * 0.7
    fall = (fall - fall.min()) / (fall.max() - fall.min())
    return np.asarray(1 - lost * fall)


def label_free(settings: LabelFreeSettings) -> Iterator[Position]:
    """Yield the frames of all positions and times; channels are phase, nuclei, membranes. The same settings, the same
    bytes."""
    light = [shading_of(settings.size, settings.shading, angle) for angle in (0.4, 2.2, 4.0)]
    empty = _empty(settings)
    for position in range(settings.positions):
        for time in range(settings.times):
            frames = np.zeros((3, settings.slices, settings.size, settings.size), np.uint16)
            if (position, time) not in empty:
                rng = np.random.default_rng((settings.seed, 1, position, time))
                for z in range(settings.slices):
                    for channel, image in enumerate(_slice(settings, position, time, z)):
                        lit = image * light[channel] + rng.normal(0, settings.noise, image.shape)
                        frames[channel, z] = np.clip(np.rint(lit * _GREY), 1, 65535)
            yield Position(position, time, frames)


def _empty(settings: LabelFreeSettings) -> set[tuple[int, int]]:
    """Choose positions and times without light; the first position keeps all of its light."""
    places = [(p, t) for p in range(1, settings.positions) for t in range(settings.times)]
    count = min(len(places), round(settings.empty * settings.positions * settings.times))
    chosen = np.random.default_rng((settings.seed, 2)).permutation(len(places))[:count]
    return {places[number] for number in chosen}


def _slice(settings: LabelFreeSettings, position: int, time: int, z: int) -> Sequence[np.ndarray]:
    """Return phase, nuclei and membranes (Y, X), about 0 to 1, before light and noise."""
    cell, nucleus, rim = _cells(settings, position, time)
    texture = np.random.default_rng((settings.seed, 3, position)).normal(size=cell.shape)
    texture = gaussian_filter(texture, 1.0, mode="wrap") * cell
    defocus = 0.6 + 0.6 * abs(z - (settings.slices - 1) / 2)
    thickness = gaussian_filter(0.5 * cell + 0.6 * nucleus + 0.4 * texture * (1 - nucleus) + 0.3 * rim, defocus)
    phase = 0.5 + 0.6 * (
        thickness - gaussian_filter(thickness, 6.0, mode="reflect")
    )  # with a halo, as of phase contrast
    glow = 1.0 + 0.4 * (0.6 - defocus)
    nuclei = 0.3 + 0.65 * glow * gaussian_filter(nucleus * 1.0, 0.8 + 0.5 * defocus)
    membranes = 0.3 + 0.65 * glow * gaussian_filter(rim, 0.6 + 0.5 * defocus)
    return phase, nuclei, membranes


def _cells(settings: LabelFreeSettings, position: int, time: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bodies, nuclei and rims (Y, X), 0 to 1, of cells that drift from time to time."""
    rng = np.random.default_rng((settings.seed, 0, position))
    size, count = settings.size, settings.cells
    centres, drift = rng.uniform(0, size, (count, 2)), rng.normal(0, 1.5, (count, 2))
    radii = rng.uniform(0.045, 0.07, count) * size
    bend = gaussian_filter(rng.normal(size=(2, size, size)), (0, 4, 4), mode="wrap") * 30
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    depth = np.full((size, size), -np.inf)
    inner = np.full((size, size), -np.inf)
    for centre, step, radius in zip(centres, drift, radii, strict=True):
        cy, cx = centre + time * step
        far = np.hypot(y + bend[0] - cy, x + bend[1] - cx)
        depth, inner = np.maximum(depth, radius - far), np.maximum(inner, 0.5 * radius - far)
    smooth = [1 / (1 + np.exp(-np.clip(edge / 0.7, -30, 30))) for edge in (depth, inner)]
    return smooth[0], smooth[1], np.exp(-((depth - 1) ** 2) / 3)


def stains(settings: StainsSettings) -> Iterator[Position]:
    """Yield haematoxylin and DAB of each tile of `ihc.png`; grey values are 65,535 times the stain's density."""
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    density = np.clip(rgb2hed(immunohistochemistry())[..., [0, 2]], 0, 1).transpose(2, 0, 1)
    grey = np.rint(density * 65535).astype(np.uint16)
    side = settings.tile
    tiles = [(y, x) for y in range(0, grey.shape[1] - side + 1, side) for x in range(0, grey.shape[2] - side + 1, side)]
    for number, (y, x) in enumerate(tiles):
        yield Position(number, 0, grey[:, np.newaxis, y : y + side, x : x + side])


KINDS = {
    "label-free": (LabelFreeSettings, label_free, ("phase", "nuclei", "membranes")),
    "stains": (StainsSettings, stains, ("haematoxylin", "dab")),
}
"""For each kind of set its settings, its frames and its channels."""


def synthesize_frames(kind: str, settings: Settings, out: Path) -> bool:
    """Write the frames of a set as PNG, `im_c000_z000_t000_p000.png`, with their `frames_meta.csv`.

    Returns:
        Whether anything was written; a whole set with the same settings is left alone.

    Raises:
        BadInput: `out` is something else.
    """
    expected, frames_of, channels = KINDS[kind]
    if not isinstance(settings, expected):
        raise BadInput(f"{kind}: settings of another kind, expected {expected.__name__}")
    record = {"kind": kind} | settings.model_dump()
    if is_finished(out, record):
        return False
    with output(out, record, seed=getattr(settings, "seed", None)) as made:
        made.clear()
        frames = []
        for one in frames_of(settings):
            for channel, z in np.ndindex(one.frames.shape[:2]):
                name = f"im_c{channel:03}_z{z:03}_t{one.time:03}_p{one.position:03}.png"
                Image.fromarray(one.frames[channel, z]).save(out / name)
                frames.append(Frame(channel, z, one.time, one.position, channels[channel], name))
        write_frames(out / TABLE, sorted(frames, key=lambda frame: frame.index))
    return True
