"""What network.yaml says of a plate: `plate:`, the folder that preprocessing wrote, and the channels to read."""

from pathlib import Path

from pydantic import Field

from emsuite.common.settings import Probability, Settings
from emsuite.plates.settings import Channel


class PlateInput(Settings):
    """The plate that a network is trained on, as `01_data/preprocess.py` wrote it."""

    path: Path = Field(description="the folder, as seen from where a command runs, or else from the project")
    input_channels: tuple[Channel, ...] = Field(min_length=1, description="channels to read, by number or name")
    min_fraction: Probability | None = Field(
        None, description="least share of foreground in a sample (default: that of `tiles` in preprocessing, else 0)"
    )
