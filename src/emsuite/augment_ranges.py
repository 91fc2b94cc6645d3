"""Types that the settings of several augmentations share."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("expected [lowest, highest]")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
NonNegative = Annotated[float, Field(ge=0)]
NonNegativeRange = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]
