"""Splits: sizes, repeatability, and files that are used again."""

import json
from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.plates.plate import Numbers
from emsuite.plates.split import PARTS, check_meant, read_split, split_values, values_of, write_split

THIRDS = {"train": 0.7, "val": 0.15, "test": 0.15}


@pytest.mark.parametrize("count", [3, 4, 7, 20, 101])
def test_each_value_is_in_one_part(count: int) -> None:
    dealt = split_values(range(count), THIRDS, 0)
    assert sorted(value for part in PARTS for value in dealt[part]) == list(range(count))
    assert all(dealt[part] for part in PARTS), "validation and test have one value at least"
    for part in PARTS:
        assert dealt[part] == sorted(dealt[part])
        assert abs(len(dealt[part]) - max(1, THIRDS[part] * count)) <= 1.3


def test_parts_of_nothing_are_empty() -> None:
    assert split_values([1, 2, 3], {"train": 1.0, "val": 0.0, "test": 0.0}, 0) == {
        "train": [1, 2, 3],
        "val": [],
        "test": [],
    }
    with pytest.raises(ValueError, match="2 values for 3 parts"):
        split_values([1, 2], THIRDS, 0)
    with pytest.raises(ValueError, match="A/1/0 is there twice, expected once"):
        split_values(["A/1/0", "A/1/0", "A/1/1"], THIRDS, 0)


def test_the_seed_decides() -> None:
    """Recorded: these values must not change with a version of Python or NumPy."""
    names = [f"A/1/{n}" for n in range(10)]
    dealt = split_values(names, THIRDS, 0)
    assert dealt["val"] == ["A/1/2", "A/1/8"]
    assert dealt["test"] == ["A/1/6"]
    assert len({tuple(split_values(names, THIRDS, seed)["test"]) for seed in range(10)}) > 3


def test_a_new_value_moves_few_others() -> None:
    before = split_values(range(40), THIRDS, 1)
    after = split_values(range(41), THIRDS, 1)
    moved = sum(value not in after[part] for part in PARTS for value in before[part])
    assert moved <= 3


class Shapes:
    path = Path("plate.zarr")
    positions = ("A/1/0", "A/1/1")

    def shape(self, position: str) -> tuple[int, ...]:
        return (2, 3, 1 if position == "A/1/0" else 2, 8, 8)

    def numbers(self, position: str) -> Numbers:
        return Numbers((0, 1), (0, 1)[: self.shape(position)[2]])


def test_what_can_be_dealt_out() -> None:
    assert values_of(Shapes(), "position") == ["A/1/0", "A/1/1"]
    assert values_of(Shapes(), "time") == [0, 1]
    assert values_of(Shapes(), "channel") == [0, 1, 2]
    assert values_of(Shapes(), "slice") == [0, 1]
    assert values_of(Shapes(), "index")[:3] == ["A/1/0 t0 z0", "A/1/0 t1 z0", "A/1/1 t0 z0"]
    assert len(values_of(Shapes(), "index")) == 6


def test_files_come_back(tmp_path: Path) -> None:
    dealt = split_values([int(n) for n in np.arange(9)], THIRDS, 3)
    write_split(tmp_path / "split.json", "time", dealt)
    assert read_split(tmp_path / "split.json", "time", range(9)) == dealt
    own = {"train": [0], "val": [1], "test": [2]}
    (tmp_path / "microdl.json").write_text(json.dumps(own))
    assert read_split(tmp_path / "microdl.json", "time", range(3)) == own, "microDL's own file says not by what"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "no split, expected the lists train, val, test"),
        ('{"train": [1]}', "no split"),
        ('{"by": "slice", "train": [0], "val": [1], "test": [2]}', "splits by slice, expected by time"),
        ('{"train": [0], "val": [1], "test": [0]}', "names 0 twice"),
        ('{"train": [0], "val": [1], "test": [7]}', "names the time 7, which the plate lacks"),
    ],
)
def test_odd_files(tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(BadInput, match=line):
        read_split(tmp_path / "split.json", "time", range(3))


@pytest.mark.parametrize("meant", [[], {"all": 3}, {"all": [3]}])
def test_odd_meanings(tmp_path: Path, meant) -> None:
    write_split(tmp_path / "split.json", "time", split_values(range(3), THIRDS, 0), {"all": [[0, 1]]})
    check_meant(tmp_path / "split.json", Shapes(), "time")
    document = json.loads((tmp_path / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps(document | {"meant": meant}))
    with pytest.raises(BadInput, match=r"split.json: `meant` cannot be read"):
        check_meant(tmp_path / "split.json", Shapes(), "time")
