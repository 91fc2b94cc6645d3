"""The images of a sample that targets are made of, by the names of their arrays."""

from typing import NamedTuple

FOREGROUND = "foreground"
"""The mask of preprocessing, where it is a target: 1 in the foreground, 0 elsewhere."""
BORDERS = "border_weights"
"""The border weights of preprocessing."""
PREFIX = "image/"
"""How the names of the arrays begin."""
INSIDE = f"{PREFIX}/inside"
"""The array that is 1 inside the image, 0 beyond it."""


class ImageName(NamedTuple):
    """A channel of a plate, its foreground, or its border weights."""

    channel: int | str
    normalized: bool = True
    """Whether it is normalized by the statistics of its channel, or holds grey values as they are."""

    @property
    def array(self) -> str:
        """The name of its array in a sample."""
        return f"{PREFIX}{self.channel}{'' if self.normalized else ', as it is'}"
