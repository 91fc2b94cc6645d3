"""Sweeps of thresholds, as they are written."""

import pytest

from emsuite.common.errors import BadInput
from emsuite.segmentation.settings import parse_thresholds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1,0.02", [i / 50 for i in range(51)]),
        ("0.28,0.29,.01", [0.28, 0.29]),
        ("0,1,.3", [0, 0.3, 0.6, 0.9]),
        ("0.5,0.5,1", [0.5]),
    ],
)
def test_thresholds_are_what_they_say(text, expected):
    assert parse_thresholds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0,1", "0,1,0", "1,0,.1", "0,2,.1", "-1,1,.1", "0,1,-.1", "a,b,c", "0,1,nan", "0,1,.1,2"]
)
def test_what_is_no_sweep_is_refused(text):
    with pytest.raises(BadInput, match="expected"):
        parse_thresholds(text)
