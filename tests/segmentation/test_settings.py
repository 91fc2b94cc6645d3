"""The settings of the segmentation: sweeps of thresholds, and what results remember of them."""

import json

import pytest
from pydantic import ValidationError

from emsuite.common.errors import BadInput
from emsuite.segmentation.settings import (
    AgglomerationSettings,
    BlockSettings,
    FragmentSettings,
    ScoringSettings,
    SegmentationSettings,
    SweepSettings,
    parse_sections,
    parse_thresholds,
)


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
    "text",
    [
        "",
        "0,1",
        "0,1,0",
        "1,0,.1",
        "0,2,.1",
        "-1,1,.1",
        "0,1,-.1",
        "a,b,c",
        "0,1,nan",
        "0,1,.1,2",
        "0,1,inf",
        "0,1,1e-12",
        "0,1,5e-324",
    ],
)
def test_what_is_no_sweep_is_refused(text):
    with pytest.raises(BadInput, match="expected"):
        parse_thresholds(text)


def test_manifests_say_the_settings_of_fragments_as_ever():
    recorded = (
        '{"min_seed_distance": 10, "filter_fragments": 0.0, "epsilon": 0.0, "in_sections": false, '
        '"flood": "distance", "seeds": "distance", "bias": [0.5, 0.5], "debris": 64}'
    )
    assert json.dumps(FragmentSettings(flood="distance").model_dump(exclude_none=True)) == recorded


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("111,79=78", "79=78,111"),
        ([[79, 78], "80=81", 111], "79=78,80=81,111"),
        (" 5 = 4 ", "5=4"),
        ([-3], "-3"),
    ],
)
def test_bad_sections_are_a_text_or_a_list(given, text):
    assert FragmentSettings(replace_sections=given).replace_sections == text
    assert FragmentSettings(replace_sections=text).replace_sections == text


def test_bad_sections_and_what_takes_their_place():
    assert parse_sections("79=78,111") == {79: 78, 111: None}
    assert parse_sections(None) == {}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("79:78", "expected sections as BAD=GOOD, or BAD alone"),
        (79, "valid string"),
        ([79.5], "a part is '79.5'"),
        ("79=78,79", "section 79 is there twice"),
        ("79=78,78=77", "section 78 cannot take the place of 79: it is bad itself"),
        ("79=79", "section 79 cannot take the place of 79"),
        ("79,", "a part is ''"),
        ([[1, 2, 3]], "a part is '1=2=3'"),
    ],
)
def test_what_is_no_list_of_sections_is_refused(given, line):
    with pytest.raises(ValidationError, match=line):
        FragmentSettings(replace_sections=given)


@pytest.mark.parametrize("given", [{}, {"in_sections": True, "epsilon": 0.1}])
def test_segments_in_sections_need_fragments_in_sections(given):
    SegmentationSettings(in_sections=True, segments_in_sections=True)
    with pytest.raises(ValidationError, match="segments_in_sections: expected fragments of one section each"):
        SegmentationSettings(segments_in_sections=True, **given)


def test_a_data_set_says_all_settings_in_one_block():
    stages = (FragmentSettings, AgglomerationSettings, SweepSettings, ScoringSettings, BlockSettings)
    keys = {key for stage in stages for key in stage.model_fields}
    assert SegmentationSettings.model_fields.keys() == keys | {"instances", "slurm"}
