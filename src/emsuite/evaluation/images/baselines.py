"""Predictions that need no network: what a trained one must beat.

identity     an input channel, as it is
linear       a + b1 input1 + b2 input2 + ..., by least squares over all voxels of the positions that it is fitted to
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.evaluation.images.pairs import Pair, Pairs
from emsuite.evaluation.images.scores import ImageScore, score_volume
from emsuite.plates.flat_field import empty_sections
from emsuite.plates.plate import Plate
from emsuite.plates.selection import Selection
from emsuite.plates.statistics import Where

Mapped = Callable[[Callable[[Where], list[ImageScore]], Sequence[Where]], list[list[ImageScore]]]


@dataclass(frozen=True)
class Line:
    """The linear baseline of one target channel."""

    constant: float
    factors: tuple[float, ...]
    """For each input channel."""

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return a prediction (Z, Y, X) float64 from inputs (C, Z, Y, X)."""
        return self.constant + np.tensordot(np.array(self.factors), inputs, axes=1)


def fit_lines(pairs: Pairs, positions: Sequence[str]) -> list[Line]:
    """Fit the linear baseline of each target channel. Slices whose target is constant, as without light, do not count.

    Args:
        pairs: with inputs.
        positions: of the target's plate, those to fit to.

    Raises:
        BadInput: all targets are constant, or hold NaN.
    """
    assert pairs.inputs is not None
    inputs = Selection(pairs.whole, positions, pairs.inputs.channels)
    targets = Selection(pairs.whole, positions, pairs.target.channels)
    return [_fit_line(inputs, targets, channel) for channel in range(len(targets.channels))]


def _fit_line(inputs: Selection, targets: Selection, channel: int) -> Line:
    """Solve the normal equations, about a first value of each channel: grey values may be far from 0."""
    count = len(inputs.channels) + 1
    products, origin = np.zeros((count + 1, count + 1)), None
    for position in targets.positions:
        for time in range(targets.shape(position)[0]):
            target = targets.read(position, time, channel)
            lit = ~empty_sections(target)
            if not lit.any():
                continue
            read = _inputs(inputs, position, time)
            values = np.stack([*read, target]).astype(np.float64)[:, lit].reshape(count, -1)
            origin = values.mean(axis=1, keepdims=True) if origin is None else origin
            rows = np.concatenate([np.ones((1, values.shape[1])), values - origin])
            products += rows @ rows.T
    if origin is None:
        name = targets.channels[channel]
        raise BadInput(f"{targets.path}, channel {name}: all images are constant, expected some with light")
    solved = np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=None)[0]
    factors = solved[1:]
    constant = solved[0] + origin[-1, 0] - factors @ origin[:-1, 0]
    return Line(float(constant), tuple(map(float, factors)))


def score_baselines(
    pairs: Pairs, lines: Sequence[Line], orientation: str, names: Sequence[str], mapped: Mapped
) -> dict[str, list[ImageScore]]:
    """Return the scores of `linear`, and of each input as it is, `identity NAME`.

    Args:
        pairs: with inputs.
        lines: one for each target channel.
        orientation: of the images.
        names: of metrics.
        mapped: calls a function for each volume, as on several threads, and returns the results in order.
    """
    assert pairs.inputs is not None
    inputs = pairs.inputs

    def scored(predict: Callable[[np.ndarray, int], np.ndarray]) -> list[ImageScore]:
        def of_volume(where: Where) -> list[ImageScore]:
            pair = pairs.read(where)
            guess = predict(_inputs(inputs, where.position, where.time), where.channel)
            return score_volume(Pair(guess, pair.target, pair.mask), where, orientation, names)

        return [score for part in mapped(of_volume, pairs.volumes()) for score in part]

    def identity(number: int) -> Callable[[np.ndarray, int], np.ndarray]:
        return lambda read, _channel: read[number]

    result = {"linear": scored(lambda read, channel: lines[channel].predict(read))}
    for number, name in enumerate(inputs.channels):
        result[f"identity {name}"] = scored(identity(number))
    return result


def _inputs(inputs: Plate, position: str, time: int) -> np.ndarray:
    """Return the input channels (C, Z, Y, X) of a position and a time."""
    return np.stack([inputs.read(position, time, channel) for channel in range(len(inputs.channels))])
