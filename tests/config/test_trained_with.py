"""Records of training: which settings count, and how two records differ."""

from typing import Any

import pytest

from builders import ROOT
from emsuite.common.settings import merge
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.trained_with import Record, continued, differences, is_record, of_earlier_version, record

SMALL = load_network(ROOT / "02_train/fib25/small", ["training.optimizer.schedule=constant"])
DATA = [{"volume": "cube", "raw": "sha256:1", "labels": "sha256:2", "mask": None}]


def changed(*keys: str, value: Any) -> NetworkConfig:
    for key in reversed(keys):
        value = {key: value}
    return NetworkConfig.model_validate(merge(SMALL.model_dump(mode="json"), value))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("training", "log_every"), 7),
        (("training", "snapshot_every"), 7),
        (("training", "checkpoint_every"), 7),
        (("training", "stream"), True),
        (("training", "compile"), True),
        (("training", "deterministic"), True),
        (("training", "accumulate"), 2),
        (("training", "iterations"), 7),
        (("prediction", "input_shape"), [40, 40, 40]),
        (("prediction", "precision"), "float32"),
        (("network",), "other"),
        (("dataset",), "other"),
    ],
)
def test_settings_without_influence_on_weights_do_not_count(keys: tuple[str, ...], value: Any) -> None:
    other = changed(*keys, value=value)
    assert other != SMALL
    assert differences(record(SMALL, DATA, None), record(other, DATA, None)) == []


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("training", "optimizer", "learning_rate"), 0.7),
        (("training", "sampling", "seed"), 7),
        (("training", "batch_size"), 7),
        (("training", "precision"), "float32"),
        (("training", "average"), 0.7),
        (("normalization", "method"), "z_score"),
    ],
)
def test_settings_with_influence_are_named_with_both_values(keys: tuple[str, ...], value: Any) -> None:
    (told,) = differences(record(SMALL, DATA, None), record(changed(*keys, value=value), DATA, None))
    assert told.startswith(".".join(keys) + " ")
    assert told.endswith(f" -> {value}")


def test_iterations_count_where_the_rate_falls_towards_them() -> None:
    falling = changed("training", "optimizer", "schedule", value="cosine")
    longer = falling.model_copy(update={"training": falling.training.model_copy(update={"iterations": 9})})
    (told,) = differences(record(falling, DATA, None), record(longer, DATA, None))
    assert told == f"training.iterations {SMALL.training.iterations} -> 9"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([DATA[0] | {"labels": "sha256:3"}], ["cube: labels changed"]),
        ([DATA[0] | {"raw": "sha256:3", "mask": "sha256:4"}], ["cube: raw and mask changed"]),
        ([*DATA, DATA[0]], ["volumes cube -> cube, cube"]),
        ([DATA[0] | {"volume": "other"}], ["volumes cube -> other"]),
        (None, []),
    ],
)
def test_other_volumes_are_named(data: Any, told: list[str]) -> None:
    now = record(SMALL, DATA, None) | {"data": data}
    assert differences(record(SMALL, DATA, None), now) == told


def test_a_run_that_goes_on_notes_changes_alone() -> None:
    first = record(SMALL, DATA, "a")
    history = continued([], first, 0)
    assert continued(history, first, 5) == history == [{"from": 0, **first}]
    assert continued(history, first | {"code": "b"}, 5)[1] == {"from": 5, **first, "code": "b"}
    assert continued(history, None, 5) == history


def test_earlier_versions_told_their_settings_in_the_provenance() -> None:
    earlier = SMALL.model_dump(mode="json")
    del earlier["training"]["accumulate"]
    known = of_earlier_version(earlier)
    assert known is not None
    assert differences(known, record(SMALL, DATA, "a")) == []
    assert of_earlier_version({"unknown": 1}) is None
    assert of_earlier_version(None) is None


@pytest.mark.parametrize(
    "given", [None, 5, {}, {"settings": [], "data": None, "code": None}, {"settings": {}, "data": [5], "code": None}]
)
def test_other_values_are_no_records(given: Any) -> None:
    assert not is_record(given)
    whole: Record = record(SMALL, DATA, None)
    assert is_record(whole)


def test_keys_that_an_earlier_version_did_not_know_are_no_change() -> None:
    config = load_network(ROOT / "02_train/cremi/mtlsd", ["training.iterations=1"])
    earlier = record(config, DATA, None)
    training = earlier["settings"]["training"]
    for settings, key in ((training["sampling"], "inside"), (training["grow_boundary"], "masked")):
        del settings[key]
    (step,) = (step for step in training["augment"] if step["name"] == "missing_sections")
    for key in ("artifact", "artifacts"):
        step.pop(key, None)
    for key in ("residual", "dropout", "upsample", "final_activation"):
        del earlier["settings"]["unet"][key]
    assert differences(earlier, record(config, DATA, None)) == []
    (told,) = differences(earlier, record(load_network(ROOT / "02_train/cremi/mtlsd", [
        "training.iterations=1", "training.grow_boundary.masked=false"]), DATA, None))  # fmt: skip
    assert told == "training.grow_boundary.masked True -> False"
