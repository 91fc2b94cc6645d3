"""Training, validation and test: which positions, slices, times, channels or images belong to each.

Values are ordered by the SHA-256 of the seed and the value, then dealt out: a value that is added later moves few
others, and the choice depends on no library's random numbers. The file has microDL's keys
`train`, `val` and `test`, and `by`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.plates.plate import Plate

PARTS = ("train", "val", "test")
Value = str | int
Meaning = dict[str, list[list[Any]]]


def values_of(plate: Plate, by: str) -> list[Value]:
    """Return the values of a plate that can be dealt out: names of positions, numbers from 0, or `A/1/0 t0 z0`."""
    shapes = {position: plate.shape(position) for position in plate.positions}
    if by == "position":
        return list(plate.positions)
    if by == "index":
        return [f"{position} t{t} z{z}" for position, s in shapes.items() for t, z in np.ndindex(s[0], s[2])]
    axis = {"time": 0, "channel": 1, "slice": 2}[by]
    return list(range(max(shape[axis] for shape in shapes.values())))


def split_values(values: Sequence[Value], fractions: Mapping[str, float], seed: int) -> dict[str, list[Value]]:
    """Deal values out to training, validation and test.

    Args:
        values: each once.
        fractions: of `train`, `val` and `test`, summing to 1. A part above 0 gets at least one value.
        seed: another seed, another choice.

    Returns:
        the values of each part, in the order of `values`.

    Raises:
        ValueError: fewer values than parts, or a value that is there twice: it would train and validate.
    """
    if double := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{double[0]} is there twice, expected once")
    parts = [part for part in PARTS if fractions[part] > 0]
    if len(values) < len(parts):
        raise ValueError(f"{len(values)} values for {len(parts)} parts, expected at least one for each")
    shuffled = sorted(values, key=lambda value: hashlib.sha256(f"{seed} {value}".encode()).hexdigest())
    ideal = {part: fractions[part] * len(values) for part in parts}
    counts = {part: max(1, int(ideal[part])) for part in parts}
    while sum(counts.values()) < len(values):
        counts[max(parts, key=lambda part: ideal[part] - counts[part])] += 1
    while sum(counts.values()) > len(values):
        counts[max((p for p in parts if counts[p] > 1), key=lambda part: counts[part] - ideal[part])] -= 1
    begin, dealt = 0, dict[str, list[Value]]()
    for part in PARTS:
        chosen = set(shuffled[begin : begin + counts.get(part, 0)])
        dealt[part] = [value for value in values if value in chosen]
        begin += len(chosen)
    return dealt


def meant_by(plate: Plate, by: str) -> Meaning:
    """Return what the values of a split stand for: they are places, which another choice from a plate gives to others.

    Returns:
        for a split by channel, time or slice, the names or numbers at the places 0, 1, ..., by index those of times and
        slices; of each position, or of `all` if they are the same. Nothing for a split by position.
    """
    if by == "position":
        return {}
    if by == "channel":
        return {"all": [list(plate.channels)]}
    axes = {"time": ("times",), "slice": ("slices",), "index": ("times", "slices")}[by]
    each: Meaning = {name: [list(getattr(plate.numbers(name), axis)) for axis in axes] for name in plate.positions}
    first = each[plate.positions[0]]
    return {"all": first} if all(one == first for one in each.values()) else each


def write_split(path: Path, by: str, dealt: Mapping[str, Sequence[Value]], meant: Meaning | None = None) -> None:
    """Write a split.json; `meant`, see `meant_by`, is written too if there is anything."""
    write_json(path, {"by": by} | {part: list(dealt[part]) for part in PARTS} | ({"meant": meant} if meant else {}))


def check_meant(path: Path, plate: Plate, by: str) -> None:
    """Raise BadInput if the values of a split.json, where it says what they stand for, stand for others in a plate."""
    told: Any = read_json(path)
    earlier: Any = told.get("meant") if isinstance(told, dict) else None
    if earlier is None:
        return  # of microDL
    here = meant_by(plate, by)
    for position in plate.positions:
        known = earlier.get("all", earlier.get(position, [])) if isinstance(earlier, dict) else None
        if not isinstance(known, list) or not all(isinstance(each, list) for each in known):
            raise BadInput(f"{path}: `meant` cannot be read, expected lists of numbers or names")
        for before, now in zip(known, here.get("all", here.get(position, [])), strict=False):
            if odd := [place for place, (one, other) in enumerate(zip(before, now, strict=False)) if one != other]:
                raise BadInput(
                    f"{path}: {by} {odd[0]} was {before[odd[0]]} and is {now[odd[0]]} in {plate.path}/{position}, "
                    "expected the same choice of channels, times and slices"
                )


def read_split(path: Path, by: str | None = None, values: Sequence[Value] | None = None) -> dict[str, list[Value]]:
    """Return the parts of a split.json.

    Args:
        path: the file.
        by: what it must deal out; None: anything.
        values: those of the plate: all that the file names must be among them; None: not compared.

    Raises:
        BadInput: the file is missing or odd, deals out something else, names a value twice or one that is gone.
    """
    content: Any = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise BadInput(f"{path}: no split, expected the lists {', '.join(PARTS)}")
    if by is not None and content.get("by", by) != by:
        raise BadInput(f"{path}: splits by {content['by']}, expected by {by}")
    named = [value for part in PARTS for value in content[part]]
    if double := [value for value, count in Counter(named).items() if count > 1]:
        raise BadInput(f"{path}: names {double[0]} twice, expected each value in one part")
    if values is not None and (gone := sorted(set(named) - set(values), key=str)):
        raise BadInput(f"{path}: names the {by} {gone[0]}, which the plate lacks")
    return {part: content[part] for part in PARTS}
