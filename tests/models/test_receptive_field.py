"""Shapes on paper: the published networks' inputs and outputs, and chains of two."""

import pytest

from emsuite.common.errors import BadInput
from emsuite.models.receptive_field import context, output_shape, receptive_field, smallest_input
from emsuite.models.unet_settings import UNetSettings

ZEBRAFINCH = UNetSettings(downsample_factors=((1, 3, 3), (1, 3, 3), (3, 3, 3)))
FIB25 = UNetSettings(fmap_inc_factor=6, downsample_factors=((2, 2, 2), (2, 2, 2), (3, 3, 3)))


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        (ZEBRAFINCH, (84, 268, 268), (48, 56, 56)),
        (ZEBRAFINCH, (96, 484, 484), (60, 272, 272)),
        (ZEBRAFINCH, (39, 214, 214), (3, 2, 2)),
        (FIB25, (196, 196, 196), (92, 92, 92)),
        (FIB25, (268, 268, 268), (164, 164, 164)),
        (FIB25, (352, 352, 352), (248, 248, 248)),
    ],
)
def test_published_shapes(settings: UNetSettings, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert output_shape(settings, given) == expected


def test_legal_inputs_of_the_zebrafinch_networks() -> None:
    assert smallest_input(ZEBRAFINCH) == (39, 214, 214)
    assert ZEBRAFINCH.stride == (3, 27, 27)
    assert context(ZEBRAFINCH) == (36, 212, 212)


def test_an_illegal_input_names_its_neighbours() -> None:
    with pytest.raises(BadInput, match=r"268 and 295 \(steps of 27\)"):
        output_shape(ZEBRAFINCH, (84, 270, 268))
    with pytest.raises(BadInput, match="none below and 214"):
        output_shape(ZEBRAFINCH, (84, 100, 268))
    with pytest.raises(BadInput, match="3 axes"):
        output_shape(ZEBRAFINCH, (84, 268))


def test_tiles_advance_by_a_multiple_of_the_stride() -> None:
    assert receptive_field(ZEBRAFINCH).step((96, 484, 484)) == (60, 270, 270)
    assert receptive_field(FIB25).step((268, 268, 268)) == (156, 156, 156)


def test_the_smallest_input_for_an_output() -> None:
    assert receptive_field(ZEBRAFINCH).input_for((3, 2, 2)) == (39, 214, 214)
    assert receptive_field(ZEBRAFINCH).input_for((4, 3, 29)) == (42, 241, 241)
    assert receptive_field(ZEBRAFINCH).largest_within((100, 500, 10)) == (99, 484, 214)


def test_two_networks_in_a_row() -> None:
    chain = receptive_field(ZEBRAFINCH).followed_by(receptive_field(ZEBRAFINCH))
    # 120x484x484 raw -> 84x272x272 LSDs, cropped to 84x268x268 -> 48x56x56 affinities
    assert [n - c for n, c in zip((120, 484, 484), chain.context, strict=True)] == [48, 56, 56]
    assert chain.offset == (36, 214, 214)
    assert receptive_field(FIB25).followed_by(receptive_field(FIB25)).input_for((92, 92, 92)) == (304, 304, 304)
    with pytest.raises(BadInput, match="strides"):
        receptive_field(ZEBRAFINCH).followed_by(receptive_field(FIB25))


def test_a_stem_scales_what_lies_behind_it() -> None:
    plain = UNetSettings(downsample_factors=((2, 2, 2),))
    stem = UNetSettings.model_validate(
        {"downsample_factors": [[2, 2, 2]], "stem": {"kernel": [4, 4, 4], "factor": [2, 2, 2]}}
    )
    assert stem.stride == (4, 4, 4)
    assert context(stem) == tuple(2 * c + 2 for c in context(plain))


def test_same_padding_keeps_the_shape_but_trusts_only_the_middle() -> None:
    same = UNetSettings(downsample_factors=((2, 2, 2),), padding="same")
    assert output_shape(same, (16, 18, 20)) == (16, 18, 20)
    valid = context(UNetSettings(downsample_factors=((2, 2, 2),)))
    assert all(c >= v and c % 4 == 0 for c, v in zip(context(same), valid, strict=True))
