"""The pool of earlier fakes that discriminators learn from, beside the newest ones (Shrivastava et al. 2017).

fills:    a new image is kept, and returned
is full:  with 0.5 a new image is returned, with 0.5 it takes the place of an old one, which is returned
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from emsuite.common.errors import BadInput


class ImagePool:
    """Images of earlier iterations. What is drawn depends on the seed, the stream and the iteration alone."""

    def __init__(self, size: int, seed: int, stream: int = 0):
        """Begin with an empty pool.

        Args:
            size: images that it holds; 50 as published. Without any, images are returned as they are.
            seed: of the run.
            stream: number that tells pools, and processes, of one run apart.
        """
        self.size, self.seed, self.stream = size, seed, stream
        self._images: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of images in the pool."""
        return len(self._images)

    def query(self, images: Tensor, iteration: int) -> Tensor:
        """Return as many images as are given, each new or old, and keep some of the new ones.

        Args:
            images: (N, C, Z, Y, X), one shape throughout a run. No gradient goes to them.
            iteration: number of the training iteration, for which this is called once.

        Raises:
            BadInput: the pool was loaded with images of another shape.
        """
        images = images.detach()
        if not self.size:
            return images
        if self._images and self._images[0].shape != images.shape[1:]:
            raise BadInput(
                f"image pool: holds images of {tuple(self._images[0].shape)}, expected {tuple(images.shape[1:])}"
            )
        draws = np.random.default_rng([self.seed, self.stream, iteration])
        return torch.stack([self._exchanged(image, draws) for image in images])

    def _exchanged(self, image: Tensor, draws: np.random.Generator) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if draws.random() <= 0.5:
            return image
        place = int(draws.integers(self.size))
        old, self._images[place] = self._images[place], image.clone()
        return old

    def state_dict(self) -> dict[str, Tensor]:
        """Return the images, (number, C, Z, Y, X), for a checkpoint; nothing of an empty pool."""
        return {"images": torch.stack(self._images)} if self._images else {}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device | None = None) -> None:
        """Take the images of a checkpoint, as many as fit, to `device`."""
        images = state.get("images", torch.empty(0))[: self.size]
        self._images = list(images.to(device) if device else images.clone())
