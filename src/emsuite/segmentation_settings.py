"""How affinities become segments; part of a data set, as good values hang on its voxels and neurites."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from emsuite.errors import BadInput
from emsuite.merge_functions import MERGE_FUNCTIONS
from emsuite.settings import Settings
from emsuite.slurm_settings import SlurmSettings
from emsuite.thresholds import parse_thresholds

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
