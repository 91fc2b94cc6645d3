"""Names of frames: each way to read them, on names that can be read by eye."""

import pytest

from emsuite.common.errors import BadInput
from emsuite.plates.frame_names import ByExpression, ByOrder, FrameIndex, by_channel_name, gaps, parser


def test_integers_in_the_order_that_is_asked_for() -> None:
    assert ByOrder()("im_c001_z002_t003_p004") == FrameIndex(1, 2, 3, 4)
    assert ByOrder("ptzc")("im_c001_z002_t003_p004") == FrameIndex(4, 3, 2, 1)
    assert ByOrder()("im_c1_z20_t300_p40000") == FrameIndex(1, 20, 300, 40000)
    assert ByOrder()("im_c001_z002_t003") is None
    assert ByOrder()("exp7_c001_z002_t003_p004") is None


def test_names_of_channels() -> None:
    assert by_channel_name("img_GFP_t001_p012_z003") == FrameIndex("GFP", 3, 1, 12)
    assert by_channel_name("img_my_red_t4_p2_z3") == FrameIndex("my_red", 3, 4, 2)
    assert by_channel_name("img_phase_p012_z003_t001") == FrameIndex("phase", 3, 1, 12)
    assert by_channel_name("img_568_t000_p001_z002") == FrameIndex("568", 2, 0, 1)
    assert by_channel_name("im_c001_z002_t003_p004") == FrameIndex("c001", 2, 3, 4)
    assert by_channel_name("img_GFP") is None
    assert by_channel_name("img_GFP_t1_t2_p0") is None


def test_expressions() -> None:
    parse = ByExpression(r"^(?P<c>[A-Za-z]+)-well(?P<p>\d+)(?:_z(?P<z>\d+))?")
    assert parse("DAPI-well12_z7") == FrameIndex("DAPI", 7, 0, 12)
    assert parse("DAPI-well12") == FrameIndex("DAPI", 0, 0, 12)
    assert parse("well12") is None
    assert ByExpression(r"ch(?P<c>\d)")("ch3") == FrameIndex(3, 0, 0, 0)


def test_the_parser_by_its_name() -> None:
    assert parser("order", "pczt") == ByOrder("pczt")
    assert parser("sms") is by_channel_name
    assert parser("order", "cztp", r"(?P<p>\d)") == ByExpression(r"(?P<p>\d)")


def test_gaps() -> None:
    assert gaps({0, 1, 3}) == [2]
    assert gaps({0, 2, 4}) == []
    assert gaps({5, 6, 7}) == []
    assert gaps({0, 7}) == []


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ByOrder("czt"), "order czt: expected the letters"),
        (lambda: ByOrder("cztt"), "order cztt: expected the letters"),
        (lambda: ByExpression("(?P<c>"), "no regular expression"),
        (lambda: ByExpression(r"(\d)"), "groups none, expected"),
        (lambda: ByExpression(r"(?P<y>\d)"), "groups y, expected"),
        (lambda: ByExpression(r"(?P<z>\w)")("b"), "the slice is 'b', expected a whole number"),
    ],
)
def test_odd_orders_and_expressions(make, line: str) -> None:
    with pytest.raises(BadInput, match=line.replace("(", r"\(")):
        make()
