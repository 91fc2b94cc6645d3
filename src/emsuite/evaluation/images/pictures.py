"""Pictures of predicted images: input, target, prediction and error side by side, and target against prediction.

Target and prediction share their grey scale, from the target's 0.5 percentile to its 99.5. The error is blue where the
prediction is too low, red where it is too high, and white where it is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from emsuite.evaluation.images.pairs import Pair
from emsuite.evaluation.plots import plot
from emsuite.evaluation.section_images import jpeg
from emsuite.plates.flat_field import empty_sections

_MOST_PIXELS = 512
"""Along an axis of a picture; larger images are averaged over blocks."""
_COLORS = "RdBu_r"
_FULL = 0.5
"""Error of the full colour, as a share of the target's range."""


@dataclass(frozen=True)
class Panel:
    """Pictures of one image, by name, as JPEG."""

    caption: str
    pictures: dict[str, bytes]


def draw_panel(
    caption: str, pair: Pair, inputs: dict[str, np.ndarray], pixel_size: Sequence[float] = (1.0, 1.0)
) -> Panel:
    """Draw an image beside its prediction.

    Args:
        caption: what it is.
        pair: prediction, target and mask, (Y, X) each; the mask's border is not drawn.
        inputs: further images (Y, X), by name.
        pixel_size: of the two axes, in any unit.
    """
    low, high = _limits(pair.target)
    target, prediction = (_shrunk(image.astype(np.float64)) for image in (pair.target, pair.prediction))
    pictures = {name: _grey(_shrunk(image.astype(np.float64)), *_limits(image)) for name, image in inputs.items()}
    pictures |= {"target": _grey(target, low, high), "prediction": _grey(prediction, low, high)}
    share = (prediction - target) / (high - low)
    colored = matplotlib.colormaps[_COLORS](np.clip(0.5 + share / (2 * _FULL), 0, 1))
    pictures["error"] = (255 * colored[..., :3]).astype(np.uint8)
    return Panel(caption, {name: jpeg(picture, pixel_size) for name, picture in pictures.items()})


def _limits(image: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(image, [0.5, 99.5]))
    return (low, high) if high > low else (low, low + 1.0)


def _grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return (255 * ((image - low) / (high - low)).clip(0, 1)).astype(np.uint8)[..., None]


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Return an image (Y, X) averaged over blocks, so that no axis is longer than a picture's."""
    block = -(-max(image.shape) // _MOST_PIXELS)
    if block == 1:
        return image
    for axis in (0, 1):
        begins = np.arange(0, image.shape[axis], block)
        lengths = np.minimum(block, image.shape[axis] - begins)
        image = np.add.reduceat(image, begins, axis) / np.expand_dims(lengths, 1 - axis)
    return image


def some_values(pair: Pair, most: int) -> np.ndarray:
    """Return target and prediction, (2, n) float32, of at most `most` voxels that count, evenly spaced.

    Slices whose target is constant, as without light, do not count.
    """
    lit = ~empty_sections(pair.target)
    target, prediction = pair.target[lit].ravel(), pair.prediction[lit].ravel()
    if pair.mask is not None:
        inside = pair.mask[lit].ravel()
        target, prediction = target[inside], prediction[inside]
    step = max(1, -(-target.size // most))
    return np.stack([target[::step], prediction[::step]]).astype(np.float32)


def scatter(values: np.ndarray) -> str:
    """Return the SVG text of target against prediction, as the density of voxels, with the line of equality.

    Args:
        values: (2, n), target and prediction.
    """
    target, prediction = values
    ends = float(values.min()), float(max(values.max(), values.min() + 1e-9))

    def draw(axes: Axes) -> None:
        axes.set_axisbelow(True)
        axes.hexbin(target, prediction, gridsize=60, bins="log", mincnt=1, cmap="viridis", linewidths=0,
                    rasterized=True)  # fmt: skip
        axes.plot(ends, ends, color="#e07b00", linewidth=1, label="equal")
        axes.set(xlabel="target", ylabel="prediction")
        axes.legend(loc="upper left")

    return plot(draw, (4.2, 3.6))


def ranking(numbers: Sequence[float], what: str) -> str:
    """Return the SVG text of a metric of all positions, in ascending order; `what` is its name."""
    ordered = sorted(numbers)

    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(ordered) + 1), ordered, ".-", color="#0b7285", linewidth=1)
        axes.set(xlabel="positions, in ascending order", ylabel=what)

    return plot(draw, (4.2, 3.6))
