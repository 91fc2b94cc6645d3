"""How affinities become segments: the settings of each stage, and all of them together for a data set.

Good values depend on the voxel size and on the neurites, so that a data set holds its own. Each class below is the
schema of one stage: its keys are the options of the stage's script and the keys of `segmentation` in yaml files, with
the same names, defaults and limits.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from emsuite.blockwise.slurm_settings import SlurmSettings
from emsuite.common.errors import BadInput
from emsuite.common.settings import Lengths, Settings
from emsuite.segmentation.instances.settings import InstanceSettings

_MOST_THRESHOLDS = 10_001
Fraction = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[float, Field(ge=0, le=1_000_000)]

MergeFunction = Literal[
    "mean",
    "hist_quant_10",
    "hist_quant_25",
    "hist_quant_50",
    "hist_quant_75",
    "hist_quant_90",
    "hist_quant_10_initmax",
    "hist_quant_25_initmax",
    "hist_quant_50_initmax",
    "hist_quant_75_initmax",
    "hist_quant_90_initmax",
]


def parse_thresholds(text: str) -> list[float]:
    """Return all thresholds of `first,last,step`, both ends included; raise BadInput for another text.

    Thresholds are rounded to 10 decimals, so that 0.28 is exactly the number that people write.
    """
    try:
        first, last, step = (float(part) for part in text.split(","))
        count = math.floor((last - first) / step + 1e-6) + 1
        if not math.isfinite(step):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise BadInput(f"thresholds {text!r}: expected three numbers as first,last,step, as 0,1,0.02") from None
    if count < 1 or step < 0 or not 0 <= first <= last <= 1:
        raise BadInput(f"thresholds {text!r}: expected first <= last, both in [0, 1], and a step above 0")
    if count > _MOST_THRESHOLDS:
        raise BadInput(f"thresholds {text!r}: {count} thresholds, expected at most {_MOST_THRESHOLDS}: a longer step")
    return [round(first + i * step, 10) for i in range(count)]


def _check_thresholds(text: str) -> str:
    try:
        parse_thresholds(text)
    except BadInput as error:
        raise ValueError(str(error).rpartition(": ")[2]) from None
    return text


def parse_sections(text: str | None) -> dict[int, int | None]:
    """Return what `BAD=GOOD,BAD,...` says: for each bad section the one that takes its place, None for no section.

    Raises:
        ValueError: The text says something else, or a section twice, or takes one that is bad itself.
    """
    sections: dict[int, int | None] = {}
    for part in (text or "").split(",") if text else ():
        found = re.fullmatch(r" *(-?\d{1,9})(?: *= *(-?\d{1,9}))? *", part)
        if not found:
            raise ValueError(f"expected sections as BAD=GOOD, or BAD alone, as 79=78,111; a part is {part!r}")
        bad, good = int(found[1]), None if found[2] is None else int(found[2])
        if bad in sections:
            raise ValueError(f"section {bad} is there twice")
        sections[bad] = good
    for bad, good in sections.items():
        if good in sections:
            raise ValueError(f"section {good} cannot take the place of {bad}: it is bad itself")
    return sections


def _as_text(given: Any) -> Any:
    """Return a list of yaml, as `[[79, 78], 80=81, 111]`, as the text of a command line, sorted."""
    if isinstance(given, list | tuple):
        pairs = [part if isinstance(part, list | tuple) else (part,) for part in given]
        given = ",".join("=".join(map(str, pair)) for pair in pairs)
    if not isinstance(given, str):
        return given
    sections = parse_sections(given)
    return ",".join(str(bad) if sections[bad] is None else f"{bad}={sections[bad]}" for bad in sorted(sections))


Sections = Annotated[str, BeforeValidator(_as_text)]


class FragmentSettings(Settings):
    """How affinities become fragments. `flood: distance` is the published way (Sheridan et al. 2022)."""

    min_seed_distance: PositiveInt = Field(
        10, le=10_000, description="Width of the maximum filter whose maxima are the seeds, voxels."
    )
    filter_fragments: Fraction = Field(0.0, description="Drop fragments of a lower mean affinity.")
    epsilon: Fraction = Field(0.0, description="Agglomerate fragments up to this threshold at once.")
    in_sections: bool = Field(False, description="Make fragments section by section, for anisotropic volumes.")
    replace_sections: Sections | None = Field(
        None,
        description="Bad sections and those that take their place, as 79=78,80=81; without the second, as 111, the "
        "section gets no fragments. Sections count from 0 nm of the world.",
    )
    flood: Literal["affinity", "distance"] = Field(
        "affinity",
        description="What the watershed floods: the affinities, so that fragments meet where affinities are lowest, "
        "or the distance to the boundary, as in the paper.",
    )
    seeds: Literal["distance", "mutex"] = Field(
        "distance",
        description="Where fragments begin: at maxima of the distance to the boundary, or at the pieces of a mutex "
        "watershed.",
    )
    bias: tuple[Fraction, Fraction] = Field(
        (0.5, 0.5),
        description="Mutex seeds: affinities above attract, those below repel; to neighbours, and to farther voxels.",
    )
    debris: int = Field(64, ge=0, description="Mutex seeds: smaller pieces are no seeds, voxels.")


class AgglomerationSettings(Settings):
    """How fragments are scored for merging."""

    merge_function: MergeFunction = Field(
        "hist_quant_75",
        description="Statistic of the affinities between two regions that decides on their merge; initmax starts with "
        "the maximum between two fragments.",
    )
    segments_in_sections: bool = Field(
        False, description="Merge no fragments of different z-sections: a segmentation of each section alone."
    )


class SweepSettings(Settings):
    """The thresholds at which segments are made and scored."""

    thresholds: Annotated[str, AfterValidator(_check_thresholds)] = Field(
        "0,1,0.02", description="The sweep: first and last threshold, and the step."
    )


class ScoringSettings(Settings):
    """What of the ground truth is scored, and how."""

    label_border: Width = Field(
        0.0,
        description="Leave out labelled voxels that are in their section at most this far, nm, from a voxel next to "
        "another label, and that voxel. 0: score all; less than a voxel: leave out the voxels next to another alone.",
    )
    score_in_sections: bool = Field(
        False, description="Score each z-section as a volume of its own too; the best threshold is theirs."
    )


class ContextSettings(Settings):
    """The surroundings that are read with a block."""

    context: Lengths | None = Field(
        None, description="Width of the surroundings read with a block, z,y,x in nm. [default: a quarter of the block]"
    )


class BlockSettings(ContextSettings):
    """How a volume is cut into blocks."""

    block_size: Lengths | None = Field(
        None, description="Size of a block, z,y,x in nm. [default: the whole volume at once]"
    )


class SegmentationSettings(FragmentSettings, AgglomerationSettings, SweepSettings, ScoringSettings, BlockSettings):
    """All settings of the segmentation, as a data set or a workflow gives them."""

    instances: InstanceSettings = Field(
        InstanceSettings(), description="How instances are decoded, of networks that predict foreground and contours."
    )
    slurm: SlurmSettings | None = Field(None, description="Jobs to ask Slurm for; none: processes on this machine.")

    @model_validator(mode="after")
    def _consistent(self) -> "SegmentationSettings":
        if self.segments_in_sections and not (self.in_sections and self.epsilon == 0):
            raise ValueError(f"segments_in_sections: {FRAGMENTS_IN_SECTIONS}")
        return self


FRAGMENTS_IN_SECTIONS = "expected fragments of one section each: in_sections true, and epsilon 0"
"""What `segments_in_sections` needs."""
