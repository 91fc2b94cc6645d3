"""How affinities become segments; part of a data set, as good values hang on its voxels and neurites.

What is to be known about fragments before any are made.

A sweep of thresholds as it is written: first, last and step.

What of the affinities between two regions decides on their merge.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from emsuite.blockwise.slurm import SlurmSettings
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings

_Nanometres = tuple[PositiveInt, PositiveInt, PositiveInt]
_Fraction = Annotated[float, Field(ge=0, le=1)]


def _merge_function(name: str) -> str:
    if name not in MERGE_FUNCTIONS:
        raise ValueError(f"expected one of {', '.join(MERGE_FUNCTIONS)}")
    return name


def _thresholds(text: str) -> str:
    try:
        parse_thresholds(text)
    except BadInput as error:
        raise ValueError(str(error).rpartition(": ")[2]) from None
    return text


class SegmentationSettings(Settings):
    """Options of the 04_segment scripts; `flood: distance` is the paper's way (Sheridan et al. 2022)."""

    merge_function: Annotated[str, AfterValidator(_merge_function)] = "hist_quant_75"
    thresholds: Annotated[str, AfterValidator(_thresholds)] = Field(
        "0,1,0.02", description="first, last and step of the sweep"
    )
    min_seed_distance: PositiveInt = Field(10, description="voxels")
    flood: Literal["distance", "affinity"] = Field(
        "affinity",
        description="affinity: fragments meet where affinities are lowest; distance: as the paper",
    )
    seeds: Literal["distance", "mutex"] = Field(
        "distance", description="where fragments begin: maxima of the distance to the boundary, or mutex watershed"
    )
    bias: tuple[_Fraction, _Fraction] = Field((0.5, 0.5), description="of mutex seeds: to neighbours, and farther")
    debris: int = Field(64, ge=0, description="voxels; smaller pieces are no mutex seeds")
    filter_fragments: _Fraction = Field(0.0, description="fragments of a lower mean affinity are dropped")
    epsilon: _Fraction = Field(0.0, description="fragments are agglomerated up to here at once; 0: not at all")
    in_sections: bool = Field(False, description="fragments section by section, for anisotropic volumes")
    block_size: _Nanometres | None = Field(None, description="nm, z y x; none: the whole volume at once")
    context: _Nanometres | None = Field(None, description="nm, z y x, around each block")
    slurm: SlurmSettings | None = Field(None, description="jobs to ask Slurm for; none: processes on this machine")

    @property
    def block_options(self) -> list[str]:
        """`--block-size ... --context ...` of the scripts that work in blocks, or nothing."""
        return _option("--block-size", self.block_size) + self.context_option

    def workers_option(self, threads: int) -> list[str]:
        """`--workers ...`: that many processes, or Slurm's jobs."""
        return ["--workers", str(threads)] if self.slurm is None else self.slurm.arguments

    @property
    def context_option(self) -> list[str]:
        """`--context ...`, or nothing."""
        return _option("--context", self.context)

    @property
    def fragment_options(self) -> list[str]:
        """Options of extract_fragments.py, blocks aside."""
        words = ["--min-seed-distance", self.min_seed_distance, "--flood", self.flood]
        words += ["--filter-fragments", self.filter_fragments, "--epsilon", self.epsilon]
        words += ["--in-sections"] if self.in_sections else []
        if self.seeds == "mutex":
            words += ["--seeds", "mutex", "--bias", *self.bias, "--debris", self.debris]
        return [str(word) for word in words]


def _option(name: str, lengths: _Nanometres | None) -> list[str]:
    return [name, ",".join(map(str, lengths))] if lengths else []


NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets in voxels of the three affinities that there always are, to the voxels before in z, y and x."""


@dataclass(frozen=True)
class FragmentOptions:
    """How fragments are made; the defaults are the paper's.

    `min_seed_distance` (voxels): width of the maximum filter that seeds are the maxima of. `filter_fragments` (0 to
    1): fragments of a lower mean affinity become background. `epsilon` (0 to 1): fragments are agglomerated up to
    this threshold at once. `in_sections`: each z-section alone, by the affinities in y and x. `flood`: what the
    watershed floods, `distance` to the boundary, or the `affinity` itself. `seeds`: where it begins, at the maxima of
    the `distance`, or from the pieces of a `mutex` watershed, for which `bias` and `debris` are (see `mutex_pieces`).
    """

    min_seed_distance: int = 10
    filter_fragments: float = 0.0
    epsilon: float = 0.0
    in_sections: bool = False
    flood: str = "distance"
    seeds: str = "distance"
    bias: tuple[float, float] = (0.5, 0.5)
    debris: int = 64

    def as_settings(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def parse_thresholds(text: str) -> list[float]:
    """`first,last,step` as all thresholds from first to last, both among them; raises BadInput.

    Rounded to 10 decimals, so that 0.28 and 0.29 are what they say.
    """
    try:
        first, last, step = (float(part) for part in text.split(","))
        count = math.floor((last - first) / step + 1e-6) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        raise BadInput(f"thresholds {text!r}: expected three numbers as first,last,step, as 0,1,0.02") from None
    if count < 1 or step < 0 or not 0 <= first <= last <= 1:
        raise BadInput(f"thresholds {text!r}: expected first <= last, both in [0, 1], and a step above 0")
    return [round(first + i * step, 10) for i in range(count)]


_HISTOGRAM = "OneMinus<HistogramQuantileAffinity<RegionGraphType, {}, ScoreValue, 256, {}>>"
MERGE_FUNCTIONS = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    **{f"hist_quant_{q}": _HISTOGRAM.format(q, "false") for q in (10, 25, 50, 75, 90)},
    **{f"hist_quant_{q}_initmax": _HISTOGRAM.format(q, "true") for q in (10, 25, 50, 75, 90)},
}
"""waterz scoring functions by name: 1 - mean, or 1 - a quantile of the affinities between two regions; `initmax`:
between two fragments, the maximum."""
