"""How affinities become segments; part of a data set, as good values hang on its voxels and neurites."""

from typing import Annotated

from pydantic import Field, PositiveInt

from emsuite.settings import Settings

_Nanometres = tuple[PositiveInt, PositiveInt, PositiveInt]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class SegmentationSettings(Settings):
    """Options of the 04_segment scripts; the defaults are the paper's (Sheridan et al. 2022)."""

    merge_function: str = "hist_quant_75"
    thresholds: str = Field("0,1,0.02", description="first, last and step of the sweep")
    min_seed_distance: PositiveInt = Field(10, description="voxels")
    filter_fragments: _Fraction = Field(0.0, description="fragments of a lower mean affinity are dropped")
    epsilon: _Fraction = Field(0.0, description="fragments are agglomerated up to here at once; 0: not at all")
    in_sections: bool = Field(False, description="fragments section by section, for anisotropic volumes")
    block_size: _Nanometres | None = Field(None, description="nm, z y x; none: the whole volume at once")
    context: _Nanometres | None = Field(None, description="nm, z y x, around each block")
