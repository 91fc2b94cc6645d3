"""The settings of the segmentation: sweeps of thresholds, and what results remember of them."""

import json

import pytest

from emsuite.common.errors import BadInput
from emsuite.segmentation.settings import (
    AgglomerationSettings,
    BlockSettings,
    FragmentSettings,
    SegmentationSettings,
    SweepSettings,
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
    assert json.dumps(FragmentSettings(flood="distance").model_dump()) == recorded


def test_a_data_set_says_all_settings_in_one_block():
    stages = (FragmentSettings, AgglomerationSettings, SweepSettings, BlockSettings)
    keys = {key for stage in stages for key in stage.model_fields}
    assert SegmentationSettings.model_fields.keys() == keys | {"slurm"}
